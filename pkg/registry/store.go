package registry

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/cache"
)

// Config is what a Registry is made of. Without a comment a field is required.
type Config struct {
	Storage storage.Interface
	// Scheme knows the Go types of every resource.
	Scheme *runtime.Scheme
	// TypeConverter is the schema of field ownership; see NewTypeConverter.
	TypeConverter managedfields.TypeConverter
	Resources     []*Resource
	// MaxObjectBytes bounds the JSON of an object that is written, as it is stored and not
	// compressed, in bytes: at most MaxReadableBytes, and 0 is DefaultMaxObjectBytes. What
	// is larger already can be deleted, and be replaced by what is no larger.
	MaxObjectBytes int
	// Report is told what goes wrong in the background: failures, which are tried again, and
	// stored values that cannot be read. nil tells nobody.
	Report func(error)
	// Registerer gets the metrics; nil: there are none.
	Registerer prometheus.Registerer
}

// Registry serves several resources out of one storage. Run must be running.
type Registry struct {
	storage   storage.Interface
	report    func(error)
	lifecycle *lifecycle
	stores    []*Store
}

// New returns a registry of the resources that cfg names.
func New(cfg Config) (*Registry, error) {
	if cfg.Storage == nil || cfg.Scheme == nil || cfg.TypeConverter == nil || len(cfg.Resources) == 0 {
		return nil, errors.New("registry: Storage, Scheme, TypeConverter and Resources are required")
	}
	if cfg.MaxObjectBytes < 0 || cfg.MaxObjectBytes > MaxReadableBytes {
		return nil, fmt.Errorf("registry: a limit of %d bytes for an object is not between 0 and %d", cfg.MaxObjectBytes, MaxReadableBytes)
	}
	if cfg.MaxObjectBytes == 0 {
		cfg.MaxObjectBytes = DefaultMaxObjectBytes
	}
	if cfg.Report == nil {
		cfg.Report = func(error) {}
	}
	at := slices.IndexFunc(cfg.Resources, func(r *Resource) bool { return r.API.Name == Namespaces })
	if at < 0 {
		return nil, errors.New("registry: the resource namespaces is required")
	}
	registry := &Registry{storage: cfg.Storage, report: cfg.Report, lifecycle: newLifecycle(cfg.Storage, cfg.Resources[at])}
	for _, resource := range cfg.Resources {
		store, err := newStore(registry, resource, cfg)
		if err != nil {
			return nil, fmt.Errorf("registry: %s: %w", resource.API.Name, err)
		}
		registry.stores = append(registry.stores, store)
	}
	if cfg.Registerer != nil {
		if err := registry.registerMetrics(cfg.Registerer); err != nil {
			return nil, err
		}
	}
	return registry, nil
}

// Stores returns one store per resource, in the order of the configuration.
func (r *Registry) Stores() []*Store { return r.stores }

// Run keeps the caches up to date and empties namespaces that are being deleted, until
// ctx ends.
func (r *Registry) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, store := range r.stores {
		running.Go(func() { store.cache.Run(ctx) })
	}
	running.Go(func() { r.runTerminator(ctx) })
	running.Wait()
}

// WaitReady waits until every resource can be read.
func (r *Registry) WaitReady(ctx context.Context) error {
	for _, store := range r.stores {
		if err := store.cache.WaitFor(ctx, 0); err != nil {
			return apiError(err)
		}
	}
	return nil
}

// Store serves one resource. The objects that its methods return are finished: beside
// what runtime.CacheableObjects do they give out their plain JSON, which nothing encodes. Its errors
// are API errors, or errors that are nobody's fault but the server's.
type Store struct {
	*Resource
	storage   storage.Interface
	cache     *cache.Cache[*object]
	lifecycle *lifecycle
	owners    *ownership
	maxObject int // bytes of JSON
	written   writtenValues
	broken    brokenValues
}

func newStore(registry *Registry, resource *Resource, cfg Config) (*Store, error) {
	owners, err := newOwnership(resource, cfg.Scheme, cfg.TypeConverter)
	if err != nil {
		return nil, err
	}
	s := &Store{Resource: resource, storage: cfg.Storage, lifecycle: registry.lifecycle, owners: owners, maxObject: cfg.MaxObjectBytes}
	s.written.seed = maphash.MakeSeed()
	s.broken.report = cfg.Report
	s.cache, err = cache.New(cache.Config[*object]{
		Storage: cfg.Storage,
		Prefix:  resource.prefix(""),
		Make:    s.received,
		Size:    func(o *object) int { return len(o.json) },
		Report:  cfg.Report,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// APIResource describes the resource as discovery shows it.
func (s *Store) APIResource() metav1.APIResource { return s.API }

// New returns an empty object to decode into.
func (s *Store) New() runtime.Object { return s.Resource.New() }

// Get returns one object. Without opts.ResourceVersion the read is linearizable; with
// "0" it is whatever the cache has; with another it is at least that new. StorageReadError:
// its stored value cannot be read.
func (s *Store) Get(ctx context.Context, namespace, name string, opts *metav1.GetOptions) (runtime.Object, error) {
	if err := s.waitFor(ctx, opts.ResourceVersion); err != nil {
		return nil, err
	}
	entry, _, err := s.cache.Get(s.key(namespace, name))
	if err != nil {
		return nil, apiError(err)
	}
	if entry == nil {
		return nil, apierrors.NewNotFound(s.GroupResource(), name)
	}
	return entry.Value, entry.Value.broken
}

// Exists says whether there is an object of that name in the store itself; the caches need
// not be running.
func (s *Store) Exists(ctx context.Context, namespace, name string) (bool, error) {
	stored, err := s.read(ctx, s.key(namespace, name), true)
	return stored != nil, err
}

// waitFor waits until the cache is as new as a read of that resourceVersion wants it.
func (s *Store) waitFor(ctx context.Context, resourceVersion string) error {
	if resourceVersion == "" {
		return apiError(s.cache.Fresh(ctx))
	}
	revision, err := parseResourceVersion(resourceVersion)
	if err != nil {
		return err
	}
	return s.waitForRevision(ctx, revision)
}

// waitForRevision waits for a revision that a client names, though not long for one that
// is not there at all.
func (s *Store) waitForRevision(ctx context.Context, revision int64) error {
	if current, err := s.cache.Revision(); err == nil && current >= revision {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, futureRevisionWait)
	defer cancel()
	err := s.cache.WaitFor(ctx, revision)
	if errors.Is(err, storage.ErrTimeout) {
		if current, snapshotErr := s.cache.Revision(); snapshotErr == nil {
			return tooLargeResourceVersion(revision, current)
		}
	}
	return apiError(err)
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

// read returns the object under key, nil where there is none: from the cache, which may be
// behind, or newest where fresh is set.
func (s *Store) read(ctx context.Context, key string, fresh bool) (*object, error) {
	if fresh {
		got, err := s.storage.Get(ctx, key, storage.GetOptions{})
		if err != nil || got.KV == nil {
			return nil, apiError(err)
		}
		return s.objectOf(got.KV), nil
	}
	entry, _, err := s.cache.Get(key)
	if err != nil || entry == nil {
		return nil, apiError(err)
	}
	return entry.Value, nil
}

func isDryRun(dryRun []string) bool { return len(dryRun) > 0 }
