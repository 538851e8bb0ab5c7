package mirroring

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/capacity"
	"github.com/berth-project/berth/pkg/registry/mirror"
	"github.com/berth-project/berth/pkg/storage"
)

// manager owns the fields of what is made.
const manager = "berth"

// Effects are what the write of an object, the primary, makes of others.
type Effects struct {
	*Mirroring
	ctx     context.Context //nolint:containedctx // of the one call that makes the effects
	primary Store           // nil: there is no such write
	at      object.Identity // of the primary

	also       storage.Also
	deleteOnly bool
	instead    *object.Object
	// adds is by how many bytes the others become larger, by cache.
	adds map[capacity.Cache]int64
	// drafted is how many bytes of JSON were made of others.
	drafted int
	// creates is whether objects may appear in the namespace; nil: nobody has asked.
	creates *bool
}

// Effects returns what a write of an object of the primary store's makes of others; nil where m is. before
// is as it was read, nil if it does not exist or cannot be read, and after as it will be, nil if it
// is deleted. deleteOnly has nothing made, and what would show what remains deleted. It returns
// Forbidden for a client's write of what is made of something else. After a refusal the caches are
// as new as the store: it may have been for what has passed.
func (m *Mirroring) Effects(ctx context.Context, primary Store, at object.Identity, before *object.Object, after APIObject, deleteOnly bool) (*Effects, error) {
	if m == nil {
		return nil, nil
	}
	fx := &Effects{Mirroring: m, ctx: ctx, primary: primary, at: at, deleteOnly: deleteOnly}
	err := fx.of(before, after)
	if apierr.IsRefusal(err) {
		if err := m.freshen(ctx); err != nil {
			return nil, err
		}
	}
	return fx, err
}

// Also is the part of the transaction that the effects are.
func (fx *Effects) Also() storage.Also {
	if fx == nil {
		return storage.Also{}
	}
	return fx.also
}

// Instead takes the place of a primary that is deleted; nil: nothing does.
func (fx *Effects) Instead() *object.Object {
	if fx == nil {
		return nil
	}
	return fx.instead
}

// Adds returns by how many bytes the others become larger, or smaller, in all.
func (fx *Effects) Adds() (total int64) {
	if fx != nil {
		for _, bytes := range fx.adds {
			total += bytes
		}
	}
	return total
}

// Grows returns by how many bytes the objects in each cache become larger, those of the primary's by
// adds besides.
func (fx *Effects) Grows(primary capacity.Cache, adds int64) map[capacity.Cache]int64 {
	all := map[capacity.Cache]int64{}
	if fx != nil {
		maps.Copy(all, fx.adds)
	}
	all[primary] += adds
	return all
}

// of adds what the write of the primary makes of the others.
func (fx *Effects) of(before *object.Object, after APIObject) error {
	switch fx.primary {
	case fx.Endpoints:
		next, _ := after.(*corev1.Endpoints)
		return fx.ofEndpoints(before, next)
	case fx.Services:
		next, _ := after.(*corev1.Service)
		return fx.ofService(before, next)
	default:
		next, _ := after.(*discoveryv1.EndpointSlice)
		return fx.ofSlice(before, next)
	}
}

// ofEndpoints are the effects of a write of Endpoints.
func (fx *Effects) ofEndpoints(before *object.Object, next *corev1.Endpoints) error {
	if next != nil && mirror.IsDerived(labels.Set(next.Labels)) {
		return fx.forbid("it has the label %s=%s of Endpoints that this server makes from EndpointSlices: write those, or replace it (PUT) with Endpoints of your own, without its labels", mirror.DerivedLabel, mirror.DerivedBy)
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
func (fx *Effects) ofService(before *object.Object, next *corev1.Service) error {
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
func (fx *Effects) ofSlice(before *object.Object, next *discoveryv1.EndpointSlice) error {
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
		return fx.forbid("the label %s=%s is for EndpointSlices that this server makes from Endpoints", discoveryv1.LabelManagedBy, mirror.ManagedBy)
	}
	for _, name := range units {
		if err := fx.ofSliceIn(name, before, next, isMirror); err != nil {
			return err
		}
	}
	return nil
}

// ofSliceIn are the effects of a write of a slice on one unit.
func (fx *Effects) ofSliceIn(name string, before *object.Object, next *discoveryv1.EndpointSlice, isMirror bool) error {
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

// forbid is the 403 for a write of what is made of something else.
func (fx *Effects) forbid(format string, args ...any) error {
	return apierrors.NewForbidden(groupResource(fx.primary), fx.at.Name, fmt.Errorf(format, args...))
}
