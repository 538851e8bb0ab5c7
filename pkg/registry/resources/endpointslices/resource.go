// Package endpointslices holds the rules for discovery.k8s.io/v1 EndpointSlice. They are
// kube-apiserver's, down to the texts and the order of faults.
package endpointslices

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/registry"
)

// Resource describes discovery.k8s.io/v1 EndpointSlice.
func Resource() *registry.Resource {
	return &registry.Resource{
		API: metav1.APIResource{
			Group: discoveryv1.GroupName, Version: "v1", Kind: "EndpointSlice", Name: "endpointslices", SingularName: "endpointslice",
			Namespaced: true, StorageVersionHash: "qgS0xkrxYAI=",
		},
		New:              func() registry.APIObject { return &discoveryv1.EndpointSlice{} },
		AddToScheme:      discoveryv1.AddToScheme,
		Strategy:         Strategy{},
		NoCreateOnUpdate: true,
		Columns:          columns,
		Cells:            cells,
	}
}
