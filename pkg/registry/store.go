package registry

import (
	"context"
	"errors"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/berth-project/berth/pkg/storage"
)

// Config is what a Registry is made of. All fields are required.
type Config struct {
	Storage storage.Interface
	// Scheme knows the Go types of every resource.
	Scheme *runtime.Scheme
	// TypeConverter is the schema of field ownership; see NewTypeConverter.
	TypeConverter managedfields.TypeConverter
	Resources     []*Resource
}

// Registry serves several resources out of one storage.
type Registry struct {
	storage   storage.Interface
	lifecycle *lifecycle
	stores    []*Store
}

// New returns a registry of the resources that cfg names.
func New(cfg Config) (*Registry, error) {
	if cfg.Storage == nil || cfg.Scheme == nil || cfg.TypeConverter == nil || len(cfg.Resources) == 0 {
		return nil, errors.New("registry: Storage, Scheme, TypeConverter and Resources are required")
	}
	lifecycle := newLifecycle(cfg.Storage)
	registry := &Registry{storage: cfg.Storage, lifecycle: lifecycle}
	for _, resource := range cfg.Resources {
		fields, err := newFieldManager(resource, cfg.Scheme, cfg.TypeConverter)
		if err != nil {
			return nil, err
		}
		registry.stores = append(registry.stores, &Store{
			Resource: resource, storage: cfg.Storage, lifecycle: lifecycle, fields: fields,
		})
	}
	return registry, nil
}

// Stores returns one store per resource, in the order of the configuration.
func (r *Registry) Stores() []*Store { return r.stores }

// Store serves one resource. The objects that its methods return are finished: they are
// runtime.CacheableObjects that write plain JSON without encoding anything. Its errors
// are API errors, or errors that are nobody's fault but the server's.
type Store struct {
	*Resource
	storage   storage.Interface
	lifecycle *lifecycle
	fields    *managedfields.FieldManager
}

// APIResource describes the resource as discovery shows it.
func (s *Store) APIResource() metav1.APIResource { return s.API }

// New returns an empty object to decode into.
func (s *Store) New() runtime.Object { return s.Resource.New() }

// Get returns one object. It is linearizable: opts.ResourceVersion only sets a lower
// bound, and one that is not reached yet is answered with a 504.
func (s *Store) Get(ctx context.Context, namespace, name string, opts *metav1.GetOptions) (runtime.Object, error) {
	atLeast, err := parseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	got, err := s.storage.Get(ctx, s.key(namespace, name), storage.GetOptions{})
	if err != nil {
		return nil, apiError(err)
	}
	if got.Revision < atLeast {
		return nil, tooLargeResourceVersion(atLeast, got.Revision)
	}
	if got.KV == nil {
		return nil, apierrors.NewNotFound(s.GroupResource(), name)
	}
	return newObject(s.Resource, got.KV)
}

// List returns every object of the namespace, or with an empty namespace of all of them,
// in the order of their keys and from one snapshot.
func (s *Store) List(ctx context.Context, namespace string, opts *metav1.ListOptions) (runtime.Object, error) {
	atLeast, err := parseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	list, err := s.storage.List(ctx, s.prefix(namespace), storage.ListOptions{})
	if err != nil {
		return nil, apiError(err)
	}
	if list.Revision < atLeast {
		return nil, tooLargeResourceVersion(atLeast, list.Revision)
	}
	return &objectList{
		resource: s.Resource,
		meta:     metav1.ListMeta{SelfLink: s.selfLink(namespace, ""), ResourceVersion: formatRevision(list.Revision)},
		kvs:      list.KVs,
	}, nil
}

// parseResourceVersion returns the revision that a client names; "" is 0.
func parseResourceVersion(value string) (int64, error) {
	if value == "" {
		return 0, nil
	}
	revision, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		return 0, badResourceVersion(value, err.Error())
	}
	return int64(revision), nil
}

func isDryRun(dryRun []string) bool { return len(dryRun) > 0 }

// revisionOf is the revision of a key's latest write, 0 for a key that does not exist.
func revisionOf(kv *storage.KeyValue) int64 {
	if kv == nil {
		return 0
	}
	return kv.ModRevision
}
