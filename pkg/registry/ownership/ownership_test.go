package ownership_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/berth-project/berth/pkg/registry/ownership"
)

func newManager(t testing.TB, kind schema.GroupVersionKind, converter managedfields.TypeConverter) *ownership.Manager {
	t.Helper()
	m, err := ownership.New(ownership.Config{Kind: kind, Scheme: scheme, Converter: converter, SetDefault: setDefault})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// large is Endpoints of n addresses, the first of which is first.
func large(n int, first string) *corev1.Endpoints {
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "e"}, Subsets: []corev1.EndpointSubset{{}}}
	for i := range n {
		node := fmt.Sprint("node-", i)
		e.Subsets[0].Addresses = append(e.Subsets[0].Addresses, corev1.EndpointAddress{
			IP: fmt.Sprintf("10.0.%d.%d", i/250, i%250), NodeName: &node, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprint("pod-", i)},
		})
	}
	e.Subsets[0].Addresses[0].IP = first
	return e
}

func configOf(obj runtime.Object) *unstructured.Unstructured {
	config := &unstructured.Unstructured{Object: decoded(obj)}
	config.SetGroupVersionKind(endpointsKind)
	unstructured.RemoveNestedField(config.Object, "metadata", "creationTimestamp")
	return config
}

// watched tells how much it is shown.
type watched struct {
	managedfields.TypeConverter
	longest int // JSON of an object
}

func (w *watched) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	w.longest = max(w.longest, len(fmt.Sprint(obj)))
	return w.TypeConverter.ObjectToTyped(obj, opts...)
}

// What is in a list is not shown to the library, and stays in the object.
func TestStandIns(t *testing.T) {
	w := &watched{TypeConverter: converter}
	m := newManager(t, endpointsKind, w)
	const n = 1000
	live := large(n, "10.1.0.1")
	mustUpdate(t, m, &corev1.Endpoints{}, live, "one")
	live.UID = "u"
	next := live.DeepCopy()
	next.Subsets[0].Addresses[n-1].NodeName = nil
	mustUpdate(t, m, live, next, "two")
	next.UID = "u"
	applied, err := m.Apply(next, configOf(large(n, "10.1.0.2")), "three", true)
	if err != nil {
		t.Fatal(err)
	}
	wantManagers(t, live, `one Update {"f:subsets":{}}`)
	wantManagers(t, next, `two Update {"f:subsets":{}}`)
	wantManagers(t, applied, `three Apply {"f:subsets":{}}`)
	if diff := cmp.Diff(large(n, "10.1.0.2").Subsets, applied.(*corev1.Endpoints).Subsets); diff != "" {
		t.Errorf("the addresses differ (-want +got):\n%s", diff)
	}
	label := configOf(&corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "e", Labels: map[string]string{"a": "b"}}})
	kept, err := m.Apply(applied, label, "four", false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(large(n, "10.1.0.2").Subsets, kept.(*corev1.Endpoints).Subsets); diff != "" {
		t.Errorf("the addresses differ (-want +got):\n%s", diff)
	}
	if w.longest > 10_000 {
		t.Errorf("the library was shown an object of %d characters", w.longest)
	}
	_, err = m.Apply(applied, configOf(large(n, "10.1.0.3")), "five", false)
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "three": .subsets`) {
		t.Errorf("got %v", err)
	}
}

func wantManagers(t *testing.T, obj runtime.Object, want ...string) {
	t.Helper()
	var got []string
	for _, entry := range obj.(metav1.ObjectMetaAccessor).GetObjectMeta().GetManagedFields() {
		got = append(got, fmt.Sprintf("%s %s %s", entry.Manager, entry.Operation, entry.FieldsV1.GetRawBytes()))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("managers (-want +got):\n%s", diff)
	}
}

// Lists are equal where the library finds them so: null is not an empty list, unless neither
// of them is in the JSON.
func TestEqualLists(t *testing.T) {
	slices := func(addresses []string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "s", UID: "u"}, Endpoints: []discoveryv1.Endpoint{{Addresses: addresses}}}
	}
	for name, tc := range map[string]struct {
		was, is []string
		owner   string
	}{
		"the same":         {[]string{"a"}, []string{"a"}, "one"},
		"another":          {[]string{"a"}, []string{"b"}, "two"},
		"null and nothing": {nil, []string{}, "two"},
		"nothing and null": {[]string{}, nil, "two"},
		"null":             {nil, nil, "one"},
	} {
		t.Run(name, func(t *testing.T) {
			m, library := newManager(t, sliceKind, converter), newLibrary(t, sliceKind)
			live := slices(tc.was)
			mustUpdate(t, m, &discoveryv1.EndpointSlice{}, live, "one")
			next, wanted := slices(tc.is), slices(tc.is)
			mustUpdate(t, m, live, next, "two")
			library.update(live.DeepCopy(), wanted, "two")
			if got := next.ManagedFields[len(next.ManagedFields)-1].Manager; got != tc.owner {
				t.Errorf("owned by %s, want %s", got, tc.owner)
			}
			if diff := cmp.Diff(shape(wanted), shape(next)); diff != "" {
				t.Errorf("(-library +ours):\n%s", diff)
			}
		})
	}
}

// Where only times would change, they do not.
func TestTimesAreKept(t *testing.T) {
	m := newManager(t, endpointsKind, converter)
	config := configOf(large(1, "10.0.0.1"))
	if err := unstructured.SetNestedSlice(config.Object, []any{map[string]any{"ports": []any{map[string]any{"port": int64(80)}}}}, "subsets"); err != nil {
		t.Fatal(err)
	}
	first, err := m.Apply(nil, config, "one", false)
	if err != nil {
		t.Fatal(err)
	}
	live := first.(*corev1.Endpoints)
	live.UID = "u"
	then := metav1.Time{Time: time.Unix(1_700_000_000, 0)}
	live.ManagedFields[0].Time = &then
	again, err := m.Apply(live, config, "one", false) // which has no protocol, the object has one
	if err != nil {
		t.Fatal(err)
	}
	next := live.DeepCopy()
	mustUpdate(t, m, live, next, "one")
	for _, obj := range []runtime.Object{again, next} {
		if got := obj.(*corev1.Endpoints).ManagedFields[0].Time; !got.Equal(&then) {
			t.Errorf("the time is %v", got)
		}
	}
}

// For kubectl the whole configuration counts, by the annotation of its applies on the
// client's side.
func TestKubectlsAnnotation(t *testing.T) {
	m := newManager(t, endpointsKind, converter)
	live := large(2, "10.1.0.1")
	live.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"e"},"subsets":[]}`}
	mustUpdate(t, m, &corev1.Endpoints{}, live, "kubectl-client-side-apply")
	next, err := m.Apply(live, configOf(large(2, "10.1.0.2")), "kubectl", true)
	if err != nil {
		t.Fatal(err)
	}
	if got := next.(*corev1.Endpoints).Annotations[corev1.LastAppliedConfigAnnotation]; !strings.Contains(got, "10.1.0.2") || !strings.Contains(got, "node-1") {
		t.Errorf("the annotation is %s", got)
	}
}

func TestApplyRefuses(t *testing.T) {
	m := newManager(t, endpointsKind, converter)
	config := func(kind string, subsets any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"name": "e"}, "subsets": subsets}}
	}
	for name, tc := range map[string]struct {
		config *unstructured.Unstructured
		text   string
	}{
		"an unknown field": {config("Endpoints", []any{map[string]any{"x": "y"}}), `.subsets[0].x: field not declared in schema`},
		"a wrong type":     {config("Endpoints", []any{map[string]any{"addresses": []any{map[string]any{"ip": int64(1)}}}}), `.subsets[0].addresses[0].ip: expected string`},
		"no list":          {config("Endpoints", "x"), ".subsets: expected list"},
		"nothing":          {&unstructured.Unstructured{}, "invalid object type: /, Kind="},
		"another version":  {&unstructured.Unstructured{Object: map[string]any{"apiVersion": "v2", "kind": "Endpoints"}}, "invalid object type: /v2, Kind=Endpoints"},
		"managedFields": {&unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Endpoints", "metadata": map[string]any{
			"name": "e", "managedFields": []any{map[string]any{}},
		}}}, "metadata.managedFields must be nil"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := m.Apply(nil, tc.config, "one", false)
			if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want a BadRequest with %q", err, tc.text)
			}
		})
	}
}

func mustUpdate(t testing.TB, m *ownership.Manager, live, next runtime.Object, manager string) {
	t.Helper()
	if err := m.Update(live, next, manager); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	for _, kind := range []schema.GroupVersionKind{endpointsKind, sliceKind, serviceKind, namespaceKind} {
		if err := newManager(t, kind, converter).Check(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for name, schemas := range map[string]func() (map[string]*spec.Schema, error){
		"no schema": func() (map[string]*spec.Schema, error) { return nil, nil },
		"an error":  func() (map[string]*spec.Schema, error) { return nil, errors.New("no schemas") },
	} {
		m := newManager(t, endpointsKind, ownership.NewTypeConverter(schemas))
		if err := m.Check(); err == nil {
			t.Errorf("%s: a kind without a schema is found well", name)
		}
		if _, err := m.Apply(nil, configOf(large(1, "10.0.0.1")), "one", false); err == nil {
			t.Errorf("%s: a kind without a schema is applied", name)
		}
		next := large(1, "10.0.0.1")
		if err := m.Update(&corev1.Endpoints{}, next, "one"); err != nil || next.ManagedFields != nil {
			t.Errorf("%s: %v, %v", name, next.ManagedFields, err)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("addresses=%d", n), func(b *testing.B) {
			m := newManager(b, endpointsKind, converter)
			live := large(n, "10.1.0.1")
			mustUpdate(b, m, &corev1.Endpoints{}, live, "one")
			live.UID = "u"
			other := large(n, "10.1.0.2")
			for b.Loop() {
				mustUpdate(b, m, live, other.DeepCopy(), "one")
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("addresses=%d", n), func(b *testing.B) {
			m := newManager(b, endpointsKind, converter)
			config := configOf(large(n, "10.1.0.1"))
			live, err := m.Apply(nil, config, "one", false)
			if err != nil {
				b.Fatal(err)
			}
			live.(*corev1.Endpoints).UID = "u"
			for b.Loop() {
				if _, err := m.Apply(live, config, "one", false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
