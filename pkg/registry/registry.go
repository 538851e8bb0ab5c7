package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/capacity"
	"github.com/berth-project/berth/pkg/registry/lifecycle"
	"github.com/berth-project/berth/pkg/registry/mirroring"
	"github.com/berth-project/berth/pkg/storage"
)

const (
	// DefaultMaxObjectBytes is the limit of an object's JSON where none is given, in bytes.
	DefaultMaxObjectBytes = 8 << 20
	// MaxReadableBytes is the largest value that can be read, uncompressed, in bytes.
	MaxReadableBytes = object.MaxValueBytes
	// DefaultFormsBytes bounds the forms that are kept of all objects where no budget is
	// given, in bytes.
	DefaultFormsBytes = 64 << 20
)

// Config is what a Registry is made of. Fields are required unless their comments say
// otherwise.
type Config struct {
	Storage storage.Interface
	// Scheme knows the Go types of every resource.
	Scheme *runtime.Scheme
	// TypeConverter is the schema of field ownership; see ownership.NewTypeConverter.
	TypeConverter managedfields.TypeConverter
	Resources     []*Resource
	// MaxObjectBytes bounds the JSON of an object that is written, as it is stored and not
	// compressed, in bytes: at most MaxReadableBytes, and 0 is DefaultMaxObjectBytes. What
	// is larger already can be deleted, and be replaced by what is no larger.
	MaxObjectBytes int
	// MaxStoredBytes bounds what the objects of all resources take in memory, in bytes: their
	// JSON, and some 350 bytes for each. Beyond it nothing is created or made larger; 0 is no
	// bound.
	MaxStoredBytes int64
	// Admission decides on writes by what their objects show; nil admits all.
	Admission Admission
	// Observers follow the objects of resources; nil: nobody does.
	Observers map[schema.GroupResource]Observer
	// Lifetimes are how long the objects of resources live after their last writes, each at least
	// a second; nil, and those that are not named: until they are deleted.
	Lifetimes map[schema.GroupResource]time.Duration
	// Mirroring says for which names Endpoints and EndpointSlices are kept in step.
	Mirroring mirroring.Mode
	// Forms bounds the memory of what is made of objects; nil is a budget of
	// DefaultFormsBytes.
	Forms *object.Budget
	// Report is told what goes wrong in the background: failures, which are tried again, and
	// stored values that cannot be read. nil tells nobody.
	Report func(error)
	// Registerer gets the metrics, which it must not have already; nil: there are none.
	Registerer prometheus.Registerer
}

// Admission decides on writes by what their objects show.
type Admission interface {
	// Admit returns why a write is refused, as an API error, or nil. It is called for every
	// object that is to be created or updated, in dry runs too, before the object is
	// validated, and again where another write has come in between. It must not change or keep
	// the objects.
	Admit(ctx context.Context, w Write) error
}

// Write is an object that is to be stored.
type Write struct {
	Resource metav1.APIResource
	// Namespace and Name are those of the request's path: Name is "" where the object
	// brings its own, and is that of an update or an apply otherwise.
	Namespace, Name string
	// Object has its defaults. Old is what it replaces; nil: it is created.
	Object, Old APIObject
}

// Observer follows the objects of a resource. Its methods are called one after the other, each
// before a read can return what it is told: whoever waits until reads are new enough finds the
// observer so, too. Objects that cannot be read are left out. They are the observer's own.
type Observer interface {
	// Replace is told of all objects that there are: at first, and where changes were missed.
	Replace(objs []APIObject)
	// Set is told of an object that was created or changed.
	Set(obj APIObject)
	// Delete is told of an object that was deleted, or that cannot be read any more.
	Delete(namespace, name string)
}

// Registry serves several resources out of one storage. Run must be running.
type Registry struct {
	storage    storage.Interface
	forms      *object.Budget
	namespaces *lifecycle.Namespaces
	exact      *exactReads
	capacity   *capacity.Capacity
	stores     []*Store
	mirroring  *mirroring.Mirroring
	report     func(error)
	// namespaceStore is the store of namespaces, one of stores.
	namespaceStore *Store
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
	if cfg.Forms == nil {
		cfg.Forms = object.NewBudget(DefaultFormsBytes)
	}
	if cfg.Report == nil {
		cfg.Report = func(error) {}
	}
	if cfg.MaxStoredBytes < 0 {
		return nil, fmt.Errorf("registry: a limit of %d bytes for all objects is negative", cfg.MaxStoredBytes)
	}
	registry := &Registry{storage: cfg.Storage, forms: cfg.Forms, exact: newExactReads(), capacity: capacity.New(cfg.MaxStoredBytes), report: cfg.Report}
	registry.namespaces = lifecycle.New(lifecycle.Config{
		Storage: cfg.Storage, Prefix: namespacePrefix, Decode: registry.decodeNamespace, Empty: registry.empty,
		UpdateStatus: registry.updateStatus, Report: cfg.Report,
	})
	for _, resource := range cfg.Resources {
		store, err := newStore(resource, registry, cfg)
		if err != nil {
			return nil, fmt.Errorf("registry: %s: %w", resource.API.Name, err)
		}
		registry.stores = append(registry.stores, store)
		if resource.API.Name == Namespaces {
			store.onMarked = registry.namespaces.Wake
			registry.namespaceStore = store
		}
	}
	if registry.namespaceStore == nil {
		return nil, errors.New("registry: the resource namespaces is required")
	}
	if err := registry.mirrorStores(cfg); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	for _, store := range registry.owners() {
		registry.capacity.Add(store.cache)
	}
	registry.registerMetrics(cfg.Registerer)
	return registry, nil
}

// Stores returns one store per resource, in the order of the configuration.
func (r *Registry) Stores() []*Store { return r.stores }

// Namespaces returns the store of namespaces.
func (r *Registry) Namespaces() *Store { return r.namespaceStore }

// StoredBytes returns what the objects of all resources take in memory, in bytes, as
// Config.MaxStoredBytes counts it.
func (r *Registry) StoredBytes() int64 { return r.capacity.Stored() }

// IsNoRoom reports whether err refuses a write since too much is stored already.
func IsNoRoom(err error) bool { return apierrors.HasStatusCause(err, apierr.CauseNoRoom) }

// owners returns the stores that have objects of their own.
func (r *Registry) owners() []*Store {
	return slices.DeleteFunc(slices.Clone(r.stores), func(s *Store) bool { return s.owner != s })
}

// Run keeps the caches up to date, empties namespaces that are being deleted, and has Endpoints and
// EndpointSlices in step that were not when it began, until ctx ends.
func (r *Registry) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, store := range r.owners() {
		running.Go(func() { store.cache.Run(ctx) })
	}
	running.Go(func() { r.namespaces.Run(ctx) })
	if r.mirroring != nil {
		running.Go(func() { r.mirroring.Settle(ctx, r.report) })
	}
	running.Wait()
}

// WaitReady waits until every resource can be read.
func (r *Registry) WaitReady(ctx context.Context) error {
	for _, store := range r.stores {
		if err := store.cache.WaitFor(ctx, 0); err != nil {
			return apierr.FromStorage(err)
		}
	}
	return nil
}

// namespacePrefix is where the keys of namespaces begin.
const namespacePrefix = "/registry/" + Namespaces + "/"

// decodeNamespace returns a namespace as it is stored, or StorageReadError.
func (r *Registry) decodeNamespace(kv *storage.KeyValue) (*corev1.Namespace, error) {
	obj, err := r.namespaceStore.cachedOrRead(kv).decode()
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Namespace), nil
}

// empty deletes what is in the namespace, and reports whether nothing is left.
func (r *Registry) empty(ctx context.Context, namespace string) (bool, *lifecycle.Rest, error) {
	empty, rest := true, &lifecycle.Rest{}
	var failed error
	for _, store := range r.owners() {
		if !store.resource.API.Namespaced {
			continue
		}
		// What cannot be deleted yet may go once something else has.
		if err := store.deleteAll(ctx, namespace, rest); err != nil && failed == nil {
			failed = err
		}
		left, err := r.storage.List(ctx, store.resource.prefix(namespace), storage.ListOptions{Limit: 1})
		if err != nil {
			return false, rest, err
		}
		empty = empty && len(left.KVs) == 0
	}
	return empty, rest, failed
}

// updateStatus writes the status of a namespace that is being deleted. It is news, which may wait:
// for the next look where the namespace has changed, and for room where none is left.
func (r *Registry) updateStatus(ctx context.Context, namespace *corev1.Namespace) error {
	_, _, _, err := r.namespaceStore.Update(ctx, "", namespace.Name, "status", namespace, &metav1.UpdateOptions{FieldManager: "berth"})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) || IsNoRoom(err) {
		return nil
	}
	return err
}

// registerMetrics exports what objects, their forms and lists of old versions take. Those of one
// resource are registered with it.
func (r *Registry) registerMetrics(registerer prometheus.Registerer) {
	gauge := func(name, help string, value func() float64) {
		promauto.With(registerer).NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	gauge("berth_object_forms_bytes", "Bytes of the forms that are kept of objects: compressed, protobuf and metadata alone.",
		func() float64 { return float64(r.forms.Bytes()) })
	gauge("berth_exact_list_bytes", "Bytes reserved for old versions of objects in lists of exact versions that are being read or written.", r.exact.bytes)
	gauge("berth_stored_bytes_limit", "Bytes that all objects together may take in memory; 0 is no limit.",
		func() float64 { return float64(r.capacity.Limit()) })
	for _, store := range r.stores {
		store.registerMetrics(store.resource.registerer(registerer))
	}
}

// registerer returns a registerer of the resource's metrics with that of all; it may be nil.
func (r *Resource) registerer(all prometheus.Registerer) prometheus.Registerer {
	if all == nil {
		return nil
	}
	return prometheus.WrapRegistererWith(prometheus.Labels{"group": r.API.Group, "resource": r.API.Name}, all)
}

// registerMetrics exports how many stored values could not be read, under kube-apiserver's name,
// how many there are now, what the objects take, and how many of them watches began with.
func (s *Store) registerMetrics(registerer prometheus.Registerer) {
	factory := promauto.With(registerer)
	s.initEvents = factory.NewCounter(prometheus.CounterOpts{
		Name: "apiserver_init_events_total",
		Help: "Events of what was there when watches began, by group and resource.",
	})
	if s.owner != s {
		return
	}
	s.broken.errors = factory.NewCounter(prometheus.CounterOpts{
		Name: "apiserver_storage_decode_errors_total",
		Help: "Stored values that could not be read, each version once, by group and resource.",
	})
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "berth_unreadable_objects",
		Help: "Objects whose stored values cannot be read, by group and resource.",
	}, s.countBroken)
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "berth_stored_bytes",
		Help: "Bytes that the stored objects take in memory, as JSON, by group and resource.",
	}, func() float64 { return float64(s.cache.Bytes()) })
}
