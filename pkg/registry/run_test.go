package registry_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// inRuns is a list put together of what is derived of its items, and how many parts were
// made for it and how many there are.
func inRuns(t testing.TB, list finishedList) (text string, made, parts int) {
	t.Helper()
	head, _ := list.FinishedItems()
	var items []string
	for part, err := range list.DerivedItems(func(part []byte) []byte { made++; return derive(part) }) {
		if err != nil {
			t.Fatal(err)
		}
		item, ok := strings.CutPrefix(string(part), "of ")
		if !ok {
			t.Fatalf("%.20s was not derived", part)
		}
		items = append(items, "{"+item)
	}
	return string(head) + strings.Join(items, ",") + "]}\n", made, len(items)
}

// finishedList is a list that must succeed, as the server gets it.
func (s *stores) finishedList(t testing.TB, namespace string, opts *metav1.ListOptions) finishedList {
	t.Helper()
	list, _, err := s.endpoints.List(t.Context(), namespace, opts)
	if err != nil {
		t.Fatal(err)
	}
	return list.(finishedList)
}

// What is derived of several objects at a time is the list, and a change makes but little of
// it anew.
func TestRuns(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	var wait sync.WaitGroup
	for i := range 1200 {
		wait.Go(func() {
			obj := newEndpoints(fmt.Sprintf("e%04d", i))
			if i%400 == 7 { // too large for company
				obj.Subsets[0].Addresses = make([]corev1.EndpointAddress, 2000)
				for j := range obj.Subsets[0].Addresses {
					obj.Subsets[0].Addresses[j] = corev1.EndpointAddress{IP: fmt.Sprintf("10.0.%d.%d", j/250, j%250+1), Hostname: "some-host"}
				}
			}
			if _, _, err := s.endpoints.Create(t.Context(), ns, obj, createOptions()); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	check := func(what string, opts *metav1.ListOptions, most func(parts int) int) {
		t.Helper()
		list := s.finishedList(t, ns, opts)
		got, made, parts := inRuns(t, list)
		if want := assembled(t, list); got != want {
			t.Errorf("%s: got %d bytes, want %d", what, len(got), len(want))
		}
		if made > most(parts) {
			t.Errorf("%s: %d of %d parts were made", what, made, parts)
		}
	}
	all := &metav1.ListOptions{}
	// An insertion moves the borders behind it, but hardly ever all the way.
	some := func(parts int) int { return parts / 2 }
	exactly := func(n int) func(int) int { return func(int) int { return n } }
	check("first", all, func(parts int) int { return min(parts, 200) })
	check("again", all, exactly(0))
	change := func(name string) {
		t.Helper()
		if _, _, err := s.patch(t, ns, name, types.MergePatchType, `{"metadata":{"labels":{"a":"b"}}}`, patchOptions()); err != nil {
			t.Fatal(err)
		}
	}
	change("e0600")
	check("after a change", all, some)
	s.create(t, ns, newEndpoints("a"))
	check("after one more at the beginning", all, some)
	if _, err := s.endpoints.Delete(t.Context(), ns, "e0001", &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	check("after one less", all, some)
	check("page", &metav1.ListOptions{Limit: 333}, exactly(1))
	check("selected", &metav1.ListOptions{LabelSelector: "a=b"}, exactly(1))
	check("selected again", &metav1.ListOptions{LabelSelector: "a=b"}, exactly(0))
	check("all again", all, exactly(1))
	next := typed[*corev1.EndpointsList](t, s.finishedList(t, ns, &metav1.ListOptions{Limit: 333}).(runtime.Object)).Continue
	check("next page", &metav1.ListOptions{Limit: 333, Continue: next}, func(parts int) int { return parts })
}

// A list that ends where another goes on leaves no short runs behind.
func TestRunsStayLong(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	for i := range 200 {
		s.create(t, ns, newEndpoints(fmt.Sprintf("e%03d", i)))
		inRuns(t, s.finishedList(t, ns, &metav1.ListOptions{}))
	}
	_, _, parts := inRuns(t, s.finishedList(t, ns, &metav1.ListOptions{}))
	if parts > 60 {
		t.Errorf("%d parts of 200 objects", parts)
	}
}

// Lists at the same time, of states that differ, get each their own.
func TestRunsOfManyLists(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	names := s.createNumbered(t, ns, 40)
	var wait sync.WaitGroup
	for i := range 6 {
		wait.Go(func() {
			for _, name := range names {
				if i == 0 {
					if _, _, err := s.patch(t, ns, name, types.MergePatchType, `{"metadata":{"labels":{"a":"b"}}}`, patchOptions()); err != nil {
						t.Error(err)
					}
					continue
				}
				list := s.finishedList(t, ns, &metav1.ListOptions{ResourceVersion: "0", Limit: int64(i % 3 * 17)})
				if got, _, _ := inRuns(t, list); got != assembled(t, list) {
					t.Error("the list in runs is another one")
				}
			}
		})
	}
	wait.Wait()
}

// A run goes on where an object between two others cannot be read.
func TestRunsWithoutABrokenObject(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	for _, name := range []string{"a", "b", "d"} {
		s.create(t, ns, newEndpoints(name))
	}
	put(t, s.endpoints.Key(ns, "c"), []byte("{"))
	list := s.finishedList(t, ns, &metav1.ListOptions{})
	got, _, _ := inRuns(t, list)
	if got != assembled(t, list) || !strings.Contains(got, `"b"`) || strings.Contains(got, `"c"`) || !strings.Contains(got, `"d"`) {
		t.Errorf("got %s, want a, b and d", got)
	}
}
