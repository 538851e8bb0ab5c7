// Package services holds the rules for core/v1 Service. They are kube-apiserver's, down to the
// texts and the order of faults, except that nothing is allocated: a Service has the addresses
// and ports that its client gives it.
package services

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/registry"
)

// Resource describes core/v1 Service.
func Resource() *registry.Resource {
	return &registry.Resource{
		API: metav1.APIResource{
			Version: "v1", Kind: "Service", Name: "services", SingularName: "service", Namespaced: true,
			ShortNames: []string{"svc"}, Categories: []string{"all"}, StorageVersionHash: "0/CO1lhkEBI=",
		},
		New:           func() registry.APIObject { return &corev1.Service{} },
		AddToScheme:   corev1.AddToScheme,
		Strategy:      Strategy{},
		Fields:        []string{"spec.clusterIP", "spec.type"},
		Reset:         []string{"status"},
		ReturnDeleted: true,
		Subresources: []registry.Subresource{{
			API:      metav1.APIResource{Name: "services/status", Kind: "Service", Verbs: metav1.Verbs{"get", "patch", "update"}},
			Strategy: statusStrategy{},
			Reset:    []string{"spec"},
		}},
		Columns: columns,
		Cells:   cells,
	}
}
