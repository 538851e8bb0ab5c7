package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"github.com/berth-project/berth/pkg/registry"
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

// What goes out as finished bytes is what encoding the typed object or list gives.
func TestFinishedFormsEqualEncodedOnes(t *testing.T) {
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
	obj, err := s.endpoints.Get(t.Context(), ns, "a", &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := s.endpoints.List(t.Context(), ns, &metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	empty, _, err := s.endpoints.List(t.Context(), "missing", &metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if names := namesOf(typed[*corev1.EndpointsList](t, list)); !cmp.Equal(names, []string{"a", "b", "c", "full-endpoints"}) {
		t.Errorf("listed %v, want all in the order of their keys", names)
	}
	if got := servedJSON(t, empty); !bytes.Contains(got, []byte(`"items":[]`)) {
		t.Errorf("an empty list is %s", got)
	}
	for name, serializer := range serializers() {
		for _, finished := range []runtime.Object{obj, list, empty} {
			typed := typed[runtime.Object](t, finished)
			if finished == empty {
				typed.(*corev1.EndpointsList).Items = []corev1.Endpoints{} // null otherwise
			}
			want := encoded(t, serializer, typed)
			if got := encoded(t, serializer, finished); !bytes.Equal(got, want) {
				t.Errorf("%s:\n%s, want\n%s", name, got, want)
			}
			if got := servedJSON(t, finished); name == "json" && !bytes.Equal(got, want) {
				t.Errorf("served as\n%s, want\n%s", got, want)
			}
		}
	}
}

// finishedList and finishedObject are what the server asks of lists and objects.
type (
	finishedList interface {
		FinishedItems() ([]byte, iter.Seq[runtime.Object])
		DerivedItems(derive func([]byte) []byte) iter.Seq2[[]byte, error]
	}
	finishedObject interface {
		Finished() (head, rest []byte, err error)
		Derived(derive func([]byte) []byte) []byte
	}
)

// derive is what the tests make of finished parts.
func derive(part []byte) []byte { return append([]byte("of "), part...) }

// assembled is a list as the server puts it together.
func assembled(t testing.TB, list finishedList) string {
	t.Helper()
	head, items := list.FinishedItems()
	var parts []string
	for item := range items {
		_, rest, err := item.(finishedObject).Finished()
		if err != nil {
			t.Fatal(err)
		}
		if derived := item.(finishedObject).Derived(derive); string(derived) != "of "+string(rest) {
			t.Errorf("derived %s of %s", derived, rest)
		}
		parts = append(parts, "{"+string(rest))
	}
	return string(head) + strings.Join(parts, ",") + "]}\n"
}

func serializers() map[string]runtime.Encoder {
	of := func(options jsonserializer.SerializerOptions) runtime.Encoder {
		return jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, shared.scheme, shared.scheme, options)
	}
	return map[string]runtime.Encoder{
		"json":     of(jsonserializer.SerializerOptions{}),
		"pretty":   of(jsonserializer.SerializerOptions{Pretty: true}),
		"yaml":     of(jsonserializer.SerializerOptions{Yaml: true}),
		"protobuf": protobuf.NewSerializer(shared.scheme, shared.scheme),
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
		if list.SelfLink != tc.selfLink || list.ResourceVersion < created.ResourceVersion || list.Kind != "EndpointsList" || list.APIVersion != "v1" {
			t.Errorf("got %v %v", list.TypeMeta, list.ListMeta)
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
	obj, err := s.endpoints.Get(t.Context(), ns, "broken", &metav1.GetOptions{})
	if err == nil {
		err = json.NewEncoder(&bytes.Buffer{}).Encode(typed[runtime.Object](t, obj))
	}
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
