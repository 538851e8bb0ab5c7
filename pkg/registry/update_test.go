package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/storage"
)

func updateOptions() *metav1.UpdateOptions { return &metav1.UpdateOptions{FieldManager: "test"} }

func (s *stores) get(t testing.TB, namespace, name string) *corev1.Endpoints {
	t.Helper()
	obj, err := s.endpoints.Get(t.Context(), namespace, name, &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return typed[*corev1.Endpoints](t, obj)
}

// lagging is a storage whose watches deliver nothing until they are released: a cache over
// it stays as it was.
type lagging struct {
	storage.Interface
	released chan struct{}
}

func (l *lagging) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) <-chan storage.WatchResponse {
	in, out := l.Interface.Watch(ctx, prefix, opts), make(chan storage.WatchResponse)
	go func() {
		defer close(out)
		select {
		case <-l.released:
		case <-ctx.Done():
			return
		}
		for response := range in {
			select {
			case out <- response:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func TestUpdateRefuses(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	old := s.create(t, ns, newEndpoints("a"))
	changed := old.DeepCopy()
	changed.Annotations = map[string]string{"n": "1"}
	current := s.update(t, changed)
	for name, tc := range map[string]struct {
		name   string
		change func(*corev1.Endpoints)
		code   int32
		text   string
	}{
		"a version that has passed":  {"a", func(o *corev1.Endpoints) { o.ResourceVersion = old.ResourceVersion }, 409, "the object has been modified"},
		"a version to come":          {"a", func(o *corev1.Endpoints) { o.ResourceVersion = "900000000" }, 409, "the object has been modified"},
		"not a version":              {"a", func(o *corev1.Endpoints) { o.ResourceVersion = "x" }, 400, "invalid resource version"},
		"another uid":                {"a", func(o *corev1.Endpoints) { o.UID = "other" }, 409, "UID in precondition: other"},
		"a uid where nothing is":     {"missing", func(o *corev1.Endpoints) { o.Name = "missing" }, 409, "UID in precondition: " + string(old.UID)},
		"another name":               {"b", func(*corev1.Endpoints) {}, 400, "does not match the name on the URL"},
		"no name":                    {"a", func(o *corev1.Endpoints) { o.Name = "" }, 400, "name must be provided"},
		"another namespace":          {"a", func(o *corev1.Endpoints) { o.Namespace = "other" }, 400, "does not match the namespace"},
		"an address that is invalid": {"a", func(o *corev1.Endpoints) { o.Subsets[0].Addresses[0].IP = "x" }, 422, "subsets[0].addresses[0].ip"},
	} {
		t.Run(name, func(t *testing.T) {
			next := current.DeepCopy()
			tc.change(next)
			_, _, _, err := s.endpoints.Update(t.Context(), ns, tc.name, "", next, updateOptions())
			checkStatus(t, err, tc.code, tc.text)
		})
	}
	if diff := cmp.Diff(current, s.get(t, ns, "a")); diff != "" {
		t.Errorf("changed by what was refused (-want +got):\n%s", diff)
	}
}

// A server whose cache lags behind writes no less right than one whose cache is new.
func TestWritesOfAServerThatLags(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	s.create(t, ns, newEndpoints("changed"))
	s.create(t, ns, newEndpoints("removed"))
	s.create(t, ns, newEndpoints("replaced"))
	late := &lagging{Interface: shared.store, released: make(chan struct{})}
	lags := newStores(t, late)
	s.create(t, ns, newEndpoints("added"))
	newer := s.get(t, ns, "changed")
	newer.Annotations = map[string]string{"n": "1"}
	newer = s.update(t, newer)
	s.delete(t, ns, "removed")
	s.delete(t, ns, "replaced")
	replacement := s.create(t, ns, newEndpoints("replaced"))

	newer.Annotations["n"] = "2"
	lags.update(t, newer) // by the newest version
	merge := func(name string) (*corev1.Endpoints, error) {
		obj, _, err := patched(t.Context(), lags.endpoints, ns, name, "", types.MergePatchType, []byte(`{"metadata":{"annotations":{"m":"1"}}}`), &metav1.PatchOptions{FieldManager: "test"})
		if err != nil {
			return nil, err
		}
		return typed[*corev1.Endpoints](t, obj), nil
	}
	if got, err := merge("changed"); err != nil || !cmp.Equal(got.Annotations, map[string]string{"n": "2", "m": "1"}) {
		t.Errorf("patched to %v, %v", got, err)
	}
	if got, err := merge("added"); err != nil || got.Annotations["m"] != "1" {
		t.Errorf("patched to %v, %v", got, err)
	}
	if got, err := merge("replaced"); err != nil || got.UID != replacement.UID {
		t.Errorf("patched to %v, %v", got, err)
	}
	_, err := merge("removed")
	checkStatus(t, err, 404, `"removed" not found`)
	_, _, err = lags.endpoints.Delete(t.Context(), ns, "removed", &metav1.DeleteOptions{})
	checkStatus(t, err, 404, `"removed" not found`)
	if _, _, err := lags.endpoints.Delete(t.Context(), ns, "added", &metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	close(late.released)
	if got := namesOf(lags.list(t, ns, metav1.ListOptions{})); !cmp.Equal(got, []string{"changed", "replaced"}) {
		t.Errorf("left is %v", got)
	}
}

// After a write whose outcome is unknown the server finds out what it can, and claims no
// more.
func TestUnknownOutcomes(t *testing.T) {
	t.Parallel()
	other := newStores(t, shared.store)
	ns := other.newNamespace(t)
	unknown := fmt.Errorf("%w: the connection broke", storage.ErrUnknownOutcome)
	foreign := func(t *testing.T, key string) { put(t, key, stored(t, key).Value) }
	replace := func(t *testing.T, key string) { value := stored(t, key).Value; remove(t, key); put(t, key, value) }
	for name, tc := range map[string]struct {
		happens bool                           // the write takes effect
		then    func(t *testing.T, key string) // before the server looks; nil: nothing
		update  int32                          // the code of the update's answer; 0: success
		remove  int32                          // that of the delete's
	}{
		"it happened":               {true, nil, 0, 0},
		"it did not happen":         {false, nil, 504, 504},
		"another came instead":      {false, foreign, 504, 0}, // the delete is tried again
		"another was put its place": {false, replace, 504, 0},
	} {
		t.Run(name, func(t *testing.T) {
			store := &faulty{Interface: shared.store}
			s := newStores(t, store)
			for verb, code := range map[string]int32{"update": tc.update, "remove": tc.remove} {
				obj := other.create(t, ns, newEndpoints(verb))
				s.get(t, ns, verb)
				key := s.endpoints.Key(ns, verb)
				var once sync.Once
				interfere := func(write func() (storage.WriteResponse, error)) (response storage.WriteResponse, err error) {
					first := false
					once.Do(func() { first = true })
					if !first || tc.happens {
						if response, err = write(); !first {
							return response, err
						}
					}
					if tc.then != nil {
						tc.then(t, key)
					}
					return storage.WriteResponse{}, errors.Join(unknown, err)
				}
				store.put = func(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
					return interfere(func() (storage.WriteResponse, error) { return shared.store.Put(ctx, key, value, opts) })
				}
				store.delete = func(ctx context.Context, key string, opts storage.DeleteOptions) (storage.WriteResponse, error) {
					return interfere(func() (storage.WriteResponse, error) { return shared.store.Delete(ctx, key, opts) })
				}
				var err error
				if verb == "update" {
					obj.Annotations = map[string]string{"n": "1"}
					_, _, _, err = s.endpoints.Update(t.Context(), ns, verb, "", obj, updateOptions())
				} else {
					_, _, err = s.endpoints.Delete(t.Context(), ns, verb, &metav1.DeleteOptions{})
				}
				if code != 0 {
					checkStatus(t, err, code, "it may or may not have taken effect")
				} else if err != nil {
					t.Errorf("%s: %v", verb, err)
				}
				if kv := stored(t, key); kv != nil {
					remove(t, key)
				}
			}
		})
	}
}
