package endpoints

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
)

// Resource describes core/v1 Endpoints.
func Resource() *registry.Resource {
	return &registry.Resource{
		API: metav1.APIResource{
			Version: "v1", Kind: "Endpoints", Name: "endpoints", SingularName: "endpoints", Namespaced: true,
			ShortNames: []string{"ep"}, StorageVersionHash: "fWeeMqaN/OA=",
		},
		New:             func() runtime.Object { return &corev1.Endpoints{} },
		NewList:         func() runtime.Object { return &corev1.EndpointsList{} },
		DecodePlainJSON: decodeJSON,
		EncodeJSON:      encodeJSON,
		Strategy:        Strategy{},
		Atomic: []registry.AtomicField{{
			Name:  "subsets",
			IsSet: func(obj runtime.Object) bool { return len(obj.(*corev1.Endpoints).Subsets) > 0 },
			Equal: func(a, b runtime.Object) bool {
				return slices.EqualFunc(a.(*corev1.Endpoints).Subsets, b.(*corev1.Endpoints).Subsets, equalSubsets)
			},
			Copy: func(to, from runtime.Object) {
				to.(*corev1.Endpoints).Subsets = copySubsets(from.(*corev1.Endpoints).Subsets)
			},
		}},
		Columns: columns,
		Cells:   cells,
	}
}

// The comparisons are of what JSON shows: an empty list is as good as none.

func equalSubsets(a, b corev1.EndpointSubset) bool {
	return slices.EqualFunc(a.Addresses, b.Addresses, equalAddresses) &&
		slices.EqualFunc(a.NotReadyAddresses, b.NotReadyAddresses, equalAddresses) &&
		slices.EqualFunc(a.Ports, b.Ports, func(a, b corev1.EndpointPort) bool {
			return a.Name == b.Name && a.Port == b.Port && a.Protocol == b.Protocol && equalPointees(a.AppProtocol, b.AppProtocol)
		})
}

func equalAddresses(a, b corev1.EndpointAddress) bool {
	return a.IP == b.IP && a.Hostname == b.Hostname && equalPointees(a.NodeName, b.NodeName) && equalPointees(a.TargetRef, b.TargetRef)
}

// copySubsets copies as much as Default may change.
func copySubsets(subsets []corev1.EndpointSubset) []corev1.EndpointSubset {
	subsets = slices.Clone(subsets)
	for i := range subsets {
		subsets[i].Ports = slices.Clone(subsets[i].Ports)
	}
	return subsets
}

func equalPointees[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}
