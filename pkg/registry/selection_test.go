package registry_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/berth-project/berth/pkg/registry"
)

// newNamed makes a namespace of that name with a label.
func (s *stores) newNamed(t testing.TB, name, label string) *corev1.Namespace {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"find": label}}}
	created, _, err := s.namespaces.Create(t.Context(), "", ns, createOptions())
	if err != nil {
		t.Fatal(err)
	}
	return typed[*corev1.Namespace](t, created)
}

// What a field selector may name is the resource's, and so are the words for what it may not.
func TestFieldSelectors(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	base := s.newNamespace(t)
	s.newNamed(t, base+"-f", base)
	held := s.newNamed(t, base+"-g", base)
	begin := held.ResourceVersion
	held.Finalizers = []string{"example.com/hold"}
	if _, _, _, err := s.namespaces.Update(t.Context(), "", held.Name, "", held, updateOptions()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.namespaces.Delete(t.Context(), "", held.Name, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for selector, want := range map[string][]string{
		"status.phase=Active":                              {"-f"},
		"status.phase=Terminating":                         {"-g"},
		"status.phase!=Active":                             {"-g"},
		"status.phase=Active,metadata.name=" + base + "-f": {"-f"},
		"status.phase=Active,name=" + base + "-g":          nil,
		"name!=" + base + "-f":                             {"-g"},
		"status.phase=":                                    nil,
	} {
		list, _, err := s.namespaces.List(t.Context(), "", &metav1.ListOptions{FieldSelector: selector, LabelSelector: "find=" + base})
		if err != nil {
			t.Fatalf("%s: %v", selector, err)
		}
		var got []string
		for _, o := range list.Objects {
			got = append(got, o.Name[len(base):])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", selector, got, want)
		}
	}
	// What leaves the phase is deleted for those who watch it.
	w := startWatch(t, s.namespaces, "", &metav1.ListOptions{ResourceVersion: begin, FieldSelector: "status.phase=Active,metadata.name=" + held.Name})
	for _, want := range []string{"MODIFIED", "DELETED"} {
		event, err := w.next(t)
		if err != nil || string(event.Type) != want || typed[*corev1.Namespace](t, event.Object).Status.Phase != corev1.NamespaceActive {
			t.Errorf("got %v, %v, want %s", event.Type, err, want)
		}
	}
	for _, tc := range []struct {
		store          *registry.Store
		selector, text string
	}{
		{s.endpoints, "status.phase=Active", `"status.phase" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		{s.endpoints, "name=a", `"name" is not a known field selector`},
		{s.namespaces, "metadata.namespace=a", "field label not supported: metadata.namespace"},
		{s.namespaces, "spec.finalizers=a", "field label not supported: spec.finalizers"},
	} {
		_, _, err := tc.store.List(t.Context(), "", &metav1.ListOptions{FieldSelector: tc.selector})
		checkStatus(t, err, 400, tc.text)
		_, _, err = tc.store.Watch(t.Context(), "", &metav1.ListOptions{FieldSelector: tc.selector})
		checkStatus(t, err, 400, tc.text)
	}
}

// A list warns only of values that may be of what it selects.
func TestWarningsBySelector(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	key := s.endpoints.Key(ns, "broken")
	put(t, key, []byte("{"))
	defer remove(t, key)
	for selector, want := range map[string]int{
		"": 1, "metadata.name=broken": 1, "metadata.name!=other": 1, "metadata.name=other": 0, "metadata.name!=broken": 0, "metadata.namespace=other": 0,
	} {
		_, warnings, err := s.endpoints.List(t.Context(), ns, &metav1.ListOptions{FieldSelector: selector})
		if err != nil || len(warnings) != want {
			t.Errorf("%q: %q, %v", selector, warnings, err)
		}
	}
}

// Selecting costs no memory, however many objects there are.
func TestSelectingAllocatesNothing(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	s.create(t, ns, labelled("a", "x"))
	o, err := s.endpoints.Get(t.Context(), ns, "a", &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"app=y", "app!=y", "!app", "app in (a,b)"} {
		selector, err := labels.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { selector.Matches(o.Labels()) }); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

// BenchmarkSelector lists 5,000 objects of which the selector leaves all out.
func BenchmarkSelector(b *testing.B) {
	s := newStores(b, shared.store)
	ns := s.newNamespace(b)
	for i := range 5000 {
		key := s.endpoints.Key(ns, fmt.Sprintf("e-%04d", i))
		value := canonicalHead + fmt.Sprintf(`"name":"e-%04d","namespace":%q,"uid":"u","labels":{"app":"web","tier":"x","rev":"%d"}}}`, i, ns, i)
		put(b, key, []byte(value))
	}
	for _, selector := range []string{"app=other", "app=web", "!app"} {
		b.Run(selector, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := s.endpoints.List(b.Context(), ns, &metav1.ListOptions{LabelSelector: selector, ResourceVersion: "0"}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A selector costs those who change objects, too: it may not be of any size.
func TestSelectorsAreBounded(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	many := func(format string, n int, separator string) string {
		var terms []string
		for i := range n {
			terms = append(terms, fmt.Sprintf(format, i))
		}
		return strings.Join(terms, separator)
	}
	for name, tc := range map[string]struct {
		opts metav1.ListOptions
		want string // "": it is accepted
	}{
		"as many labels as there may be": {metav1.ListOptions{LabelSelector: many("a%d", 100, ",")}, ""},
		"a label more":                   {metav1.ListOptions{LabelSelector: many("a%d", 101, ",")}, "the label selector has more than 100 requirements, or more than 500 values"},
		"as many values as there may be": {metav1.ListOptions{LabelSelector: "a in (" + many("v%d", 500, ",") + ")"}, ""},
		"values of several labels":       {metav1.ListOptions{LabelSelector: "b=c,a notin (" + many("v%d", 500, ",") + ")"}, "the label selector has more than 100 requirements, or more than 500 values"},
		"as many fields as there may be": {metav1.ListOptions{FieldSelector: many("metadata.name!=a%d", 100, ",")}, ""},
		"labels by the thousand":         {metav1.ListOptions{LabelSelector: many("a%d", 5000, ",")}, "the label selector has more than 100 requirements, or more than 500 values"},
		"fields by the thousand":         {metav1.ListOptions{FieldSelector: many("metadata.name!=a%d", 2000, ",")}, "the field selector has more than 100 requirements"},
		"a field more":                   {metav1.ListOptions{FieldSelector: many("metadata.name!=a%d", 101, ",")}, "the field selector has more than 100 requirements"},
	} {
		_, _, listErr := s.endpoints.List(t.Context(), "nowhere", &tc.opts)
		ctx, cancel := context.WithCancel(t.Context())
		events, _, watchErr := s.endpoints.Watch(ctx, "nowhere", &tc.opts)
		cancel()
		if watchErr == nil {
			for range events { // they end with the context
			}
		}
		for _, err := range []error{listErr, watchErr} {
			if tc.want != "" {
				checkStatus(t, err, 400, tc.want)
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A list tells what it took to find its objects, which is more than what it found.
func TestComparisons(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	names := s.createNumbered(t, ns, 3)
	for _, tc := range []struct {
		opts metav1.ListOptions
		want int
	}{
		{metav1.ListOptions{}, 0},
		{metav1.ListOptions{LabelSelector: "nobody=has,these=labels"}, 6},
		{metav1.ListOptions{LabelSelector: "a in (1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20)"}, 9},
		{metav1.ListOptions{LabelSelector: "!x", FieldSelector: "metadata.name!=" + names[1]}, 6},
		{metav1.ListOptions{FieldSelector: "metadata.name=" + names[1]}, 1},
	} {
		list, _, err := s.endpoints.List(t.Context(), ns, &tc.opts)
		if err != nil || list.Comparisons != tc.want {
			t.Errorf("%+v: %d comparisons, %v, want %d", tc.opts, list.Comparisons, err, tc.want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		events, cost, err := s.endpoints.Watch(ctx, ns, &tc.opts)
		if err != nil || cost.Comparisons != tc.want {
			t.Errorf("a watch of %+v: %+v, %v, want %d", tc.opts, cost, err, tc.want)
		}
		cancel()
		for _, err := range events {
			if err != nil {
				t.Error(err)
			}
		}
	}
}
