package registry

import (
	"context"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
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
func (s *Store) Create(ctx context.Context, namespace string, obj runtime.Object, opts *metav1.CreateOptions) (created *object.Object, warnings []string, err error) {
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
	warnings = objectmeta.DropDuplicateOwners(accessor)
	if err := s.parts[""].owners.Update(s.New(), obj, opts.FieldManager); err != nil {
		return nil, warnings, err
	}
	more, err := s.prepareCreate(obj)
	warnings = append(warnings, more...)
	if err != nil {
		return nil, warnings, err
	}
	for attempt := 1; ; attempt++ {
		created, err = s.store(ctx, obj, guard, isDryRun(opts.DryRun))
		if !nameless || !apierrors.IsAlreadyExists(err) {
			return created, warnings, err
		}
		if attempt == maxNameAttempts {
			return nil, warnings, apierrors.NewGenerateNameConflict(s.GroupResource(), accessor.GetName(), 1)
		}
		accessor.SetName(generateName(accessor.GetGenerateName()))
		s.Strategy.PrepareForCreate(obj)
	}
}

// createOwned stores a new object whose ownership is settled, under the name that it has.
// Its resourceVersion does not matter, as kube-apiserver has it for updates that create.
func (s *Store) createOwned(ctx context.Context, namespace string, obj runtime.Object, dryRun bool) (*object.Object, []string, error) {
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
	created, err := s.store(ctx, obj, guard, dryRun)
	return created, warnings, err
}

// store encodes and inserts an object that has been prepared.
func (s *Store) store(ctx context.Context, obj runtime.Object, guard *storage.Guard, dryRun bool) (*object.Object, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	d, err := s.draft(obj, accessor, 0)
	if err != nil {
		return nil, err
	}
	return s.insert(ctx, d, guard, dryRun)
}

// guard is the condition under which an object may appear in the namespace; nil for a
// resource that lives in none.
func (s *Store) guard(ctx context.Context, namespace, name string) (*storage.Guard, error) {
	if !s.API.Namespaced {
		return nil, nil
	}
	return s.namespaces.Guard(ctx, namespace, s.GroupResource(), name)
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
// does, which ignores one that is not a number, and 0.
func (s *Store) refuseVersion(accessor metav1.Object) error {
	if version, err := strconv.ParseUint(accessor.GetResourceVersion(), 10, 64); err == nil && version != 0 {
		return s.invalid(accessor.GetName(), field.ErrorList{
			field.Invalid(versionPath, accessor.GetResourceVersion(), "resourceVersion should not be set on objects to be created"),
		})
	}
	return nil
}

var (
	metadataPath = field.NewPath("metadata")
	versionPath  = metadataPath.Child("resourceVersion")
)

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
