package registry

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/storage"
)

const (
	generatedSuffix = 5
	// maxGeneratedBase keeps a generated name within a DNS label of 63 characters.
	maxGeneratedBase = 63 - generatedSuffix
	// maxNameAttempts is how many generated names are tried, as kube-apiserver does.
	maxNameAttempts = 8
)

// Create stores a new object, which becomes the store's own, and returns it with the
// warnings that it deserves. opts.FieldManager must not be empty. A dry run goes the whole
// way, the lookup of the name and the size check included, and skips only the commit.
//
// Errors: BadRequest for another namespace in the object, NotFound or Forbidden for a
// namespace that is absent or being deleted, Invalid with every fault of the object,
// AlreadyExists, RequestEntityTooLarge, and the storage's own.
func (s *Store) Create(ctx context.Context, namespace string, obj runtime.Object, opts *metav1.CreateOptions) (runtime.Object, []string, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, nil, err
	}
	if err := s.matchNamespace(namespace, accessor); err != nil {
		return nil, nil, err
	}
	nameless := accessor.GetName() == ""
	guard, err := s.guard(ctx, namespace, accessor.GetName())
	if err != nil {
		return nil, nil, err
	}
	s.Strategy.Default(obj)
	wipe(accessor)
	warnings := dropDuplicateOwners(accessor)
	obj = s.owners.update(s.New(), obj, opts.FieldManager)
	more, err := s.prepareCreate(obj)
	if err != nil {
		return nil, warnings, err
	}
	created, err := s.insertNamed(ctx, obj, nameless, guard, isDryRun(opts.DryRun))
	return created, append(warnings, more...), err
}

// createOwned stores a new object whose ownership is settled, under the name that it has.
// Its resourceVersion does not matter, as kube-apiserver has it for updates that create.
func (s *Store) createOwned(ctx context.Context, namespace string, obj runtime.Object, dryRun bool) (runtime.Object, []string, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, nil, err
	}
	guard, err := s.guard(ctx, namespace, accessor.GetName())
	if err != nil {
		return nil, nil, err
	}
	wipe(accessor)
	accessor.SetResourceVersion("")
	warnings, err := s.prepareCreate(obj)
	if err != nil {
		return nil, nil, err
	}
	created, err := s.insert(ctx, obj, guard, dryRun)
	return created, warnings, err
}

// guard is the condition under which an object may appear in the namespace; nil for a
// resource that lives in none.
func (s *Store) guard(ctx context.Context, namespace, name string) (*storage.Guard, error) {
	if !s.API.Namespaced {
		return nil, nil
	}
	return s.lifecycle.guard(ctx, namespace, s.GroupResource(), name)
}

// matchNamespace puts the request's namespace into an object that names none.
func (s *Store) matchNamespace(namespace string, accessor metav1.Object) error {
	switch given := accessor.GetNamespace(); {
	case given == namespace:
	case given == "":
		accessor.SetNamespace(namespace)
	case !s.API.Namespaced:
		accessor.SetNamespace("")
	default:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// wipe clears what only the server may fill in.
func wipe(accessor metav1.Object) {
	accessor.SetUID("")
	accessor.SetSelfLink("")
	accessor.SetCreationTimestamp(metav1.Time{})
	accessor.SetDeletionTimestamp(nil)
	accessor.SetDeletionGracePeriodSeconds(nil)
}

// prepareCreate turns an object into what is stored and returns the warnings.
func (s *Store) prepareCreate(obj runtime.Object) ([]string, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	accessor.SetUID(uuid.NewUUID())
	accessor.SetCreationTimestamp(metav1.Now())
	if accessor.GetName() == "" {
		accessor.SetName(generateName(accessor.GetGenerateName()))
	}
	s.Strategy.PrepareForCreate(obj)
	if faults := s.Strategy.Validate(obj); len(faults) > 0 {
		return nil, s.invalid(accessor.GetName(), faults)
	}
	if err := s.refuseVersion(accessor); err != nil {
		return nil, err
	}
	return s.Strategy.Warnings(obj), nil
}

// refuseVersion refuses a resourceVersion on an object to be created, as kube-apiserver
// does, which ignores one that is no number, and 0.
func (s *Store) refuseVersion(accessor metav1.Object) error {
	if accessor.GetResourceVersion() == "" {
		return nil
	}
	if version, err := strconv.ParseUint(accessor.GetResourceVersion(), 10, 64); err == nil && version != 0 {
		return s.invalid(accessor.GetName(), field.ErrorList{
			field.Invalid(field.NewPath("metadata", "resourceVersion"), accessor.GetResourceVersion(), "resourceVersion should not be set on objects to be created"),
		})
	}
	accessor.SetResourceVersion("")
	return nil
}

// generateName returns base, cut where needed, with a random suffix; "" for an empty base.
func generateName(base string) string {
	if base == "" {
		return ""
	}
	if len(base) > maxGeneratedBase {
		base = base[:maxGeneratedBase]
	}
	return base + rand.String(generatedSuffix)
}

// insertNamed inserts obj. One that came nameless gets a new generated name for as long as
// the generated ones are taken.
func (s *Store) insertNamed(ctx context.Context, obj runtime.Object, nameless bool, guard *storage.Guard, dryRun bool) (runtime.Object, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		created, err := s.insert(ctx, obj, guard, dryRun)
		if !nameless || !apierrors.IsAlreadyExists(err) {
			return created, err
		}
		if attempt == maxNameAttempts {
			return nil, apierrors.NewGenerateNameConflict(s.GroupResource(), accessor.GetName(), 1)
		}
		accessor.SetName(generateName(accessor.GetGenerateName()))
		s.Strategy.PrepareForCreate(obj)
	}
}

// insert stores obj if its name is free and its namespace as the guard says. A guard that
// turns out stale is looked up again, for as long as the context lasts.
func (s *Store) insert(ctx context.Context, obj runtime.Object, guard *storage.Guard, dryRun bool) (runtime.Object, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	namespace, name := accessor.GetNamespace(), accessor.GetName()
	accessor.SetSelfLink(s.selfLink(namespace, name))
	obj.GetObjectKind().SetGroupVersionKind(s.GroupVersionKind())
	value, err := s.encode(obj)
	if err != nil {
		return nil, err
	}
	if err := s.checkSize(len(value), 0); err != nil {
		return nil, err
	}
	if err := s.checkWritten(name, value); err != nil {
		return nil, err
	}
	key := s.key(namespace, name)
	packed, err := pack(value)
	if err != nil {
		return nil, err
	}
	for {
		s.written.add(key, packed)
		response, err := s.storage.Put(ctx, key, packed, storage.PutOptions{Guard: guard, DryRun: dryRun})
		if errors.Is(err, storage.ErrUnknownOutcome) {
			response, err = s.settleCreate(ctx, key, accessor.GetUID(), err)
		}
		switch {
		case err != nil:
			return nil, apiError(err)
		case response.Succeeded && dryRun:
			return &object{resource: s.Resource, key: key, json: value, head: s.typeHeadLen()}, nil
		case response.Succeeded:
			created := writtenObject(s.Resource, &storage.KeyValue{Key: key, Value: value, CreateRevision: response.Revision, ModRevision: response.Revision})
			return created, created.broken
		case response.Current != nil:
			return nil, s.alreadyExists(name, response.Current)
		case guard == nil:
			return nil, fmt.Errorf("creating %s failed without a reason", key)
		}
		if _, err := s.lifecycle.observe(namespace, response.Guarded); err != nil {
			return nil, err
		}
		if guard, err = s.lifecycle.guard(ctx, namespace, s.GroupResource(), name); err != nil {
			return nil, err
		}
	}
}

// alreadyExists is the 409 for a name that is taken. It tells a name that will be free
// again from one that will not.
func (s *Store) alreadyExists(name string, current *storage.KeyValue) error {
	err := apierrors.NewAlreadyExists(s.GroupResource(), name)
	if metadata, readErr := newObject(s.Resource, current).metadata(); readErr == nil && metadata.DeletionTimestamp != nil {
		err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
	}
	return err
}

// settleCreate finds out what became of a create whose outcome is unknown. The uid tells
// our object from another's; one that cannot be read is another's. An object that is not
// there may still come: that stays unknown.
func (s *Store) settleCreate(ctx context.Context, key string, uid types.UID, unknown error) (storage.WriteResponse, error) {
	got, err := s.storage.Get(ctx, key, storage.GetOptions{})
	if err != nil || got.KV == nil {
		return storage.WriteResponse{}, unknown
	}
	if accessor, err := newObject(s.Resource, got.KV).metadata(); err == nil && accessor.GetUID() == uid {
		return storage.WriteResponse{Succeeded: true, Revision: got.KV.CreateRevision}, nil
	}
	return storage.WriteResponse{Revision: got.Revision, Current: got.KV}, nil
}
