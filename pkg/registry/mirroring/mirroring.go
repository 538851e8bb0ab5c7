// Package mirroring keeps Endpoints and EndpointSlices in step: it finds out what a write of one of them, or
// of a Service, makes of the others, for the registry to write in the same transaction. How either
// looks as the other is decided by package mirror.
package mirroring

import (
	"context"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/capacity"
	"github.com/berth-project/berth/pkg/registry/lifecycle"
	"github.com/berth-project/berth/pkg/registry/mirror"
	"github.com/berth-project/berth/pkg/storage"
)

// Mode says for which names Endpoints and EndpointSlices are two views of one truth.
type Mode int

const (
	// None leaves both as they are written.
	None Mode = iota
	// Services is for Services without a selector.
	Services
	// All is for those, and for Endpoints and EndpointSlices without a Service.
	All
)

// Mirroring keeps Endpoints and EndpointSlices in step; nil: they are left as they are written. Those of
// one name are a unit, with the Service of that name. In a unit either is made of the other: the
// slices that mirror Endpoints of Endpoints that somebody wrote, or else the Endpoints of the
// slices that somebody wrote. What is made bears a mark, and nothing is made of it: there are no
// loops.
//
// A write carries what it makes of the others in its own transaction, on the condition that the
// unit is as the caches showed it:
//
//   - Endpoints and Service are compared by their revisions.
//   - Mirrors are only created along with a write of the Endpoints. So a cache of slices that is as
//     new as the Endpoints has them all, and each that is kept or rewritten is compared.
//   - Each write of another slice of the unit writes the unit's key below touchedPrefix. Who goes by
//     those slices compares that key with the revision of the cache, and the first of them, since
//     the key goes with the last of them.
//
// Every field is required, and stays as it is.
type Mirroring struct {
	Mode                        Mode // not None
	Endpoints, Services, Slices Store
	MaxObjectBytes              int // of an object's JSON
	Storage                     storage.Interface
	Namespaces                  *lifecycle.Namespaces
	Capacity                    *capacity.Capacity
}

// touchedPrefix is where the keys <namespace>/<name> begin that writes of slices touch.
const touchedPrefix = "/registry/berth/endpointslices/"

// APIObject is an object as the Go types of the API have it.
type APIObject interface {
	runtime.Object
	metav1.Object
}

// Store is what a Mirroring needs of the store of a resource. Two of the same store are equal.
type Store interface {
	APIResource() metav1.APIResource
	// Key is where an object is stored.
	Key(namespace, name string) string

	// Cache is where what is written takes memory.
	Cache() capacity.Cache
	// Cached returns what the cache has under a key: no object and the revision 0 where it has
	// nothing, no object where that cannot be read. An error: it is being filled.
	Cached(key string) (o *object.Object, revision int64, err error)
	// All returns all objects of the cache that can be read.
	All() ([]*object.Object, error)
	// OfUnit returns the slices of which Unit returns that unit, in the order of their keys, and the
	// revision of that state. It is only called for slices.
	OfUnit(unit string) ([]*object.Object, int64, error)
	// WaitFor waits until the cache is as new as the revision; 0: until it is filled.
	WaitFor(ctx context.Context, revision int64) error
	// Fresh waits until the cache has what was stored when it was called.
	Fresh(ctx context.Context) error

	// Prepare gets obj ready to take the place of old, which is nil if obj is new: the manager comes to
	// own what differs, and what only the server may set is set.
	Prepare(obj, old APIObject, manager string) error
	// Draft encodes an object that is to be stored. It may always be as large as atLeast, in bytes of JSON.
	Draft(obj APIObject, at object.Identity, atLeast int) (*object.Object, error)
}

// Unit returns the unit of a slice, as <namespace>/<name>; "": it is of none.
func Unit(slice *object.Object) string {
	if service := serviceOf(slice); service != "" {
		return slice.Namespace + "/" + service
	}
	return ""
}

func serviceOf(slice *object.Object) string {
	return slice.Labels().Get(discoveryv1.LabelServiceName)
}

func groupResource(s Store) schema.GroupResource {
	api := s.APIResource()
	return schema.GroupResource{Group: api.Group, Resource: api.Name}
}

// IsMade reports whether an object of the store is made of others.
func (m *Mirroring) IsMade(s Store, obj metav1.Object) bool {
	set := labels.Set(obj.GetLabels())
	switch {
	case m == nil:
		return false
	case s == m.Slices:
		return mirror.IsMirror(set) && set.Has(discoveryv1.LabelServiceName)
	}
	return s == m.Endpoints && mirror.IsDerived(set)
}

func (m *Mirroring) stores() []Store { return []Store{m.Endpoints, m.Services, m.Slices} }

// freshen waits until the caches have what is stored now.
func (m *Mirroring) freshen(ctx context.Context) error {
	for _, s := range m.stores() {
		if err := s.Fresh(ctx); err != nil {
			return err
		}
	}
	return nil
}

// CatchUp waits, after a transaction in the namespace that failed at the revision, until the caches show
// what it met, or ctx ends.
func (m *Mirroring) CatchUp(ctx context.Context, namespace string, revision int64) {
	if m == nil {
		return
	}
	m.Namespaces.Forget(namespace)
	for _, s := range m.stores() {
		if s.WaitFor(ctx, revision) != nil {
			return // whoever tries again finds that ctx has ended
		}
	}
}
