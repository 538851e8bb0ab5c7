package endpoints

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/registry"
)

// Resource describes core/v1 Endpoints.
func Resource() *registry.Resource {
	return &registry.Resource{
		API: metav1.APIResource{
			Version: "v1", Kind: "Endpoints", Name: "endpoints", SingularName: "endpoints", Namespaced: true,
			ShortNames: []string{"ep"}, StorageVersionHash: "fWeeMqaN/OA=",
		},
		New:         func() registry.APIObject { return &corev1.Endpoints{} },
		AddToScheme: corev1.AddToScheme,
		Strategy:    Strategy{},
		Columns:     columns,
		Cells:       cells,
	}
}
