package registry

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/mirror"
	"github.com/berth-project/berth/pkg/storage"
)

// Mirroring says for which names Endpoints and EndpointSlices are two views of one truth.
type Mirroring int

const (
	// NoMirroring leaves both as they are written.
	NoMirroring Mirroring = iota
	// MirrorServices is for Services without a selector.
	MirrorServices
	// MirrorAll is for those, and for Endpoints and EndpointSlices without a Service.
	MirrorAll
)

// mirroring keeps Endpoints and EndpointSlices in step. Those of one name are a unit, with the
// Service of that name. In a unit either is made of the other: the slices that mirror Endpoints of
// Endpoints that somebody wrote, or else the Endpoints of the slices that somebody wrote. What is
// made bears a mark, and nothing is made of it: there are no loops.
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
type mirroring struct {
	endpoints, services, slices *Store
	all                         bool // whether a unit needs no Service
}

// touchedPrefix is where the keys <namespace>/<name> begin that writes of slices touch.
const touchedPrefix = "/registry/berth/endpointslices/"

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

// newMirroring returns nil where nothing is to be kept in step.
func newMirroring(mode Mirroring, stores []*Store) (*mirroring, error) {
	if mode == NoMirroring {
		return nil, nil
	}
	m := &mirroring{all: mode == MirrorAll}
	for name, store := range map[string]**Store{"endpoints": &m.endpoints, "services": &m.services, "endpointslices": &m.slices} {
		for _, s := range stores {
			if s.resource.API.Name == name {
				*store, s.mirroring = s, m
			}
		}
		if *store == nil {
			return nil, fmt.Errorf("mirroring needs the resource %s", name)
		}
	}
	return m, nil
}

// unitOf indexes slices by their units.
func unitOf(v stored) string {
	if v.object == nil {
		return ""
	}
	if service := serviceOf(v.object); service != "" {
		return v.object.Namespace + "/" + service
	}
	return ""
}

func serviceOf(slice *object.Object) string {
	return slice.Labels().Get(discoveryv1.LabelServiceName)
}

// of adds what the write of an object makes of the others, which was read as before, nil if it does not
// exist, and will be after, nil if it is deleted. It returns Forbidden for a client's write of what is made
// of something else.
func (fx *effects) of(before *object.Object, after APIObject) error {
	switch fx.primary {
	case fx.endpoints:
		next, _ := after.(*corev1.Endpoints)
		return fx.ofEndpoints(before, next)
	case fx.services:
		next, _ := after.(*corev1.Service)
		return fx.ofService(before, next)
	default:
		next, _ := after.(*discoveryv1.EndpointSlice)
		return fx.ofSlice(before, next)
	}
}

// ofEndpoints are the effects of a write of Endpoints.
func (fx *effects) ofEndpoints(before *object.Object, next *corev1.Endpoints) error {
	if next != nil && mirror.IsDerived(labels.Set(next.Labels)) {
		return fx.forbid("it has the label %s=%s of Endpoints that this server makes of EndpointSlices: write those, or replace it (PUT) by Endpoints of your own, without its labels", mirror.DerivedLabel, mirror.DerivedBy)
	}
	u := &unit{namespace: fx.at.Namespace, name: fx.at.Name, endpoints: before, current: next}
	if err := fx.readService(u); err != nil || !u.mirrored {
		return err
	}
	if err := fx.readSlices(u); err != nil {
		return err
	}
	if err := fx.mirror(u); err != nil || next != nil {
		return err
	}
	return fx.derive(u)
}

// ofService are the effects of a write of a Service: it may begin or end that its unit is mirrored,
// and lends its labels to Endpoints that are made.
func (fx *effects) ofService(before *object.Object, next *corev1.Service) error {
	var service *corev1.Service
	if before != nil {
		obj, err := before.Decode()
		if err != nil {
			return err
		}
		service = obj.(*corev1.Service)
	}
	was, is := fx.isMirrored(fx.at.Name, service), fx.isMirrored(fx.at.Name, next)
	if before == nil && next == nil {
		was = true // nobody knows of one that cannot be read
	}
	if !was && !is {
		return nil
	}
	u := &unit{namespace: fx.at.Namespace, name: fx.at.Name, service: next, mirrored: is}
	if ok, err := fx.readEndpoints(u); err != nil || !ok {
		return err
	}
	if was && is && u.endpoints != nil && !mirror.IsDerived(u.endpoints.Labels()) {
		return nil
	}
	if err := fx.readSlices(u); err != nil {
		return err
	}
	return fx.settle(u)
}

// ofSlice are the effects of a write of a slice, which may leave one unit for another.
func (fx *effects) ofSlice(before *object.Object, next *discoveryv1.EndpointSlice) error {
	var units []string
	if before != nil && serviceOf(before) != "" {
		units = append(units, serviceOf(before))
	}
	if next != nil && next.Labels[discoveryv1.LabelServiceName] != "" && (len(units) == 0 || units[0] != next.Labels[discoveryv1.LabelServiceName]) {
		units = append(units, next.Labels[discoveryv1.LabelServiceName])
	}
	isMirror := before != nil && mirror.IsMirror(before.Labels()) && serviceOf(before) != ""
	switch {
	case len(units) == 0:
		return nil
	case isMirror && next != nil:
		return fx.forbid("it mirrors the Endpoints %q: change those, and it follows", units[0])
	case next != nil && mirror.IsMirror(labels.Set(next.Labels)):
		return fx.forbid("the label %s=%s is for EndpointSlices that this server makes of Endpoints", discoveryv1.LabelManagedBy, mirror.ManagedBy)
	}
	for _, name := range units {
		if err := fx.ofSliceIn(name, before, next, isMirror); err != nil {
			return err
		}
	}
	return nil
}

// ofSliceIn are the effects of a write of a slice on one unit.
func (fx *effects) ofSliceIn(name string, before *object.Object, next *discoveryv1.EndpointSlice, isMirror bool) error {
	u := &unit{namespace: fx.at.Namespace, name: name}
	if err := fx.readService(u); err != nil {
		return err
	}
	known, err := fx.readEndpoints(u)
	if err != nil {
		return err
	}
	if err := fx.readSlices(u); err != nil {
		return err
	}
	u.mirrors = without(u.mirrors, fx.at.Key)
	u.replace(fx.at.Key, before, next)
	if !isMirror {
		if next == nil {
			err = fx.takeAlong(u)
		}
		fx.touch(u)
	}
	switch {
	case err != nil, !known:
		return err
	case isMirror:
		if ok, err := fx.mayCreate(); err != nil || !ok || fx.deleteOnly {
			return err // where all is being deleted it would be made again for each that goes
		}
		return fx.settle(u)
	}
	return fx.derive(u)
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

// isMade reports whether the object is made of others.
func (s *Store) isMade(obj APIObject) bool {
	set := labels.Set(obj.GetLabels())
	m := s.mirroring
	switch {
	case m == nil:
		return false
	case s == m.slices:
		return mirror.IsMirror(set) && set.Has(discoveryv1.LabelServiceName)
	}
	return s == m.endpoints && mirror.IsDerived(set)
}

// forbid is the 403 for a write of what is made of something else.
func (fx *effects) forbid(format string, args ...any) error {
	return apierrors.NewForbidden(fx.primary.resource.GroupResource(), fx.at.Name, fmt.Errorf(format, args...))
}

// isMirrored reports whether the Endpoints and slices of a name are to be in step where that is the
// Service; nil: there is none.
func (m *mirroring) isMirrored(name string, service *corev1.Service) bool {
	if service != nil {
		return len(service.Spec.Selector) == 0
	}
	return m.all && len(validation.NameIsDNSSubdomain(name, false)) == 0
}

// readService reads the Service of the unit, and requires that it stays as it is.
func (fx *effects) readService(u *unit) error {
	found, err := fx.cached(fx.services, u.namespace, u.name)
	if err != nil || found.broken != nil {
		return err // one that cannot be read has no say
	}
	if found.object != nil {
		obj, err := found.object.Decode()
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
func (fx *effects) readEndpoints(u *unit) (ok bool, err error) {
	found, err := fx.cached(fx.endpoints, u.namespace, u.name)
	u.endpoints = found.object
	return found.broken == nil, err
}

// cached returns what the cache has of an object, and requires that it stays so.
func (fx *effects) cached(s *Store, namespace, name string) (stored, error) {
	key := s.resource.key(namespace, name)
	entry, _, err := s.cache.Get(key)
	if err != nil { // it is being filled again
		if err := s.cache.WaitFor(fx.ctx, 0); err != nil {
			return stored{}, apierr.FromStorage(err)
		}
		return fx.cached(s, namespace, name)
	}
	if entry == nil {
		fx.require(key, 0)
		return stored{}, nil
	}
	fx.require(key, entry.Revision)
	return entry.Value, nil
}

// readSlices reads the slices of the unit, as new as its Endpoints at least, and requires that none
// is written that the cache does not have.
func (fx *effects) readSlices(u *unit) error {
	least := int64(0)
	switch {
	case fx.primary == fx.endpoints:
		least = fx.at.Revision // which has no object if it cannot be read
	case u.endpoints != nil:
		least = u.endpoints.Revision
	}
	if err := fx.slices.cache.WaitFor(fx.ctx, least); err != nil {
		return apierr.FromStorage(err)
	}
	entries, revision, err := fx.slices.cache.Indexed(u.namespace + "/" + u.name)
	if err != nil {
		return apierr.FromStorage(err)
	}
	u.revision = revision
	for _, entry := range entries {
		if o := entry.Value.object; mirror.IsMirror(o.Labels()) {
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

func touchedKey(u *unit) string { return touchedPrefix + u.namespace + "/" + u.name }

// touch tells the others of a write of a slice that is not a mirror.
func (fx *effects) touch(u *unit) {
	fx.also.Writes = append(fx.also.Writes, storage.Write{Key: touchedKey(u), Delete: len(u.written) == 0})
}

// require has the transaction fail unless the key has that revision; 0: it does not exist.
func (fx *effects) require(key string, revision int64) {
	fx.also.Conditions = append(fx.also.Conditions, storage.Condition{Key: key, Min: revision, Max: revision})
}

// freshen waits until the caches have what is stored now.
func (m *mirroring) freshen(ctx context.Context) error {
	for _, s := range []*Store{m.endpoints, m.services, m.slices} {
		if err := s.cache.Fresh(ctx); err != nil {
			return err
		}
	}
	return nil
}

// catchUp waits, after a transaction that failed at the revision, until the caches show what it met.
func (m *mirroring) catchUp(ctx context.Context, namespace string, revision int64) {
	m.slices.namespaces.Forget(namespace)
	for _, s := range []*Store{m.endpoints, m.services, m.slices} {
		if s.cache.WaitFor(ctx, revision) != nil {
			return // whoever tries again finds that ctx has ended
		}
	}
}

// tooMany is the 413 for a unit that is too large to be mirrored.
func tooMany(err error) error {
	if errors.Is(err, mirror.ErrTooMany) {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("Endpoints and EndpointSlices of a Service without a selector are two views of the same, and one of them would have more than %d endpoints", mirror.MaxEndpoints))
	}
	return err
}
