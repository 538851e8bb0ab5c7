package registry

import (
	"context"
	"errors"
	"strconv"
	"time"
	"weak"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/capacity"
	"github.com/berth-project/berth/pkg/registry/lifecycle"
	"github.com/berth-project/berth/pkg/registry/mirroring"
	"github.com/berth-project/berth/pkg/registry/ownership"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/cache"
	"github.com/berth-project/berth/pkg/yamljson"
)

// Store serves one resource. Its errors are API errors where the client can do something
// about them; any other error is an internal one.
type Store struct {
	resource   *Resource
	objects    *object.Type // as clients see them
	owner      *Store       // of the objects: the store itself, or that of which it is a view
	storage    storage.Interface
	cache      *cache.Cache[stored]
	namespaces *lifecycle.Namespaces
	parts      map[string]*part // by subresource; "" is the object itself
	maxObject  int              // bytes of JSON
	lifetime   time.Duration    // of an object after its last write; 0: it stays
	selectors  labelSelectors
	exact      *exactReads        // of all resources
	capacity   *capacity.Capacity // of all resources
	broken     brokenValues
	initEvents prometheus.Counter
	admission  Admission            // nil admits all
	mirroring  *mirroring.Mirroring // nil: writes have no effects on other objects
	onMarked   func()               // called when an object has been marked as deleted; nil: nothing is
}

// part has what writes of an object, or of one of its subresources, need.
type part struct {
	strategy UpdateStrategy
	owners   *ownership.Manager
}

type (
	cacheEntry   = cache.Entry[stored]
	cacheEvent   = cache.Event[stored]
	cacheWatcher = cache.Watcher[stored]
)

func newStore(resource *Resource, r *Registry, cfg Config) (*Store, error) {
	s := &Store{
		resource: resource, storage: cfg.Storage, namespaces: r.namespaces, exact: r.exact, capacity: r.capacity, admission: cfg.Admission,
		maxObject: cfg.MaxObjectBytes, parts: map[string]*part{},
		selectors: labelSelectors{parsed: map[string]weak.Pointer[labelSelector]{}},
		objects: &object.Type{
			Kind: resource.GroupVersionKind(), New: func() runtime.Object { return resource.New() },
			Fields: resource.Fields, FieldPaths: resource.FieldPaths, Columns: resource.Columns, Cells: resource.Cells, Forms: cfg.Forms,
		},
	}
	s.broken.report = cfg.Report
	s.owner = s
	s.lifetime = cfg.Lifetimes[resource.GroupResource()]
	if owner, err := r.ownerOf(resource); err != nil {
		return nil, err
	} else if owner != nil {
		s.owner, s.cache, s.lifetime = owner, owner.cache, owner.lifetime
	}
	if err := s.addPart("", resource.Strategy, resource.Reset, cfg); err != nil {
		return nil, err
	}
	for i := range resource.Subresources {
		sub := &resource.Subresources[i]
		if err := s.addPart(sub.name(), sub.Strategy, sub.Reset, cfg); err != nil {
			return nil, err
		}
	}
	if s.owner != s {
		return s, nil
	}
	var observer cache.Observer[stored]
	if follows := cfg.Observers[resource.GroupResource()]; follows != nil {
		observer = &observedStore{s, follows}
	}
	var index func(stored) string
	if cfg.Mirroring != mirroring.None && resource.API.Name == "endpointslices" {
		index = unitOf
	}
	var err error
	s.cache, err = cache.New(cache.Config[stored]{
		Storage: cfg.Storage,
		Prefix:  resource.prefix(""),
		Make:    s.received,
		Size:    stored.size,
		Index:   index,
		Report:  cfg.Report,

		Observer:   observer,
		Registerer: resource.registerer(cfg.Registerer),
	})
	return s, err
}

func (s *Store) addPart(subresource string, strategy UpdateStrategy, reset []string, cfg Config) error {
	owners, err := ownership.New(ownership.Config{
		Kind: s.objects.Kind, Scheme: cfg.Scheme, Converter: cfg.TypeConverter,
		Subresource: subresource, Reset: reset, SetDefault: s.resource.Strategy.Default,
	})
	s.parts[subresource] = &part{strategy, owners}
	return err
}

// observedStore tells an Observer of what the cache holds.
type observedStore struct {
	*Store
	observer Observer
}

func (s *observedStore) Filled(entries []*cacheEntry) {
	objs := make([]APIObject, 0, len(entries))
	for _, entry := range entries {
		if obj, err := entry.Value.decode(); err == nil {
			objs = append(objs, obj)
		}
	}
	s.observer.Replace(objs)
}

func (s *observedStore) Changed(key string, entry *cacheEntry) {
	if entry != nil {
		if obj, err := entry.Value.decode(); err == nil {
			s.observer.Set(obj)
			return
		}
	}
	at := s.resource.identity(&storage.KeyValue{Key: key})
	s.observer.Delete(at.Namespace, at.Name)
}

// Fresh waits until the cache, and the observer of the resource, have what was stored when it
// was called.
func (s *Store) Fresh(ctx context.Context) error { return apierr.FromStorage(s.cache.Fresh(ctx)) }

// admit returns why the write is refused.
func (s *Store) admit(ctx context.Context, namespace, name string, obj, old APIObject) error {
	if s.admission == nil {
		return nil
	}
	return s.admission.Admit(ctx, Write{Resource: s.resource.API, Namespace: namespace, Name: name, Object: obj, Old: old})
}

// APIResource describes the resource as discovery shows it.
func (s *Store) APIResource() metav1.APIResource { return s.resource.API }

// Subresources describes what is served below an object, each by its whole name.
func (s *Store) Subresources() []metav1.APIResource {
	var all []metav1.APIResource
	for _, sub := range s.resource.Subresources {
		all = append(all, sub.API)
	}
	return all
}

// Type is the type of the resource's objects.
func (s *Store) Type() *object.Type { return s.objects }

// Get returns one object. Without opts.ResourceVersion the read is linearizable; with
// "0" it is whatever the cache has; with another it is at least that new. StorageReadError:
// its stored value cannot be read.
func (s *Store) Get(ctx context.Context, namespace, name string, opts *metav1.GetOptions) (*object.Object, error) {
	if err := s.waitFor(ctx, opts.ResourceVersion); err != nil {
		return nil, err
	}
	found, err := s.read(ctx, s.resource.key(namespace, name), false)
	if err != nil {
		return nil, err
	}
	if !found.exists() {
		return nil, apierrors.NewNotFound(s.resource.GroupResource(), name)
	}
	if err := found.err(); err != nil {
		return nil, err
	}
	return s.show(found.object)
}

// weightOfMetadata is what a name or a value in the metadata of an object weighs beside its
// bytes when the object is written: who owns it is looked up.
const weightOfMetadata = 40

// Weight returns how many bytes of JSON it is like to write an object, and what that makes of
// others, as far as the caches know; 0: there is no such object.
func (s *Store) Weight(namespace, name string) int {
	o := s.known(namespace, name)
	if o == nil {
		return 0
	}
	return o.Size() + yamljson.Elements(o.MetadataJSON())*weightOfMetadata + s.mirroring.Weight(mirrored{s}, namespace, o.Name, o.Labels())
}

// Effects returns how many bytes of JSON of other objects a write of obj reads or writes, as far as
// the caches know; 0: none.
func (s *Store) Effects(namespace string, obj runtime.Object) int {
	return s.mirroring.WeightOf(mirrored{s}, namespace, obj.(APIObject))
}

// known returns the object that the cache has; nil: it has none that can be read.
func (s *Store) known(namespace, name string) *object.Object {
	entry, _, err := s.cache.Get(s.resource.key(namespace, name))
	if err != nil || entry == nil {
		return nil
	}
	shown, err := s.show(entry.Value.object)
	if err != nil {
		return nil
	}
	return shown
}

// Exists reports whether there is an object of that name in the store itself; the caches need
// not be running.
func (s *Store) Exists(ctx context.Context, namespace, name string) (bool, error) {
	found, err := s.read(ctx, s.resource.key(namespace, name), true)
	return found.exists(), err
}

// read returns what is stored under key: from the cache, which may be behind, or newest
// where fresh is set.
func (s *Store) read(ctx context.Context, key string, fresh bool) (stored, error) {
	if fresh {
		got, err := s.storage.Get(ctx, key, storage.GetOptions{})
		if err != nil || got.KV == nil {
			return stored{}, apierr.FromStorage(err)
		}
		return s.cachedOrRead(got.KV), nil
	}
	entry, _, err := s.cache.Get(key)
	switch {
	case err != nil: // it is being filled again
		return s.read(ctx, key, true)
	case entry == nil:
		return stored{}, nil
	}
	return entry.Value, nil
}

// futureRevisionWait is how long a read waits for a revision that is not there yet, as in
// kube-apiserver.
const futureRevisionWait = 3 * time.Second

// waitFor waits until the cache is as new as a read of that resourceVersion wants it, though
// not long for a version that is not there at all.
func (s *Store) waitFor(ctx context.Context, resourceVersion string) error {
	if resourceVersion == "" {
		return apierr.FromStorage(s.cache.Fresh(ctx))
	}
	revision, err := parseResourceVersion(resourceVersion)
	if err != nil {
		return err
	}
	if current, err := s.cache.Revision(); err == nil && current >= revision {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, futureRevisionWait)
	defer cancel()
	err = s.cache.WaitFor(ctx, revision)
	if errors.Is(err, storage.ErrTimeout) {
		if current, revisionErr := s.cache.Revision(); revisionErr == nil {
			return apierr.TooLargeVersion(revision, current)
		}
	}
	return apierr.FromStorage(err)
}

// parseResourceVersion returns the revision that a client names; "" is 0.
func parseResourceVersion(value string) (int64, error) {
	if value == "" {
		return 0, nil
	}
	revision, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		return 0, apierr.BadVersion(value, err.Error())
	}
	return int64(revision), nil
}

func formatRevision(revision int64) string { return strconv.FormatInt(revision, 10) }

func isDryRun(dryRun []string) bool { return len(dryRun) > 0 }

// A store of a view has no objects of its own: it reads and selects those of the store that has
// them, by that one's fields, and shows what it hands out. Each object is shown once to all, for
// as long as the budget of forms keeps it.

// show returns a stored object as the store's clients see it.
func (s *Store) show(o *object.Object) (*object.Object, error) {
	if o == nil || s.owner == s {
		return o, nil
	}
	return o.As(s.objects, func(stored runtime.Object) (runtime.Object, error) {
		shown := s.resource.ViewOf.Show(stored.(APIObject))
		if shown.GetSelfLink() != "" {
			shown.SetSelfLink(s.resource.selfLink(o.Namespace, o.Name))
		}
		return shown, nil
	})
}

// showAll is show for the objects of a list.
func (s *Store) showAll(objects []*object.Object) ([]*object.Object, error) {
	if s.owner == s {
		return objects, nil
	}
	shown := make([]*object.Object, len(objects))
	for i, o := range objects {
		var err error
		if shown[i], err = s.show(o); err != nil {
			return nil, err
		}
	}
	return shown, nil
}

// decode returns a typed copy of what is stored, as the store's clients see it, or
// StorageReadError.
func (s *Store) decode(v stored) (APIObject, error) {
	obj, err := v.decode()
	if err != nil || s.owner == s {
		return obj, err
	}
	shown := s.resource.ViewOf.Show(obj)
	shown.GetObjectKind().SetGroupVersionKind(s.objects.Kind)
	return shown, nil
}

// toStore returns the object as it is stored.
func (s *Store) toStore(obj APIObject) APIObject {
	if s.owner == s {
		return obj
	}
	return s.resource.ViewOf.Store(obj)
}

// ownerOf returns the store that has the objects of the resource; nil: itself.
func (r *Registry) ownerOf(resource *Resource) (*Store, error) {
	if resource.ViewOf == nil {
		return nil, nil
	}
	for _, store := range r.stores {
		if store.resource == resource.ViewOf.Of {
			return store, nil
		}
	}
	return nil, errors.New("what it is a view of does not stand before it")
}
