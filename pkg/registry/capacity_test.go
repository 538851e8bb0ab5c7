package registry_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/storage"
)

// heldWatches is a storage whose watches deliver nothing while they are held.
type heldWatches struct {
	storage.Interface
	mu sync.RWMutex
}

func (h *heldWatches) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) <-chan storage.WatchResponse {
	out := make(chan storage.WatchResponse)
	go func() {
		defer close(out)
		for response := range h.Interface.Watch(ctx, prefix, opts) {
			h.mu.RLock()
			h.mu.RUnlock() //nolint:staticcheck // it waits until nobody holds the watches
			select {
			case out <- response:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

func annotated(name string, bytes int) *corev1.Endpoints {
	e := newEndpoints(name)
	e.Annotations = map[string]string{"a": strings.Repeat("x", bytes)}
	return e
}

const maxStored = 300_000

// checkNoRoom fails unless err is the answer to a write beyond the limit.
func checkNoRoom(t *testing.T, err error) {
	t.Helper()
	checkStatus(t, err, 503, "the limit of all together is 300000 (--max-stored-bytes). Delete objects")
	if !registry.IsNoRoom(err) {
		t.Error("its cause is not told")
	}
}

// Beyond the limit nothing is created or made larger, and everything else goes on.
func TestMaxStoredBytes(t *testing.T) {
	t.Parallel()
	store, _ := newOwnStorage(t)
	s := startStores(t, registry.Config{Storage: store, MaxStoredBytes: maxStored})
	ns := s.newNamespace(t)
	held := annotated("held", 140_000)
	held.Finalizers = []string{"example.com/hold"}
	s.create(t, ns, held)
	s.create(t, ns, annotated("a", 140_000))
	_, _, err := s.endpoints.Create(t.Context(), ns, annotated("b", 50_000), createOptions())
	checkNoRoom(t, err)
	_, _, err = s.endpoints.Create(t.Context(), ns, annotated("b", 50_000), dryRun())
	checkNoRoom(t, err)
	_, _, err = s.patch(t, ns, "a", types.MergePatchType, `{"metadata":{"annotations":{"b":"`+strings.Repeat("x", 50_000)+`"}}}`, patchOptions())
	checkNoRoom(t, err)
	if status := checkStatus(t, err, 503, ""); status.Details.RetryAfterSeconds != 0 {
		t.Error("a retry is advised, which does not help")
	}

	// A server with a lower limit than what is stored starts, and is usable.
	full := startStores(t, registry.Config{Storage: store, MaxStoredBytes: maxStored / 3})
	if got := full.registry.StoredBytes(); got < 280_000 || got > maxStored {
		t.Errorf("%d bytes are stored", got)
	}
	_, _, err = full.namespaces.Create(t.Context(), "", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "more"}}, createOptions())
	checkStatus(t, err, 503, "the limit of all together is 100000")
	for name, patch := range map[string]string{
		"the same size": `{"metadata":{"labels":null}}`,
		"a smaller one": `{"metadata":{"annotations":{"a":"` + strings.Repeat("y", 130_000) + `"}}}`,
	} {
		if _, _, err := full.patch(t, ns, "a", types.MergePatchType, patch, patchOptions()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"held", "a"} {
		if _, _, err := full.endpoints.Delete(t.Context(), ns, name, &metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
	if dying := full.get(t, ns, "held"); dying.DeletionTimestamp == nil {
		t.Error("it is not marked")
	}
	if _, _, err := full.patch(t, ns, "held", types.MergePatchType, `{"metadata":{"finalizers":null}}`, patchOptions()); err != nil {
		t.Error(err)
	}
	eventually(t, "room after deletions", func() bool {
		_, _, err := full.endpoints.Create(t.Context(), ns, annotated("b", 50_000), createOptions())
		return err == nil
	})
}

// Many writers at once, and a cache that is behind, do not exceed the limit.
func TestWritersAtTheLimit(t *testing.T) {
	t.Parallel()
	store, _ := newOwnStorage(t)
	held := &heldWatches{Interface: store}
	s := startStores(t, registry.Config{Storage: held, MaxStoredBytes: maxStored})
	ns := s.newNamespace(t)
	const size = 20_000
	for round := range 2 {
		held.mu.Lock()
		var created atomic.Int64
		var writing sync.WaitGroup
		for range 8 {
			writing.Go(func() {
				for range 5 {
					obj := annotated("", size)
					obj.GenerateName = "e-"
					switch _, _, err := s.endpoints.Create(t.Context(), ns, obj, createOptions()); {
					case err == nil:
						created.Add(1)
					case !registry.IsNoRoom(err):
						t.Error(err)
					}
				}
			})
		}
		writing.Wait()
		held.mu.Unlock()
		if n := created.Load(); n < maxStored/size-2 || n > maxStored/size {
			t.Errorf("round %d: %d objects were created", round, n)
		}
		if list := s.list(t, ns, metav1.ListOptions{}); len(list.Items) != int(created.Load()) {
			t.Errorf("%d objects are there, %d were created", len(list.Items), created.Load())
		}
		if got := s.registry.StoredBytes(); got > maxStored || got < maxStored-2*size {
			t.Errorf("round %d: %d bytes are stored", round, got)
		}
		listed, _, err := s.endpoints.List(t.Context(), ns, &metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.endpoints.DeleteCollection(t.Context(), &metav1.DeleteOptions{}, listed); err != nil {
			t.Fatal(err)
		}
		s.list(t, ns, metav1.ListOptions{}) // the cache has the deletions
	}
}

// A write of which nobody knows whether it will take effect keeps its room; one that
// certainly does not gives it back.
func TestRoomOfFailedWrites(t *testing.T) {
	t.Parallel()
	store, _ := newOwnStorage(t)
	fault := &faulty{Interface: store}
	s := startStores(t, registry.Config{Storage: fault, MaxStoredBytes: maxStored})
	ns := s.newNamespace(t)
	fail := storage.ErrUnavailable
	fault.put = func(context.Context, string, []byte, storage.PutOptions) (storage.WriteResponse, error) {
		return storage.WriteResponse{}, fail
	}
	create := func() error {
		_, _, err := s.endpoints.Create(t.Context(), ns, annotated("e", 200_000), createOptions())
		return err
	}
	for range 3 {
		checkStatus(t, create(), 503, "etcd cannot be reached")
	}
	fail = storage.ErrUnknownOutcome
	if err := create(); !apierrors.IsTimeout(err) {
		t.Errorf("got %v", err)
	}
	checkNoRoom(t, create())
}
