// Package resources is the catalogue: one list of every resource that is served, with what
// follows from it: the Go types, the schemas of field ownership, and the OpenAPI documents.
// Another resource is a folder beside the others and a line in the list.
package resources

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/resources/endpoints"
	"github.com/berth-project/berth/pkg/registry/resources/endpointslices"
	"github.com/berth-project/berth/pkg/registry/resources/events"
	"github.com/berth-project/berth/pkg/registry/resources/leases"
	"github.com/berth-project/berth/pkg/registry/resources/namespaces"
	"github.com/berth-project/berth/pkg/registry/resources/nodes"
	"github.com/berth-project/berth/pkg/registry/resources/pods"
	"github.com/berth-project/berth/pkg/registry/resources/rbac"
	"github.com/berth-project/berth/pkg/registry/resources/services"
	"github.com/berth-project/berth/pkg/registry/reviews"
)

// All returns every resource that is served. Discovery lists groups in the order of their
// first resource here.
func All() []*registry.Resource {
	return slices.Concat([]*registry.Resource{
		namespaces.Resource(),
		endpoints.Resource(),
		leases.Resource(),
		services.Resource(),
		endpointslices.Resource(),
		pods.Resource(),
		nodes.Resource(),
	}, rbac.Resources(), events.Resources())
}

// Scheme returns the Go types of the groups and versions of All, and of the reviews. It is
// shared, and must not be changed.
var Scheme = sync.OnceValue(func() *runtime.Scheme {
	scheme := runtime.NewScheme()
	add := []func(*runtime.Scheme) error{reviews.AddToScheme}
	for _, resource := range All() {
		add = append(add, resource.AddToScheme)
	}
	for _, addToScheme := range add {
		if err := addToScheme(scheme); err != nil {
			panic(err) // two types of the same name: a mistake in a descriptor
		}
	}
	return scheme
})
