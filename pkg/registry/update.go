package registry

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
)

// change computes the successor of an object and the warnings that it deserves, with
// defaults set and field ownership settled. current is what before decodes to; both are nil
// where there is no object yet. It is called again where the object was changed meanwhile.
type change func(before *object.Object, current runtime.Object) (next runtime.Object, warnings []string, err error)

// errModified is kube-apiserver's text for a write based on an old version.
var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

// Update replaces an object by obj, or its subresource, or creates it where there is none.
// Without a resourceVersion it replaces whatever is there, unless the resource requires one.
// opts.FieldManager must not be empty.
//
// Errors: BadRequest for another name or namespace or a malformed resourceVersion, Conflict
// for a version that has passed or another uid, NotFound where it may not create, and those
// of Create.
func (s *Store) Update(ctx context.Context, namespace, name, subresource string, obj runtime.Object, opts *metav1.UpdateOptions) (updated *object.Object, created bool, warnings []string, err error) {
	part, err := s.part(subresource)
	if err != nil {
		return nil, false, nil, err
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, false, nil, err
	}
	if err := s.matchNamespace(namespace, accessor); err != nil {
		return nil, false, nil, err
	}
	if err := matchName(accessor, name); err != nil {
		return nil, false, nil, err
	}
	version, err := parseResourceVersion(accessor.GetResourceVersion())
	if err != nil {
		return nil, false, nil, err
	}
	s.Strategy.Default(obj)
	duplicates := objectmeta.DropDuplicateOwners(accessor)
	return s.modify(ctx, namespace, name, part, isDryRun(opts.DryRun), func(_ *object.Object, current runtime.Object) (runtime.Object, []string, error) {
		if err := s.checkUID(current, accessor, name); err != nil {
			return nil, nil, err
		}
		next := shallowCopy(obj)
		switch {
		case current == nil && (s.NoCreateOnUpdate || subresource != ""):
			return nil, nil, apierrors.NewNotFound(s.GroupResource(), name)
		case current == nil:
			return next, duplicates, part.owners.Update(s.New(), next, opts.FieldManager)
		case version == 0 && s.RequireVersion:
			// kube-apiserver names the resource here, not the kind.
			kind := schema.GroupKind{Group: s.API.Group, Kind: s.API.Name}
			return nil, nil, apierrors.NewInvalid(kind, name, field.ErrorList{field.Invalid(versionPath, version, "must be specified for an update")})
		}
		if err := carryOver(next, current); err != nil {
			return nil, nil, err
		}
		return next, duplicates, part.owners.Update(current, next, opts.FieldManager)
	})
}

// part returns what writes of the subresource go by; "" is the object itself.
func (s *Store) part(subresource string) (*part, error) {
	if part, ok := s.parts[subresource]; ok {
		return part, nil
	}
	return nil, fmt.Errorf("%s have no subresource %q", s.API.Name, subresource)
}

// shallowCopy returns a copy for one attempt, which sets fields of it and replaces its maps
// and lists. What is in those, thousands of addresses perhaps, stays shared.
func shallowCopy(obj runtime.Object) runtime.Object {
	original := reflect.ValueOf(obj).Elem()
	copied := reflect.New(original.Type())
	copied.Elem().Set(original)
	return copied.Interface().(runtime.Object)
}

// carryOver gives next what only the server sets, as current has it, for what the client
// left out or may not change.
func carryOver(next, current runtime.Object) error {
	accessor, err := meta.Accessor(next)
	if err != nil {
		return err
	}
	old, err := meta.Accessor(current)
	if err != nil {
		return err
	}
	if version, err := parseResourceVersion(accessor.GetResourceVersion()); err != nil {
		return err
	} else if version == 0 {
		accessor.SetResourceVersion(old.GetResourceVersion())
	}
	if accessor.GetUID() == "" {
		accessor.SetUID(old.GetUID())
	}
	accessor.SetSelfLink(old.GetSelfLink())
	accessor.SetGeneration(old.GetGeneration())
	accessor.SetCreationTimestamp(old.GetCreationTimestamp())
	if old.GetDeletionTimestamp() != nil {
		accessor.SetDeletionTimestamp(old.GetDeletionTimestamp())
	}
	if old.GetDeletionGracePeriodSeconds() != nil {
		accessor.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	}
	return nil
}

// checkUID refuses an update that is meant for another object of the same name.
func (s *Store) checkUID(current runtime.Object, given metav1.Object, name string) error {
	if given.GetUID() == "" {
		return nil
	}
	uid := given.GetUID()
	if current == nil {
		uid = ""
	} else if accessor, err := meta.Accessor(current); err == nil {
		uid = accessor.GetUID()
	}
	if uid == given.GetUID() {
		return nil
	}
	return s.failedPrecondition(name, "UID", given.GetUID(), uid)
}

// failedPrecondition is the conflict for an update, or a deletion that is one, that names
// another uid or resourceVersion than the object has.
func (s *Store) failedPrecondition(name, field string, given, has any) error {
	return apierrors.NewConflict(s.GroupResource(), name, fmt.Errorf("Precondition failed: %[1]s in precondition: %[2]v, %[1]s in object meta: %[3]v", field, given, has)) //nolint:staticcheck // kube-apiserver's text
}

// matchName refuses an object under another name than the path's.
func matchName(accessor metav1.Object, name string) error {
	switch accessor.GetName() {
	case name:
		return nil
	case "":
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", name))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", accessor.GetName(), name))
}

// modified is what a write made of an object.
type modified struct {
	object   *object.Object
	created  bool // the object did not exist before
	warnings []string
}

// modify replaces an object by what change makes of it, as often as others come in between
// and ctx allows. It begins with the cache's state, which costs nothing and is mostly
// right: the transaction tells if it is not. An outcome that writes nothing is only
// believed of the newest state.
func (s *Store) modify(ctx context.Context, namespace, name string, part *part, dryRun bool, change change) (obj *object.Object, created bool, warnings []string, err error) {
	key := s.key(namespace, name)
	for fresh := false; ; fresh = true {
		current, err := s.read(ctx, key, fresh)
		if err != nil {
			return nil, false, nil, err
		}
		var made modified
		var outcome outcome
		if current.exists() {
			made, outcome, err = s.modifyOnce(ctx, current, part, dryRun, change)
		} else {
			made, outcome, err = s.createOnce(ctx, namespace, dryRun, change)
		}
		switch {
		case outcome == done, outcome == noop && fresh:
			return made.object, made.created, made.warnings, err
		case ctx.Err() != nil:
			return nil, false, nil, apierr.RetryTimeout()
		}
	}
}

// createOnce creates the object that change makes of nothing.
func (s *Store) createOnce(ctx context.Context, namespace string, dryRun bool, change change) (modified, outcome, error) {
	next, warnings, err := change(nil, nil)
	if err != nil {
		return modified{warnings: warnings}, noop, err
	}
	created, more, err := s.createOwned(ctx, namespace, next, dryRun)
	if apierrors.IsAlreadyExists(err) {
		return modified{}, conflict, nil
	}
	return modified{object: created, created: true, warnings: append(warnings, more...)}, done, err
}

// modifyOnce changes the object as it was read.
func (s *Store) modifyOnce(ctx context.Context, before stored, part *part, dryRun bool, change change) (made modified, _ outcome, err error) {
	if err := before.err(); err != nil {
		return made, noop, err
	}
	current, err := before.object.Decode()
	if err != nil {
		return made, noop, err
	}
	next, warnings, err := change(before.object, current)
	made.warnings = warnings
	if err != nil {
		return made, noop, err
	}
	accessor, err := meta.Accessor(next)
	if err != nil {
		return made, noop, err
	}
	more, err := s.prepareUpdate(next, current, accessor, part.strategy)
	made.warnings = append(made.warnings, more...)
	if err != nil {
		return made, noop, err
	}
	d, err := s.draft(next, accessor, before.object.ValueSize())
	if err != nil {
		return made, noop, err
	}
	var outcome outcome
	made.object, outcome, err = s.replace(ctx, before.object, next, accessor, d, dryRun)
	return made, outcome, err
}

// prepareUpdate turns next into a valid successor of current.
func (s *Store) prepareUpdate(next, current runtime.Object, accessor metav1.Object, strategy UpdateStrategy) ([]string, error) {
	old, err := meta.Accessor(current)
	if err != nil {
		return nil, err
	}
	if accessor.GetResourceVersion() != old.GetResourceVersion() {
		return nil, apierrors.NewConflict(s.GroupResource(), old.GetName(), errModified)
	}
	strategy.PrepareForUpdate(next, current)
	if faults := strategy.ValidateUpdate(next, current); len(faults) > 0 {
		return nil, s.invalid(old.GetName(), faults)
	}
	return strategy.Warnings(next), nil
}
