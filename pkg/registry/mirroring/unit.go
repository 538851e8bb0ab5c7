package mirroring

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/validation"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/mirror"
	"github.com/berth-project/berth/pkg/storage"
)

// unit is what is there of a name.
type unit struct {
	namespace, name string
	mirrored        bool            // whether its Endpoints and slices are to be in step
	service         *corev1.Service // nil: there is none
	endpoints       *object.Object  // nil: there are none
	current         *corev1.Endpoints
	mirrors         []*object.Object
	written         []writtenSlice
	revision        int64 // of the slices
}

// writtenSlice is a slice that somebody wrote: as it is stored, or as it is going to be.
type writtenSlice struct {
	stored *object.Object
	next   *discoveryv1.EndpointSlice
}

// replace replaces a written slice of the unit, if it is or will be one.
func (u *unit) replace(key string, before *object.Object, next *discoveryv1.EndpointSlice) {
	kept := u.written[:0:0]
	for _, w := range u.written {
		if w.stored.Key != key {
			kept = append(kept, w)
		}
	}
	if next != nil && next.Labels[discoveryv1.LabelServiceName] == u.name {
		kept = append(kept, writtenSlice{before, next})
	}
	u.written = kept
}

func without(objects []*object.Object, key string) []*object.Object {
	kept := objects[:0:0]
	for _, o := range objects {
		if o.Key != key {
			kept = append(kept, o)
		}
	}
	return kept
}

// isMirrored reports whether the Endpoints and slices of a name are to be in step where that is the
// Service; nil: there is none.
func (m *Mirroring) isMirrored(name string, service *corev1.Service) bool {
	if service != nil {
		return len(service.Spec.Selector) == 0
	}
	return m.Mode == All && len(validation.NameIsDNSSubdomain(name, false)) == 0
}

// readService reads the Service of the unit, and requires that it stays as it is.
func (fx *Effects) readService(u *unit) error {
	found, ok, err := fx.cached(fx.Services, u.namespace, u.name)
	if err != nil || !ok {
		return err // one that cannot be read has no say
	}
	if found != nil {
		obj, err := found.Decode()
		if err != nil {
			return err
		}
		u.service = obj.(*corev1.Service)
	}
	u.mirrored = fx.isMirrored(u.name, u.service)
	return nil
}

// readEndpoints reads the Endpoints of the unit, and requires that they stay as they are. ok is
// false for Endpoints that cannot be read: then the unit is left alone.
func (fx *Effects) readEndpoints(u *unit) (ok bool, err error) {
	u.endpoints, ok, err = fx.cached(fx.Endpoints, u.namespace, u.name)
	return ok, err
}

// cached returns what the cache has of an object, nil for nothing, and requires that it stays so. ok is
// false for one that cannot be read.
func (fx *Effects) cached(s Store, namespace, name string) (o *object.Object, ok bool, err error) {
	key := s.Key(namespace, name)
	o, revision, err := s.Cached(key)
	if err != nil { // it is being filled again
		if err := s.WaitFor(fx.ctx, 0); err != nil {
			return nil, false, apierr.FromStorage(err)
		}
		return fx.cached(s, namespace, name)
	}
	fx.require(key, revision)
	return o, o != nil || revision == 0, nil
}

// readSlices reads the slices of the unit, as new as its Endpoints at least, and requires that none
// is written that the cache does not have.
func (fx *Effects) readSlices(u *unit) error {
	least := int64(0)
	switch {
	case fx.primary == fx.Endpoints:
		least = fx.at.Revision // which has no object if it cannot be read
	case u.endpoints != nil:
		least = u.endpoints.Revision
	}
	if err := fx.Slices.WaitFor(fx.ctx, least); err != nil {
		return apierr.FromStorage(err)
	}
	found, revision, err := fx.Slices.OfUnit(u.key())
	if err != nil {
		return apierr.FromStorage(err)
	}
	u.revision = revision
	for _, o := range found {
		if mirror.IsMirror(o.Labels()) {
			u.mirrors = append(u.mirrors, o)
		} else {
			u.written = append(u.written, writtenSlice{stored: o})
		}
	}
	fx.also.Conditions = append(fx.also.Conditions, storage.Condition{Key: touchedKey(u), Max: revision})
	if len(u.written) > 0 {
		if first := u.written[0].stored; first.Key != fx.at.Key {
			fx.require(first.Key, first.Revision)
		}
	}
	return nil
}

// key is the unit as Unit names it.
func (u *unit) key() string { return u.namespace + "/" + u.name }

func touchedKey(u *unit) string { return touchedPrefix + u.key() }

// touch tells the others of a write of a slice that is not a mirror.
func (fx *Effects) touch(u *unit) {
	fx.also.Writes = append(fx.also.Writes, storage.Write{Key: touchedKey(u), Delete: len(u.written) == 0})
}

// require has the transaction fail unless the key has that revision; 0: it does not exist.
func (fx *Effects) require(key string, revision int64) {
	fx.also.Conditions = append(fx.also.Conditions, storage.Condition{Key: key, Min: revision, Max: revision})
}
