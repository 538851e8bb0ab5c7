package mirroring

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/capacity"
	"github.com/berth-project/berth/pkg/registry/mirror"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
	"github.com/berth-project/berth/pkg/registry/ownership"
	"github.com/berth-project/berth/pkg/storage"
)

// settle has the Endpoints and the slices of the unit in step.
func (fx *Effects) settle(u *unit) error {
	if u.endpoints != nil && !mirror.IsDerived(u.endpoints.Labels()) {
		obj, err := u.endpoints.Decode()
		if err != nil {
			return err
		}
		u.current = obj.(*corev1.Endpoints)
	}
	if err := fx.mirror(u); err != nil {
		return err
	}
	return fx.derive(u)
}

// mirror makes the slices that mirror the current Endpoints of the unit; nil: none.
func (fx *Effects) mirror(u *unit) error {
	if !u.mirrored || u.current == nil || !mirror.Mirrors(u.current) {
		for _, o := range u.mirrors {
			fx.delete(o)
		}
		return nil
	}
	existing := make([]mirror.Existing, len(u.mirrors))
	for i, o := range u.mirrors {
		var err error
		if existing[i], err = mirror.Summarize(o.JSON()); err != nil {
			return err
		}
	}
	wanted, surplus, err := mirror.Slices(u.current, existing)
	if err != nil {
		return tooMany(err)
	}
	put := false
	for _, slice := range wanted {
		var changed bool
		if slice.Takes < 0 {
			changed, err = fx.create(fx.Slices, slice.EndpointSlice)
		} else {
			changed, err = fx.rewrite(u.mirrors[slice.Takes], slice.EndpointSlice)
		}
		if err != nil {
			return err
		}
		put = put || changed
	}
	for _, i := range surplus {
		fx.delete(u.mirrors[i])
	}
	if !put || fx.primary == fx.Endpoints {
		return nil
	}
	d, err := fx.draft(fx.Endpoints, u.current, u.endpoints.Identity, u.endpoints.ValueSize())
	if err != nil {
		return err
	}
	return fx.put(fx.Endpoints, d, 0)
}

// derive makes the Endpoints that show the slices of the unit, unless it has others.
func (fx *Effects) derive(u *unit) error {
	if fx.primary != fx.Endpoints && u.endpoints != nil && !mirror.IsDerived(u.endpoints.Labels()) {
		return nil
	}
	var wanted *corev1.Endpoints
	show := u.mirrored && len(u.written) > 0 && !fx.deleteOnly
	if show {
		var err error
		if show, err = fx.mayCreate(); err != nil {
			return err
		}
	}
	if show {
		shown := make([]*discoveryv1.EndpointSlice, len(u.written))
		for i, w := range u.written {
			if shown[i] = w.next; w.next == nil {
				obj, err := w.stored.Decode()
				if err != nil {
					return err
				}
				shown[i] = obj.(*discoveryv1.EndpointSlice)
			}
		}
		var err error
		if wanted, err = mirror.Endpoints(u.namespace, u.name, u.service, shown); err != nil {
			return tooMany(err)
		}
	}
	switch {
	case wanted == nil && u.endpoints != nil && fx.primary != fx.Endpoints:
		fx.delete(u.endpoints)
		return nil
	case wanted == nil:
		return nil
	case u.endpoints == nil || fx.primary == fx.Endpoints:
		_, err := fx.create(fx.Endpoints, wanted)
		return err
	}
	return fx.reshow(u.endpoints, wanted)
}

// reshow has the Endpoints that were made before show what is wanted.
func (fx *Effects) reshow(before *object.Object, wanted *corev1.Endpoints) error {
	obj, err := before.Decode()
	if err != nil {
		return err
	}
	old := obj.(*corev1.Endpoints)
	if equality.Semantic.DeepEqual(old.Labels, wanted.Labels) && equality.Semantic.DeepEqual(old.Subsets, wanted.Subsets) {
		return nil
	}
	next := ownership.ShallowCopy(old)
	next.Labels, next.Subsets = wanted.Labels, wanted.Subsets
	return fx.update(fx.Endpoints, before, old, next)
}

// leastDrafted is what all that a write makes of others may take in any case, in bytes of JSON. Beyond it
// they may take manyTimes the largest object: what is made of one that fits does not exceed that,
// unless its ports or its metadata multiply.
const (
	leastDrafted = 32 << 20
	manyTimes    = 4
)

// draft drafts an object that is made, within what all of them may take.
func (fx *Effects) draft(s Store, obj APIObject, at object.Identity, atLeast int) (*object.Object, error) {
	d, err := s.Draft(obj, at, atLeast)
	if err != nil {
		return nil, ofMade(s.APIResource().Kind, at.Name, err)
	}
	limit := max(leastDrafted, manyTimes*fx.MaxObjectBytes)
	if fx.drafted += d.ValueSize(); fx.drafted > limit {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the EndpointSlices that mirror the Endpoints %q would take more than %d bytes as JSON: "+
			"each of them repeats the labels and annotations, and those of different ports the addresses", fx.at.Name, limit))
	}
	return d, nil
}

// ofMade says of a refusal that it is for an object that is made, not for that which the client sent.
func ofMade(kind, name string, err error) error {
	var status *apierrors.StatusError
	if !errors.As(err, &status) {
		return err
	}
	made := &apierrors.StatusError{ErrStatus: *status.ErrStatus.DeepCopy()}
	if name != "" {
		name = fmt.Sprintf(" %q", name)
	}
	made.ErrStatus.Message = fmt.Sprintf("the %s%s that would be made of it cannot be stored: %s", kind, name, status.ErrStatus.Message)
	return made
}

// rewrite has a slice mirror what is wanted, and reports whether that changes it.
func (fx *Effects) rewrite(before *object.Object, wanted *discoveryv1.EndpointSlice) (changed bool, err error) {
	metadata, err := before.Metadata()
	if err != nil {
		return false, err
	}
	next := ownership.ShallowCopy(wanted)
	next.ObjectMeta = *metadata
	next.Labels, next.Annotations, next.OwnerReferences = wanted.Labels, wanted.Annotations, wanted.OwnerReferences
	d, err := fx.draft(fx.Slices, next, before.Identity, before.ValueSize())
	if err != nil {
		return false, err
	}
	if before.IsMadeOf(d.JSON()) {
		fx.require(before.Key, before.Revision)
		return false, nil
	}
	old, err := before.Decode()
	if err != nil {
		return false, err
	}
	fx.require(before.Key, before.Revision)
	return true, fx.update(fx.Slices, before, old.(APIObject), next)
}

// update has next take the place of an object that was read, and whose revision is required.
func (fx *Effects) update(s Store, before *object.Object, old, next APIObject) error {
	if err := s.Prepare(next, old, manager); err != nil {
		return err
	}
	d, err := fx.draft(s, next, before.Identity, before.ValueSize())
	if err != nil {
		return err
	}
	return fx.put(s, d, int64(d.ValueSize()-before.ValueSize()))
}

// create has an object appear, and reports whether it does: none does in a namespace that is
// deleted or terminating.
func (fx *Effects) create(s Store, obj APIObject) (bool, error) {
	if ok, err := fx.mayCreate(); err != nil || !ok {
		return false, err
	}
	for base := obj.GetGenerateName(); obj.GetName() == "" || base != "" && fx.writes(s.Key(obj.GetNamespace(), obj.GetName())); {
		obj.SetName(objectmeta.GenerateName(base))
	}
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(metav1.Now())
	if err := s.Prepare(obj, nil, manager); err != nil {
		return false, err
	}
	namespace, name := obj.GetNamespace(), obj.GetName()
	key := s.Key(namespace, name)
	d, err := fx.draft(s, obj, object.Identity{Key: key, Namespace: namespace, Name: name}, 0)
	if err != nil {
		return false, err
	}
	if fx.primary == s && key == fx.at.Key {
		fx.instead = d
		return true, nil
	}
	if s == fx.Slices {
		fx.require(key, 0)
	}
	return true, fx.put(s, d, int64(d.Size())+capacity.VersionBytes)
}

// writes reports whether the transaction writes the key already: etcd takes each only once, and among
// a thousand generated names two are equal every thirty times.
func (fx *Effects) writes(key string) bool {
	return key == fx.at.Key || slices.ContainsFunc(fx.also.Writes, func(w storage.Write) bool { return w.Key == key })
}

// mayCreate reports whether the namespace takes new objects, and requires that it stays so.
func (fx *Effects) mayCreate() (bool, error) {
	if fx.creates != nil {
		return *fx.creates, nil
	}
	guard, err := fx.Namespaces.Guard(fx.ctx, fx.at.Namespace, groupResource(fx.Slices), fx.at.Name)
	if err != nil && !apierr.IsRefusal(err) {
		return false, err
	}
	ok := guard != nil
	fx.creates = &ok
	if ok {
		fx.require(guard.Key, guard.ModRevision)
	}
	return ok, nil
}

func (fx *Effects) put(s Store, d *object.Object, adds int64) error {
	packed, err := object.Pack(d.JSON())
	if err != nil {
		return err
	}
	fx.also.Writes = append(fx.also.Writes, storage.Write{Key: d.Key, Value: packed})
	if fx.adds == nil {
		fx.adds = map[capacity.Cache]int64{}
	}
	fx.adds[s.Cache()] += adds
	return nil
}

// delete deletes an object that was read.
func (fx *Effects) delete(o *object.Object) {
	fx.require(o.Key, o.Revision)
	fx.also.Writes = append(fx.also.Writes, storage.Write{Key: o.Key, Delete: true})
}

// tooMany is the 413 for a unit that is too large to be mirrored.
func tooMany(err error) error {
	if errors.Is(err, mirror.ErrTooMany) {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("Endpoints and EndpointSlices of a Service without a selector are two views of the same, and one of them would have more than %d endpoints", mirror.MaxEndpoints))
	}
	return err
}
