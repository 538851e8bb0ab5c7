package registry_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/resources/endpoints"
	"github.com/berth-project/berth/pkg/registry/resources/namespaces"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// shared is what all tests of the binary use; each makes namespaces of its own.
var shared struct {
	db        *embedded.Etcd
	store     storage.Interface
	scheme    *runtime.Scheme
	converter managedfields.TypeConverter
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "berth-registry-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := setUp(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code = m.Run()
	if err := errors.Join(shared.db.Close(), goleak.Find()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func setUp(dir string) (err error) {
	shared.scheme = runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(shared.scheme), eventsv1.AddToScheme(shared.scheme)); err != nil {
		return err
	}
	shared.converter = applyconfigurations.NewTypeConverter(shared.scheme)
	if shared.db, err = embedded.Start(context.Background(), embedded.Config{DataDir: dir}); err != nil {
		return err
	}
	shared.store, err = etcd.New(shared.db.Client(), etcd.Config{MaxValueBytes: embedded.MaxValueBytes})
	return err
}

// stores is a running registry and what it serves.
type stores struct {
	registry              *registry.Registry
	namespaces, endpoints *registry.Store
	failures              chan error // what it reported, as far as there is room
	stop                  func()     // waits until nothing of it runs; the test's end calls it, too
}

// newStores returns a registry over store, as a process that has just started has it.
func newStores(t testing.TB, store storage.Interface) *stores {
	t.Helper()
	return newLimitedStores(t, store, 0)
}

// newLimitedStores is newStores with a limit of objects; 0 is the default.
func newLimitedStores(t testing.TB, store storage.Interface, maxObjectBytes int) *stores {
	t.Helper()
	return startStores(t, registry.Config{Storage: store, MaxObjectBytes: maxObjectBytes})
}

// startStores is newStores with a configuration that lacks what all have.
func startStores(t testing.TB, cfg registry.Config) *stores {
	t.Helper()
	s := &stores{failures: make(chan error, 100)}
	cfg.Scheme, cfg.TypeConverter, cfg.Report = shared.scheme, shared.converter, s.report
	cfg.Resources = append([]*registry.Resource{namespaces.Resource(), endpoints.Resource()}, cfg.Resources...)
	r, err := registry.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	s.stop = func() { cancel(); <-done }
	t.Cleanup(s.stop)
	if err := r.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.registry, s.namespaces, s.endpoints = r, r.Stores()[0], r.Stores()[1]
	return s
}

// patched prepares a patch and applies it.
func patched(ctx context.Context, s *registry.Store, namespace, name, subresource string, kind types.PatchType, data []byte, opts *metav1.PatchOptions) (obj *object.Object, created bool, err error) {
	apply, _, err := s.Patch(namespace, name, subresource, kind, data, opts)
	if err != nil {
		return nil, false, err
	}
	obj, created, _, err = apply(ctx)
	return obj, created, err
}

func (s *stores) report(err error) {
	select {
	case s.failures <- err:
	default:
	}
}

// newNamespace makes a namespace that no other test uses.
func (s *stores) newNamespace(t testing.TB) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	obj, _, err := s.namespaces.Create(t.Context(), "", ns, createOptions())
	if err != nil {
		t.Fatal(err)
	}
	return typed[*corev1.Namespace](t, obj).Name
}

// create stores obj, which must succeed.
func (s *stores) create(t testing.TB, namespace string, obj *corev1.Endpoints) *corev1.Endpoints {
	t.Helper()
	created, _, err := s.endpoints.Create(t.Context(), namespace, obj, createOptions())
	if err != nil {
		t.Fatalf("creating %s: %v", obj.Name, err)
	}
	return typed[*corev1.Endpoints](t, created)
}

func createOptions() *metav1.CreateOptions { return &metav1.CreateOptions{FieldManager: "test"} }

func dryRun() *metav1.CreateOptions {
	return &metav1.CreateOptions{FieldManager: "test", DryRun: []string{metav1.DryRunAll}}
}

// newEndpoints returns Endpoints of one address.
func newEndpoints(name string) *corev1.Endpoints {
	return &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "10.0.0.1"}},
			Ports:     []corev1.EndpointPort{{Port: 80}},
		}},
	}
}

// typed returns what a store returned as the Go type that it stands for.
func typed[T runtime.Object](t testing.TB, obj any) T {
	t.Helper()
	switch finished := obj.(type) {
	case *object.Object:
		obj = decoded(t, finished)
	case *object.List:
		obj = decodedList(t, finished)
	}
	result, ok := obj.(T)
	if !ok {
		t.Fatalf("got a %T, want a %T", obj, result)
	}
	return result
}

func decoded(t testing.TB, o *object.Object) runtime.Object {
	t.Helper()
	obj, err := o.Decode()
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

func decodedList(t testing.TB, l *object.List) runtime.Object {
	t.Helper()
	list, err := shared.scheme.New(l.Type.Kind.GroupVersion().WithKind(l.Type.Kind.Kind + "List"))
	if err != nil {
		t.Fatal(err)
	}
	items := make([]runtime.Object, len(l.Objects))
	for i, o := range l.Objects {
		items[i] = decoded(t, o)
		items[i].GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	if err := meta.SetList(list, items); err != nil {
		t.Fatal(err)
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		t.Fatal(err)
	}
	accessor.SetResourceVersion(l.Meta.ResourceVersion)
	accessor.SetSelfLink(l.Meta.SelfLink)
	accessor.SetContinue(l.Meta.Continue)
	accessor.SetRemainingItemCount(l.Meta.RemainingItemCount)
	return list
}

// canonicalHead begins every value of Endpoints as the registry writes it.
const canonicalHead = `{"kind":"Endpoints","apiVersion":"v1","metadata":{`

// valueOf is the value that is stored for an object.
func valueOf(t testing.TB, s *registry.Store, obj runtime.Object) []byte {
	t.Helper()
	value, err := s.Type().Encode(obj)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func setVersion(t testing.TB, obj runtime.Object, revision int64) {
	t.Helper()
	accessor, err := meta.Accessor(obj)
	if err != nil {
		t.Fatal(err)
	}
	accessor.SetResourceVersion(strconv.FormatInt(revision, 10))
}

// checkStatus fails the test unless err is an API error with this code whose message holds
// text, and returns its Status.
func checkStatus(t testing.TB, err error, code int32, text string) metav1.Status {
	t.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		t.Fatalf("got %v, want a Status with code %d", err, code)
	}
	got := status.Status()
	if got.Code != code || !strings.Contains(got.Message, text) {
		t.Fatalf("got %d %q, want %d and %q", got.Code, got.Message, code, text)
	}
	return got
}

// stored returns the key as etcd holds it, nil where it does not exist.
func stored(t testing.TB, key string) *storage.KeyValue {
	t.Helper()
	got, err := shared.store.Get(t.Context(), key, storage.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return got.KV
}

// put writes the key over whatever is there.
func put(t testing.TB, key string, value []byte) *storage.KeyValue {
	t.Helper()
	var expect int64
	if kv := stored(t, key); kv != nil {
		expect = kv.ModRevision
	}
	response, err := shared.store.Put(t.Context(), key, value, storage.PutOptions{Expect: expect})
	if err != nil || !response.Succeeded {
		t.Fatalf("putting %s: %v, %v", key, response, err)
	}
	return stored(t, key)
}

// remove deletes the key, which must exist.
func remove(t testing.TB, key string) {
	t.Helper()
	response, err := shared.store.Delete(t.Context(), key, storage.DeleteOptions{Expect: stored(t, key).ModRevision})
	if err != nil || !response.Succeeded {
		t.Fatalf("deleting %s: %v, %v", key, response, err)
	}
}

// faulty is a storage in which a test interferes. A nil function lets the call through.
type faulty struct {
	storage.Interface
	get    func(ctx context.Context, key string, opts storage.GetOptions) (storage.GetResponse, error)
	put    func(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error)
	delete func(ctx context.Context, key string, opts storage.DeleteOptions) (storage.WriteResponse, error)
}

func (f *faulty) Get(ctx context.Context, key string, opts storage.GetOptions) (storage.GetResponse, error) {
	if f.get != nil {
		return f.get(ctx, key, opts)
	}
	return f.Interface.Get(ctx, key, opts)
}

func (f *faulty) Put(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
	if f.put != nil {
		return f.put(ctx, key, value, opts)
	}
	return f.Interface.Put(ctx, key, value, opts)
}

func (f *faulty) Delete(ctx context.Context, key string, opts storage.DeleteOptions) (storage.WriteResponse, error) {
	if f.delete != nil {
		return f.delete(ctx, key, opts)
	}
	return f.Interface.Delete(ctx, key, opts)
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !cond() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func formatRevision(revision int64) string { return strconv.FormatInt(revision, 10) }

// revision is the resourceVersion of a key as it is stored.
func revision(kv *storage.KeyValue) string { return formatRevision(kv.ModRevision) }
