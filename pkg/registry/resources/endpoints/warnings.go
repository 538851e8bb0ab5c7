package endpoints

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Warnings returns a warning for each IP address that is not in its canonical form. Unlike
// kube-apiserver's there is none about Endpoints being deprecated.
func (Strategy) Warnings(obj runtime.Object) []string {
	subsets := obj.(*corev1.Endpoints).Subsets
	var warnings []string
	for i := range subsets {
		ss := &subsets[i]
		for j := range ss.Addresses {
			if ip := ss.Addresses[j].IP; !isCanonicalIP(ip) {
				warnings = append(warnings, ipWarnings(subsetsPath.Index(i).Child("addresses").Index(j).Child("ip"), ip)...)
			}
		}
		for j := range ss.NotReadyAddresses {
			if ip := ss.NotReadyAddresses[j].IP; !isCanonicalIP(ip) {
				warnings = append(warnings, ipWarnings(subsetsPath.Index(i).Child("notReadyAddresses").Index(j).Child("ip"), ip)...)
			}
		}
	}
	return warnings
}

// isCanonicalIP reports whether nothing is to be said about ip. Like isValidAddress it
// allocates nothing, and may say no where there is nothing to be said after all.
func isCanonicalIP(ip string) bool {
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.Is4In6() || addr.Zone() != "" {
		return false
	}
	if addr.Is4() {
		return true // netip reads no other form
	}
	var text [len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]byte
	return string(addr.AppendTo(text[:0])) == ip
}

// ipWarnings says nothing about what is no IP address at all: an update may carry one
// along that was stored long ago, and GetWarningsForIP would log it as a bug.
func ipWarnings(path *field.Path, ip string) []string {
	if _, ok := parseIPSloppy(ip); !ok {
		return nil
	}
	return validation.GetWarningsForIP(path, ip)
}
