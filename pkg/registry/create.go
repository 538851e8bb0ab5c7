package registry

import (
	"context"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
	"github.com/berth-project/berth/pkg/storage"
)

// maxNameAttempts is how many generated names are tried, as kube-apiserver does.
const maxNameAttempts = 8

// Create stores a new object, which becomes the store's own, and returns it with the
// warnings that it deserves. opts.FieldManager must not be empty. A dry run goes the whole
// way, the lookup of the name and the size check included, and skips only the commit.
//
// Errors: BadRequest for another namespace in the object, NotFound or Forbidden for a
// namespace that is absent or being deleted, Invalid with every fault of the object,
// AlreadyExists, RequestEntityTooLarge, and the storage's own.
func (s *Store) Create(ctx context.Context, namespace string, given runtime.Object, opts *metav1.CreateOptions) (created *object.Object, warnings []string, err error) {
	obj := given.(APIObject)
	if why := s.resource.NoObjects; why != "" {
		return nil, nil, s.noObjects(why)
	}
	if err := s.matchNamespace(namespace, obj); err != nil {
		return nil, nil, err
	}
	s.resource.Strategy.Default(obj)
	wipe(obj)
	duplicates := objectmeta.DropDuplicateOwners(obj)
	if err := s.parts[""].owners.Update(s.resource.New(), obj, opts.FieldManager); err != nil {
		return nil, duplicates, err
	}
	created, warnings, err = s.createNew(ctx, namespace, "", obj, isDryRun(opts.DryRun))
	return created, append(duplicates, warnings...), err
}

// Default fills in what the object leaves out.
func (s *Store) Default(obj runtime.Object) { s.resource.Strategy.Default(obj) }

// createNew stores a new object whose ownership is settled, under the name that it has or
// one that is generated. name is that of the request's path, or "".
func (s *Store) createNew(ctx context.Context, namespace, name string, obj APIObject, dryRun bool) (created *object.Object, warnings []string, err error) {
	nameless := obj.GetName() == ""
	guard, err := s.guard(ctx, namespace, obj.GetName())
	if err != nil {
		return nil, nil, err
	}
	wipe(obj)
	if err := s.admit(ctx, namespace, name, obj, nil); err != nil {
		return nil, nil, err
	}
	if warnings, err = s.prepareCreate(obj); err != nil {
		return nil, nil, err
	}
	for attempt := 1; ; attempt++ {
		created, err = s.insert(ctx, obj, guard, dryRun)
		switch {
		case !nameless, !apierrors.IsAlreadyExists(err):
			return created, warnings, err
		case attempt == maxNameAttempts:
			return nil, warnings, apierrors.NewGenerateNameConflict(s.resource.GroupResource(), obj.GetName(), 1)
		}
		obj.SetName(objectmeta.GenerateName(obj.GetGenerateName()))
		s.resource.Strategy.PrepareForCreate(obj)
	}
}

// noObjects is the 405 for an object of a kind of which there are none.
func (s *Store) noObjects(why string) error {
	err := apierrors.NewMethodNotSupported(s.resource.GroupResource(), "create")
	err.ErrStatus.Message = why
	return err
}

// guard is the condition under which an object may appear in the namespace; nil for a
// resource that lives in none.
func (s *Store) guard(ctx context.Context, namespace, name string) (*storage.Guard, error) {
	if !s.resource.API.Namespaced {
		return nil, nil
	}
	return s.namespaces.Guard(ctx, namespace, s.resource.GroupResource(), name)
}

// matchNamespace puts the request's namespace into an object that names none.
func (s *Store) matchNamespace(namespace string, obj APIObject) error {
	switch given := obj.GetNamespace(); {
	case given == namespace:
	case given == "":
		obj.SetNamespace(namespace)
	case !s.resource.API.Namespaced:
		obj.SetNamespace("")
	default:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// wipe clears what only the server may fill in.
func wipe(obj APIObject) {
	obj.SetUID("")
	obj.SetSelfLink("")
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
}

// prepareCreate turns an object into what is stored and returns the warnings.
func (s *Store) prepareCreate(obj APIObject) ([]string, error) {
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(metav1.Now())
	if obj.GetName() == "" {
		obj.SetName(objectmeta.GenerateName(obj.GetGenerateName()))
	}
	s.resource.Strategy.PrepareForCreate(obj)
	if faults := s.resource.Strategy.Validate(obj); len(faults) > 0 {
		return nil, s.resource.invalid(obj.GetName(), faults)
	}
	if err := s.refuseVersion(obj); err != nil {
		return nil, err
	}
	return s.resource.Strategy.Warnings(obj, nil), nil
}

// refuseVersion refuses a resourceVersion on an object to be created, as kube-apiserver
// does, which ignores one that is not a number, and 0.
func (s *Store) refuseVersion(obj APIObject) error {
	if version, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64); err == nil && version != 0 {
		return s.resource.invalid(obj.GetName(), field.ErrorList{
			field.Invalid(versionPath, obj.GetResourceVersion(), "resourceVersion should not be set on objects to be created"),
		})
	}
	return nil
}

var (
	metadataPath = field.NewPath("metadata")
	versionPath  = metadataPath.Child("resourceVersion")
)
