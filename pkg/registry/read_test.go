package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/resources/endpoints"
	"github.com/berth-project/berth/pkg/registry/resources/namespaces"
	"github.com/berth-project/berth/pkg/storage"
)

func TestGet(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	created := s.create(t, ns, newEndpoints("a"))
	for _, version := range []string{"", "0", "1", created.ResourceVersion} {
		obj, err := s.endpoints.Get(t.Context(), ns, "a", &metav1.GetOptions{ResourceVersion: version})
		if err != nil {
			t.Fatalf("at %q: %v", version, err)
		}
		if diff := cmp.Diff(created, typed[*corev1.Endpoints](t, obj)); diff != "" {
			t.Errorf("at %q (-created +got):\n%s", version, diff)
		}
	}
	_, err := s.endpoints.Get(t.Context(), ns, "b", &metav1.GetOptions{})
	checkStatus(t, err, 404, `endpoints "b" not found`)
	_, err = s.endpoints.Get(t.Context(), ns, "a", &metav1.GetOptions{ResourceVersion: "abc"})
	checkStatus(t, err, 400, `invalid resource version: resourceVersion: Invalid value: "abc"`)
}

// A write is seen by the very next read, whoever wrote it.
func TestReadsAreLinearizable(t *testing.T) {
	s, other := newStores(t, shared.store), newStores(t, shared.store)
	ns := s.newNamespace(t)
	for i := range 50 {
		name := fmt.Sprintf("e-%d", i)
		other.create(t, ns, newEndpoints(name))
		if _, err := s.endpoints.Get(t.Context(), ns, name, &metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		list, _, err := s.endpoints.List(t.Context(), ns, &metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(typed[*corev1.EndpointsList](t, list).Items); got != i+1 {
			t.Fatalf("%d objects listed after %d creates", got, i+1)
		}
	}
}

func TestVersionThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	s.create(t, ns, newEndpoints("a"))
	future := formatRevision(storeRevision(t) + 1_000_000)
	errs := make(chan error, 2)
	go func() {
		_, err := s.endpoints.Get(t.Context(), ns, "a", &metav1.GetOptions{ResourceVersion: future})
		errs <- err
	}()
	go func() {
		_, _, err := s.endpoints.List(t.Context(), ns, &metav1.ListOptions{ResourceVersion: future})
		errs <- err
	}()
	for range cap(errs) {
		status := checkStatus(t, <-errs, 504, "Too large resource version: "+future+", current: ")
		if d := status.Details; d.RetryAfterSeconds != 1 || len(d.Causes) != 1 || d.Causes[0].Type != metav1.CauseTypeResourceVersionTooLarge {
			t.Errorf("details %v", d)
		}
	}
}

// What is served is what encoding the typed object gives, whoever wrote it.
func TestServedJSON(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	for _, name := range []string{"b", "a", "c"} {
		obj := newEndpoints(name)
		obj.Annotations = map[string]string{"note": "<b>&\"}{\\\u2028é"}
		s.create(t, ns, obj)
	}
	foreign := bytes.Replace(readValue(t, "endpoints-foreign.json"), []byte(`"namespace": "golden",
    "ownerReferences"`), []byte(`"namespace": "`+ns+`",
    "ownerReferences"`), 1)
	put(t, s.endpoints.Key(ns, "full-endpoints"), foreign)
	list, _, err := s.endpoints.List(t.Context(), ns, &metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, listed := range list.Objects {
		names = append(names, listed.Name)
		got, err := s.endpoints.Get(t.Context(), ns, listed.Name, &metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if want := valueOf(t, s.endpoints, decoded(t, got)); got != listed || !bytes.Equal(got.JSON(), want) {
			t.Errorf("served as\n%s, want\n%s", got.JSON(), want)
		}
	}
	if !slices.Equal(names, []string{"a", "b", "c", "full-endpoints"}) {
		t.Errorf("listed %v, want all in the order of their keys", names)
	}
}

// What was made of objects that follow each other is shared with other lists only where the
// list tells so.
func TestListsKnowTheirGaps(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	s.createNumbered(t, ns, 4)
	for name, tc := range map[string]struct {
		opts                metav1.ListOptions
		adjacent, fromStart bool
	}{
		"all":                   {metav1.ListOptions{}, true, true},
		"a page":                {metav1.ListOptions{Limit: 2}, true, true},
		"selected":              {metav1.ListOptions{LabelSelector: "odd=true"}, false, true},
		"all are selected":      {metav1.ListOptions{LabelSelector: "missing!=x"}, true, true},
		"another page":          {metav1.ListOptions{Limit: 2, Continue: s.list(t, ns, metav1.ListOptions{Limit: 2}).Continue}, true, false},
		"another page selected": {metav1.ListOptions{Limit: 1, LabelSelector: "odd=true", Continue: s.list(t, ns, metav1.ListOptions{Limit: 1, LabelSelector: "odd=true"}).Continue}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			list, _, err := s.endpoints.List(t.Context(), ns, &tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			if len(list.Objects) == 0 || list.Adjacent != tc.adjacent || list.FromStart != tc.fromStart {
				t.Errorf("%d objects, adjacent is %v, from the start is %v", len(list.Objects), list.Adjacent, list.FromStart)
			}
		})
	}
}

func namesOf(list *corev1.EndpointsList) []string {
	names := make([]string, len(list.Items))
	for i := range list.Items {
		names[i] = list.Items[i].Name
	}
	return names
}

func TestListMetadata(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	created := s.create(t, ns, newEndpoints("a"))
	for _, tc := range []struct{ namespace, selfLink string }{
		{ns, "/api/v1/namespaces/" + ns + "/endpoints"},
		{"", "/api/v1/endpoints"},
	} {
		obj, _, err := s.endpoints.List(t.Context(), tc.namespace, &metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		list := typed[*corev1.EndpointsList](t, obj)
		if list.SelfLink != tc.selfLink || list.ResourceVersion < created.ResourceVersion {
			t.Errorf("got %v", list.ListMeta)
		}
		found := false
		for i := range list.Items {
			found = found || list.Items[i].UID == created.UID
			if list.Items[i].Kind != "" || list.Items[i].ResourceVersion == "" {
				t.Errorf("an item is %v, %v", list.Items[i].TypeMeta, list.Items[i].ObjectMeta)
			}
		}
		if !found {
			t.Errorf("not listed in %q", tc.namespace)
		}
	}
}

// A value that cannot be read is an error of the server's that names the key; it is not
// an object without its fields.
func TestUnreadableValue(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	key := s.endpoints.Key(ns, "broken")
	put(t, key, []byte(`{"kind":"Endpoints","metadata":{"name":1}}`))
	defer remove(t, key)
	_, err := s.endpoints.Get(t.Context(), ns, "broken", &metav1.GetOptions{})
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte(key)) {
		t.Errorf("got %v, want an error that names %s", err, key)
	}
}

// What the storage says becomes what a client is told.
func TestStorageErrors(t *testing.T) {
	ns := newStores(t, shared.store).newNamespace(t)
	for name, tc := range map[string]struct {
		err        error
		code       int32
		reason     metav1.StatusReason
		retryAfter int32
		message    string
	}{
		"too large":   {&storage.TooLargeError{Size: 9, Limit: 8}, 413, metav1.StatusReasonRequestEntityTooLarge, 0, "Request entity too large: the object takes 9 bytes in etcd, the limit is 8"},
		"no limit":    {&storage.TooLargeError{Size: 9}, 413, metav1.StatusReasonRequestEntityTooLarge, 0, "the object takes 9 bytes in etcd, more than it accepts in one request"},
		"timeout":     {storage.ErrTimeout, 504, metav1.StatusReasonTimeout, 1, "etcd did not answer"},
		"deadline":    {context.DeadlineExceeded, 504, metav1.StatusReasonTimeout, 1, "ended before etcd was asked"},
		"full":        {storage.ErrNoSpace, 503, metav1.StatusReasonServiceUnavailable, 10, "etcd's database is full"},
		"unavailable": {storage.ErrUnavailable, 503, metav1.StatusReasonServiceUnavailable, 1, "etcd cannot be reached"},
		"compacted":   {storage.ErrCompacted, 410, metav1.StatusReasonExpired, 0, "too old"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &faulty{Interface: shared.store}
			f.put = func(context.Context, string, []byte, storage.PutOptions) (storage.WriteResponse, error) {
				return storage.WriteResponse{}, fmt.Errorf("wrapped: %w", tc.err)
			}
			_, _, err := newStores(t, f).endpoints.Create(t.Context(), ns, newEndpoints("a"), createOptions())
			status := checkStatus(t, err, tc.code, tc.message)
			if status.Reason != tc.reason {
				t.Errorf("reason %s, want %s", status.Reason, tc.reason)
			}
			if d := status.Details; tc.retryAfter != 0 && (d == nil || d.RetryAfterSeconds != tc.retryAfter) {
				t.Errorf("details %v, want to retry after %d s", d, tc.retryAfter)
			}
		})
	}
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	if _, err := registry.New(registry.Config{}); err == nil || errors.Unwrap(err) != nil {
		t.Errorf("got %v", err)
	}
}

// While a cache is being filled, at the start or again after it has lost its place, writes go
// by what the store has.
func TestWritesWhileTheCacheIsFilled(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	s.create(t, ns, newEndpoints("a"))
	unfilled, err := registry.New(registry.Config{
		Storage: shared.store, Scheme: shared.scheme, TypeConverter: shared.converter,
		Resources: []*registry.Resource{namespaces.Resource(), endpoints.Resource()},
	})
	if err != nil {
		t.Fatal(err)
	}
	store := unfilled.Stores()[1]
	if _, _, _, err := store.Update(t.Context(), ns, "a", "", newEndpoints("a"), &metav1.UpdateOptions{FieldManager: "other"}); err != nil {
		t.Error(err)
	}
	if _, _, err := store.Delete(t.Context(), ns, "a", &metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	_, _, err = store.Delete(t.Context(), ns, "a", &metav1.DeleteOptions{})
	checkStatus(t, err, 404, "not found")
}
