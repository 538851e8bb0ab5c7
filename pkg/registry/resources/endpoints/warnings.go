package endpoints

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry/resources/network"
)

// Warnings returns a warning for each IP address that is not in its canonical form. Unlike
// kube-apiserver's there is none about Endpoints being deprecated.
func (Strategy) Warnings(obj, _ runtime.Object) []string {
	subsets := obj.(*corev1.Endpoints).Subsets
	var warnings []string
	for i := range subsets {
		ss := &subsets[i]
		for j := range ss.Addresses {
			if ip := ss.Addresses[j].IP; !network.IsCanonicalIP(ip) {
				warnings = append(warnings, network.Warnings(subsetsPath.Index(i).Child("addresses").Index(j).Child("ip"), ip)...)
			}
		}
		for j := range ss.NotReadyAddresses {
			if ip := ss.NotReadyAddresses[j].IP; !network.IsCanonicalIP(ip) {
				warnings = append(warnings, network.Warnings(subsetsPath.Index(i).Child("notReadyAddresses").Index(j).Child("ip"), ip)...)
			}
		}
	}
	return warnings
}
