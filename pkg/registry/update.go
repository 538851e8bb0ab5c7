package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/storage"
)

// change computes the successor of an object and the warnings that it deserves, with
// field ownership settled. current is what stored decodes to; both are nil where there is
// no object yet. It is called again where the object was changed meanwhile.
type change func(stored *object, current runtime.Object) (next runtime.Object, warnings []string, err error)

// errModified is kube-apiserver's text for a write based on an old version.
var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

// Update replaces an object by obj, or creates it where there is none. Without a
// resourceVersion it replaces whatever is there. opts.FieldManager must not be empty.
//
// Errors: BadRequest for another name or namespace or a resourceVersion that is none,
// Conflict for a version that has passed or another uid, and those of Create.
func (s *Store) Update(ctx context.Context, namespace, name string, obj runtime.Object, opts *metav1.UpdateOptions) (updated runtime.Object, created bool, warnings []string, err error) {
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
	if _, err := parseResourceVersion(accessor.GetResourceVersion()); err != nil {
		return nil, false, nil, err
	}
	s.Strategy.Default(obj)
	duplicates := dropDuplicateOwners(accessor)
	return s.modify(ctx, namespace, name, isDryRun(opts.DryRun), func(_ *object, current runtime.Object) (runtime.Object, []string, error) {
		next := shallowCopy(obj)
		if err := s.checkUID(current, accessor, name); err != nil {
			return nil, nil, err
		}
		if current == nil {
			return s.owners.update(s.New(), next, opts.FieldManager), duplicates, nil
		}
		if err := carryOver(next, current); err != nil {
			return nil, nil, err
		}
		return s.owners.update(current, next, opts.FieldManager), duplicates, nil
	})
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
	return apierrors.NewConflict(s.GroupResource(), name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", given.GetUID(), uid)) //nolint:staticcheck // kube-apiserver's text
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

// outcome is what a write made of an object.
type outcome struct {
	object   runtime.Object
	created  bool // the object did not exist before
	warnings []string
}

// verdict is how an attempt to change an object ended.
type verdict int

const (
	// decided: it is written, or failed in a way that trying again does not mend.
	decided verdict = iota
	// unwritten: there was nothing to write, or a rule refused it. That is true of the
	// state that was read, and perhaps not of the newest.
	unwritten
	// overtaken: another write came in between.
	overtaken
)

// modify replaces an object by what change makes of it, as often as others come in between
// and ctx allows. It begins with the cache's state, which costs nothing and is mostly
// right: the transaction tells if it is not. An outcome that writes nothing is only
// believed of the newest state.
func (s *Store) modify(ctx context.Context, namespace, name string, dryRun bool, change change) (obj runtime.Object, created bool, warnings []string, err error) {
	key := s.key(namespace, name)
	for fresh := false; ; fresh = true {
		current, err := s.read(ctx, key, fresh)
		if err != nil {
			return nil, false, nil, err
		}
		out, verdict, err := s.modifyOnce(ctx, namespace, current, dryRun, change)
		switch {
		case verdict == decided, verdict == unwritten && fresh:
			return out.object, out.created, out.warnings, err
		case ctx.Err() != nil:
			return nil, false, nil, retryTimeout()
		}
	}
}

// modifyOnce changes the object as it was read, or creates it where there was none.
func (s *Store) modifyOnce(ctx context.Context, namespace string, stored *object, dryRun bool, change change) (outcome, verdict, error) {
	if stored == nil {
		next, warnings, err := change(nil, nil)
		if err != nil {
			return outcome{warnings: warnings}, unwritten, err
		}
		created, more, err := s.createOwned(ctx, namespace, next, dryRun)
		if apierrors.IsAlreadyExists(err) {
			return outcome{}, overtaken, nil
		}
		return outcome{object: created, created: true, warnings: append(warnings, more...)}, decided, err
	}
	current, err := stored.decode()
	if err != nil {
		return outcome{}, unwritten, err
	}
	next, warnings, err := change(stored, current)
	if err != nil {
		return outcome{warnings: warnings}, unwritten, err
	}
	more, err := s.prepareUpdate(next, current)
	warnings = append(warnings, more...)
	if err != nil {
		return outcome{warnings: warnings}, unwritten, err
	}
	value, err := s.valueOf(next)
	if err == nil {
		err = s.checkSize(len(value), stored.size())
	}
	if err != nil {
		return outcome{warnings: warnings}, unwritten, err
	}
	replaced, verdict, err := s.replace(ctx, stored, next, value, dryRun)
	return outcome{object: replaced, warnings: warnings}, verdict, err
}

// prepareUpdate turns next into a valid successor of current.
func (s *Store) prepareUpdate(next, current runtime.Object) ([]string, error) {
	accessor, err := meta.Accessor(next)
	if err != nil {
		return nil, err
	}
	old, err := meta.Accessor(current)
	if err != nil {
		return nil, err
	}
	if accessor.GetResourceVersion() != old.GetResourceVersion() {
		return nil, apierrors.NewConflict(s.GroupResource(), old.GetName(), errModified)
	}
	s.Strategy.PrepareForUpdate(next, current)
	if faults := s.Strategy.ValidateUpdate(next, current); len(faults) > 0 {
		return nil, s.invalid(old.GetName(), faults)
	}
	return s.Strategy.Warnings(next), nil
}

// valueOf returns what is stored for next.
func (s *Store) valueOf(next runtime.Object) ([]byte, error) {
	accessor, err := meta.Accessor(next)
	if err != nil {
		return nil, err
	}
	accessor.SetResourceVersion("")
	next.GetObjectKind().SetGroupVersionKind(s.GroupVersionKind())
	return s.encode(next)
}

// checkSize refuses a value that is too large. One that replaces another, of size before, may
// always be as large as that: whoever takes away from an object makes it no worse.
func (s *Store) checkSize(size, before int) error {
	if size <= max(s.maxObject, before) {
		return nil
	}
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the object takes %d bytes as JSON, the limit is %d", size, s.maxObject))
}

// replace writes next, the value of which is value, in the place of what was read, unless
// nothing has changed. An object that is being deleted and that nothing holds any more is
// removed.
func (s *Store) replace(ctx context.Context, stored *object, next runtime.Object, value []byte, dryRun bool) (*object, verdict, error) {
	accessor, err := meta.Accessor(next)
	if err != nil {
		return nil, decided, err
	}
	if s.finishesTo(value, stored.revision, stored.json) {
		return stored, unwritten, nil
	}
	if err := s.checkWritten(accessor.GetName(), value); err != nil {
		return nil, decided, err
	}
	var response storage.WriteResponse
	if accessor.GetDeletionTimestamp() != nil && !s.held(next, accessor) {
		response, err = s.remove(ctx, stored, dryRun)
	} else {
		response, err = s.overwrite(ctx, stored, value, dryRun)
	}
	switch {
	case err != nil:
		return nil, decided, apiError(err)
	case !response.Succeeded:
		return nil, overtaken, nil
	case dryRun:
		response.Revision = stored.revision
	}
	return writtenObject(s.Resource, &storage.KeyValue{
		Key: stored.key, Value: value, CreateRevision: stored.createRevision, ModRevision: response.Revision,
	}), decided, nil
}

// overwrite puts value in the place of what was read.
func (s *Store) overwrite(ctx context.Context, stored *object, value []byte, dryRun bool) (storage.WriteResponse, error) {
	packed, err := pack(value)
	if err != nil {
		return storage.WriteResponse{}, err
	}
	s.written.add(stored.key, packed)
	response, err := s.storage.Put(ctx, stored.key, packed, storage.PutOptions{Expect: stored.revision, DryRun: dryRun})
	if errors.Is(err, storage.ErrUnknownOutcome) {
		return s.settleUpdate(ctx, stored, packed, err)
	}
	return response, err
}

// held says whether something keeps a deleted object from being removed. The finalizers
// that wait for dependents do not: nothing here depends on owners, so that nobody would
// ever take them away.
func (s *Store) held(obj runtime.Object, accessor metav1.Object) bool {
	for _, finalizer := range accessor.GetFinalizers() {
		if finalizer != metav1.FinalizerDeleteDependents && finalizer != metav1.FinalizerOrphanDependents {
			return true
		}
	}
	return s.Holds != nil && s.Holds(obj)
}

// settleUpdate finds out what became of an update whose outcome is unknown. Only our own
// value under a newer revision proves that it took effect; while the old one stands it
// may still do so.
func (s *Store) settleUpdate(ctx context.Context, stored *object, value []byte, unknown error) (storage.WriteResponse, error) {
	got, err := s.storage.Get(ctx, stored.key, storage.GetOptions{})
	if err != nil || got.KV == nil || got.KV.ModRevision == stored.revision || !bytes.Equal(got.KV.Value, value) {
		return storage.WriteResponse{}, unknown
	}
	return storage.WriteResponse{Succeeded: true, Revision: got.KV.ModRevision}, nil
}
