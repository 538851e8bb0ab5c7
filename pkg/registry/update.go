package registry

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
	"github.com/berth-project/berth/pkg/registry/ownership"
)

// change computes the successor of an object and the warnings that it deserves, with
// defaults set and field ownership settled. current is what before decodes to; both are nil
// where there is no object yet. It is called again where the object was changed meanwhile.
type change func(before *object.Object, current APIObject) (next APIObject, warnings []string, err error)

// errModified is kube-apiserver's text for a write based on an old version.
var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

// Update replaces an object by obj, or its subresource, or creates it where there is none.
// Without a resourceVersion it replaces whatever is there, unless the resource requires one.
// opts.FieldManager must not be empty.
//
// Errors: BadRequest for another name or namespace or a malformed resourceVersion, Conflict
// for a version that has passed or another uid, NotFound where it may not create, and those
// of Create.
func (s *Store) Update(ctx context.Context, namespace, name, subresource string, given runtime.Object, opts *metav1.UpdateOptions) (updated *object.Object, created bool, warnings []string, err error) {
	part, err := s.part(subresource)
	if err != nil {
		return nil, false, nil, err
	}
	obj := given.(APIObject)
	if err := s.matchNamespace(namespace, obj); err != nil {
		return nil, false, nil, err
	}
	if err := matchName(obj, name); err != nil {
		return nil, false, nil, err
	}
	version, err := parseResourceVersion(obj.GetResourceVersion())
	if err != nil {
		return nil, false, nil, err
	}
	s.resource.Strategy.Default(obj)
	duplicates := objectmeta.DropDuplicateOwners(obj)
	return s.modify(ctx, namespace, name, part, isDryRun(opts.DryRun), func(_ *object.Object, current APIObject) (APIObject, []string, error) {
		if err := s.checkUID(current, obj.GetUID(), name); err != nil {
			return nil, nil, err
		}
		// An attempt sets fields, and replaces maps and lists. What is in those, thousands of
		// addresses perhaps, stays shared.
		next := ownership.ShallowCopy(obj)
		switch {
		case current == nil && (s.resource.NoCreateOnUpdate || subresource != ""):
			return nil, nil, apierrors.NewNotFound(s.resource.GroupResource(), name)
		case current == nil:
			return next, duplicates, part.owners.Update(s.resource.New(), next, opts.FieldManager)
		case version == 0 && s.resource.RequireVersion:
			// kube-apiserver names the resource here, not the kind.
			kind := schema.GroupKind{Group: s.resource.API.Group, Kind: s.resource.API.Name}
			return nil, nil, apierrors.NewInvalid(kind, name, field.ErrorList{field.Invalid(versionPath, version, "must be specified for an update")})
		}
		if err := carryOver(next, current); err != nil {
			return nil, nil, err
		}
		return next, duplicates, part.owners.Update(current, next, opts.FieldManager)
	})
}

// part returns what writes of the subresource need; "" is the object itself.
func (s *Store) part(subresource string) (*part, error) {
	if part, ok := s.parts[subresource]; ok {
		return part, nil
	}
	return nil, fmt.Errorf("%s have no subresource %q", s.resource.API.Name, subresource)
}

// carryOver gives next what only the server sets, as current has it, for what the client
// left out or may not change.
func carryOver(next, current APIObject) error {
	if version, err := parseResourceVersion(next.GetResourceVersion()); err != nil {
		return err
	} else if version == 0 {
		next.SetResourceVersion(current.GetResourceVersion())
	}
	if next.GetUID() == "" {
		next.SetUID(current.GetUID())
	}
	next.SetSelfLink(current.GetSelfLink())
	next.SetGeneration(current.GetGeneration())
	next.SetCreationTimestamp(current.GetCreationTimestamp())
	if current.GetDeletionTimestamp() != nil {
		next.SetDeletionTimestamp(current.GetDeletionTimestamp())
	}
	if current.GetDeletionGracePeriodSeconds() != nil {
		next.SetDeletionGracePeriodSeconds(current.GetDeletionGracePeriodSeconds())
	}
	return nil
}

// checkUID refuses an update that is meant for another object of the same name.
func (s *Store) checkUID(current APIObject, given types.UID, name string) error {
	var uid types.UID
	if current != nil {
		uid = current.GetUID()
	}
	if given == "" || given == uid {
		return nil
	}
	return s.failedPrecondition(name, "UID", given, uid)
}

// failedPrecondition is the conflict for an update, or a deletion that is one, that names
// another uid or resourceVersion than the object has.
func (s *Store) failedPrecondition(name, field string, given, has any) error {
	return apierrors.NewConflict(s.resource.GroupResource(), name, fmt.Errorf("Precondition failed: %[1]s in precondition: %[2]v, %[1]s in object meta: %[3]v", field, given, has)) //nolint:staticcheck // kube-apiserver's text
}

// matchName refuses an object under another name than the path's.
func matchName(obj APIObject, name string) error {
	switch obj.GetName() {
	case name:
		return nil
	case "":
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", name))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), name))
}

// modify replaces an object by what change makes of it, or creates it where there is none.
func (s *Store) modify(ctx context.Context, namespace, name string, part *part, dryRun bool, change change) (obj *object.Object, created bool, warnings []string, err error) {
	err = s.retry(ctx, s.resource.key(namespace, name), func(current stored) (outcome outcome, err error) {
		if created = !current.exists(); created {
			obj, warnings, outcome, err = s.createOnce(ctx, namespace, dryRun, change)
		} else {
			obj, warnings, outcome, err = s.modifyOnce(ctx, current, part, dryRun, change)
		}
		return outcome, err
	})
	return obj, created, warnings, err
}

// createOnce creates the object that change makes of nothing.
func (s *Store) createOnce(ctx context.Context, namespace string, dryRun bool, change change) (*object.Object, []string, outcome, error) {
	next, warnings, err := change(nil, nil)
	if err != nil {
		return nil, warnings, noop, err
	}
	if err := apierr.TimedOut(ctx, "the change was being computed"); err != nil {
		return nil, warnings, done, err
	}
	next.SetResourceVersion("") // whatever it is, as for kube-apiserver
	obj, more, err := s.createNew(ctx, namespace, next.GetName(), next, dryRun)
	outcome := done
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil, nil, conflict, nil
	case apierr.IsRefusal(err):
		outcome = noop // the object may be there, and what is invalid by itself complete what it has
	}
	return obj, append(warnings, more...), outcome, err
}

// modifyOnce changes the object as it was read.
func (s *Store) modifyOnce(ctx context.Context, before stored, part *part, dryRun bool, change change) (*object.Object, []string, outcome, error) {
	current, err := s.decode(before)
	if err != nil {
		return nil, nil, noop, err
	}
	shown, err := s.show(before.object)
	if err != nil {
		return nil, nil, noop, err
	}
	next, warnings, err := change(shown, current)
	if err != nil {
		return nil, warnings, noop, err
	}
	if err := apierr.TimedOut(ctx, "the change was being computed"); err != nil {
		return nil, warnings, done, err
	}
	if err := s.admit(ctx, before.at().Namespace, before.at().Name, next, current); err != nil {
		return nil, warnings, noop, err
	}
	more, err := s.prepareUpdate(next, current, part.strategy)
	warnings = append(warnings, more...)
	if err != nil {
		return nil, warnings, noop, err
	}
	obj, outcome, err := s.replace(ctx, before.object, next, false, dryRun)
	return obj, warnings, outcome, err
}

// prepareUpdate turns next into a valid successor of current.
func (s *Store) prepareUpdate(next, current APIObject, strategy UpdateStrategy) ([]string, error) {
	if next.GetResourceVersion() != current.GetResourceVersion() {
		return nil, apierrors.NewConflict(s.resource.GroupResource(), current.GetName(), errModified)
	}
	strategy.PrepareForUpdate(next, current)
	if faults := strategy.ValidateUpdate(next, current); len(faults) > 0 {
		return nil, s.resource.invalid(current.GetName(), faults)
	}
	return strategy.Warnings(next, current), nil
}
