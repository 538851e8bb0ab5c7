package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/storage"
)

// putNamespace stores a namespace as another process would.
func putNamespace(t *testing.T, s *stores, ns *corev1.Namespace) {
	t.Helper()
	ns.TypeMeta = metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"}
	value := valueOf(t, s.namespaces, ns)
	put(t, s.namespaces.Key("", ns.Name), value)
}

// dyingNamespace is a namespace that is being deleted and that something holds.
func dyingNamespace(name string) *corev1.Namespace {
	now := metav1.Now()
	return &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: "dying", DeletionTimestamp: &now, Finalizers: []string{"example.com/hold"}},
		Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating},
	}
}

// What a registry remembers of a namespace turns out to be stale.
func TestNamespaceChangesBehindTheRegistry(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(t *testing.T, s *stores, ns string)
		code    int32 // 0: created
		message string
	}{
		"deleted and made again": {func(t *testing.T, s *stores, ns string) {
			remove(t, s.namespaces.Key("", ns))
			putNamespace(t, s, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, UID: "second"}})
		}, 0, ""},
		"changed": {func(t *testing.T, s *stores, ns string) {
			putNamespace(t, s, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, UID: "first", Labels: map[string]string{"a": "b"}}})
		}, 0, ""},
		"deleted": {func(t *testing.T, s *stores, ns string) {
			remove(t, s.namespaces.Key("", ns))
		}, 404, `namespaces "%s" not found`},
		"being deleted": {func(t *testing.T, s *stores, ns string) {
			putNamespace(t, s, dyingNamespace(ns))
		}, 403, `endpoints "b" is forbidden: unable to create new content in namespace %s because it is being terminated`},
		"terminating by its phase alone": {func(t *testing.T, s *stores, ns string) {
			putNamespace(t, s, &corev1.Namespace{
				ObjectMeta: metav1.ObjectMeta{Name: ns}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating},
			})
		}, 403, "because it is being terminated"},
	} {
		for _, opts := range []*metav1.CreateOptions{createOptions(), dryRun()} {
			t.Run(fmt.Sprintf("%s dryRun=%v", name, opts.DryRun), func(t *testing.T) {
				s := newStores(t, shared.store)
				ns := s.newNamespace(t)
				s.create(t, ns, newEndpoints("a")) // so that the namespace is known
				tc.change(t, s, ns)
				_, _, err := s.endpoints.Create(t.Context(), ns, newEndpoints("b"), opts)
				if tc.code == 0 {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				message := tc.message
				if tc.code == 404 || name == "being deleted" {
					message = fmt.Sprintf(message, ns)
				}
				status := checkStatus(t, err, tc.code, message)
				if tc.code == 403 && (len(status.Details.Causes) != 1 || status.Details.Causes[0].Type != corev1.NamespaceTerminatingCause) {
					t.Errorf("causes %v", status.Details.Causes)
				}
				if kv := stored(t, s.endpoints.Key(ns, "b")); kv != nil {
					t.Errorf("stored all the same: %s", kv.Value)
				}
			})
		}
	}
}

func TestNamespaceComesBack(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	s.create(t, ns, newEndpoints("a"))
	remove(t, s.namespaces.Key("", ns))
	for range 2 { // what was looked up is remembered, and must not be
		_, _, err := s.endpoints.Create(t.Context(), ns, newEndpoints("b"), createOptions())
		checkStatus(t, err, 404, "not found")
	}
	putNamespace(t, s, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, UID: "second"}})
	s.create(t, ns, newEndpoints("b"))
	putNamespace(t, s, dyingNamespace(ns))
	for range 2 { // nor that it is on its way
		_, _, err := s.endpoints.Create(t.Context(), ns, newEndpoints("c"), createOptions())
		checkStatus(t, err, 403, "is being terminated")
	}
	putNamespace(t, s, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, UID: "third"}})
	s.create(t, ns, newEndpoints("c"))
}

// Creates race with the deletion of their namespace, over two registries as two servers
// have them: whatever wins, nothing is left in a namespace that is gone.
func TestCreateAgainstNamespaceDeletion(t *testing.T) {
	t.Parallel()
	one, two := newStores(t, shared.store), newStores(t, shared.store)
	for range 20 {
		ns := one.newNamespace(t)
		two.create(t, ns, newEndpoints("first"))
		var creators sync.WaitGroup
		var running atomic.Int64
		start := make(chan struct{})
		for i := range 4 {
			creators.Go(func() {
				<-start
				s := []*stores{one, two}[i%2]
				for n := range 2000 {
					_, _, err := s.endpoints.Create(t.Context(), ns, newEndpoints(fmt.Sprintf("e-%d-%d", i, n)), createOptions())
					running.Add(1)
					if err != nil {
						if !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
							t.Errorf("creating: %v", err)
						}
						return
					}
				}
				t.Error("creates go on in a namespace that is being deleted")
			})
		}
		close(start)
		eventually(t, "creates", func() bool { return running.Load() > 4 })
		if _, _, err := one.namespaces.Delete(t.Context(), "", ns, &metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		creators.Wait()
		waitGone(t, one, ns)
		rest, err := shared.store.List(t.Context(), one.endpoints.Prefix(ns), storage.ListOptions{})
		if err != nil || len(rest.KVs) > 0 {
			t.Fatalf("%d objects are left in a namespace that is gone, %v", len(rest.KVs), err)
		}
	}
}

func waitGone(t *testing.T, s *stores, ns string) {
	t.Helper()
	eventually(t, "the end of namespace "+ns, func() bool { return stored(t, s.namespaces.Key("", ns)) == nil })
}

// fill stores n objects in the namespace.
func fill(t *testing.T, s *stores, ns string, n int) {
	t.Helper()
	obj := s.create(t, ns, newEndpoints("e-0"))
	obj.ResourceVersion = ""
	for i := 1; i < n; i++ {
		obj.Name = fmt.Sprintf("e-%d", i)
		value := valueOf(t, s.endpoints, obj)
		put(t, s.endpoints.Key(ns, obj.Name), value)
	}
}

func TestDeletedNamespaceIsEmptied(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns, neighbour := s.newNamespace(t), s.newNamespace(t)
	fill(t, s, ns, 20)
	s.create(t, neighbour, newEndpoints("stays"))
	obj, _, err := s.namespaces.Delete(t.Context(), "", ns, &metav1.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := typed[*corev1.Namespace](t, obj); got.DeletionTimestamp == nil || got.DeletionGracePeriodSeconds != nil || got.Status.Phase != corev1.NamespaceTerminating {
		t.Errorf("the answer says nothing of the deletion: %v", got)
	}
	waitGone(t, s, ns)
	rest, err := shared.store.List(t.Context(), s.endpoints.Prefix(ns), storage.ListOptions{})
	if err != nil || len(rest.KVs) > 0 {
		t.Errorf("%d objects are left, %v", len(rest.KVs), err)
	}
	if stored(t, s.endpoints.Key(neighbour, "stays")) == nil {
		t.Error("an object of another namespace is gone")
	}
}

// A process ends while it empties a namespace; the next one goes on.
func TestTerminationIsTakenUp(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken on the way")
	var left atomic.Int64
	left.Store(10)
	f := &faulty{Interface: shared.store}
	f.delete = func(ctx context.Context, key string, opts storage.DeleteOptions) (storage.WriteResponse, error) {
		if left.Add(-1) < 0 {
			return storage.WriteResponse{}, broken
		}
		return shared.store.Delete(ctx, key, opts)
	}
	first := newStores(t, f)
	ns := first.newNamespace(t)
	fill(t, first, ns, 30)
	if _, _, err := first.namespaces.Delete(t.Context(), "", ns, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for reported := false; !reported; {
		select {
		case err := <-first.failures:
			reported = errors.Is(err, broken)
		case <-time.After(30 * time.Second):
			t.Fatal("the failure was not reported")
		}
	}
	first.stop()
	if stored(t, first.namespaces.Key("", ns)) == nil {
		t.Fatal("the namespace is gone before it is empty")
	}
	waitGone(t, newStores(t, shared.store), ns)
	rest, err := shared.store.List(t.Context(), first.endpoints.Prefix(ns), storage.ListOptions{})
	if err != nil || len(rest.KVs) > 0 {
		t.Errorf("%d objects are left, %v", len(rest.KVs), err)
	}
}

// No finalizer that waits for dependents holds a namespace: nobody would take it away.
func TestNamespacesWithDependentsFinalizers(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	for _, finalizer := range []string{metav1.FinalizerDeleteDependents, metav1.FinalizerOrphanDependents} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Finalizers: []string{finalizer}}}
		obj, _, err := s.namespaces.Create(t.Context(), "", ns, createOptions())
		if err != nil {
			t.Fatal(err)
		}
		name := typed[*corev1.Namespace](t, obj).Name
		if _, _, err := s.namespaces.Delete(t.Context(), "", name, &metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		waitGone(t, s, name)
	}
}

// A finalizer holds an object, and so its namespace, until it is taken away.
func TestFinalizerHoldsTheNamespace(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	held := newEndpoints("held")
	held.Finalizers = []string{"example.com/hold"}
	s.create(t, ns, held)
	s.create(t, ns, newEndpoints("free"))
	if _, _, err := s.namespaces.Delete(t.Context(), "", ns, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the free object", func() bool { return stored(t, s.endpoints.Key(ns, "free")) == nil })
	obj, err := s.endpoints.Get(t.Context(), ns, "held", &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the mark on the held object", func() bool {
		obj, err = s.endpoints.Get(t.Context(), ns, "held", &metav1.GetOptions{})
		return err == nil && typed[*corev1.Endpoints](t, obj).DeletionTimestamp != nil
	})
	if stored(t, s.namespaces.Key("", ns)) == nil {
		t.Fatal("the namespace is gone before its object")
	}
	freed := typed[*corev1.Endpoints](t, obj)
	freed.Finalizers, freed.ResourceVersion = nil, ""
	value := valueOf(t, s.endpoints, freed)
	put(t, s.endpoints.Key(ns, "held"), value)
	waitGone(t, s, ns)
}

// The conditions of a namespace that is still there say what holds it, and do not change while
// that stays the same.
func TestConditionsOfATerminatingNamespace(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	for name, finalizers := range map[string][]string{"a": {"example.com/x"}, "b": {"example.com/x", "example.com/y"}, "free": nil} {
		obj := newEndpoints(name)
		obj.Finalizers = finalizers
		s.create(t, ns, obj)
	}
	if _, _, err := s.namespaces.Delete(t.Context(), "", ns, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	current := func() *corev1.Namespace {
		obj, err := s.namespaces.Get(t.Context(), "", ns, &metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return typed[*corev1.Namespace](t, obj)
	}
	want := []corev1.NamespaceCondition{
		{Type: "NamespaceDeletionDiscoveryFailure", Status: "False", Reason: "ResourcesDiscovered", Message: "All resources successfully discovered"},
		{Type: "NamespaceDeletionGroupVersionParsingFailure", Status: "False", Reason: "ParsedGroupVersions", Message: "All legacy kube types successfully parsed"},
		{Type: "NamespaceDeletionContentFailure", Status: "False", Reason: "ContentDeleted", Message: "All content successfully deleted, may be waiting on finalization"},
		{Type: "NamespaceContentRemaining", Status: "True", Reason: "SomeResourcesRemain", Message: "Some resources are remaining: endpoints. has 2 resource instances"},
		{Type: "NamespaceFinalizersRemaining", Status: "True", Reason: "SomeFinalizersRemain", Message: "Some content in the namespace has finalizers remaining: example.com/x in 2 resource instances, example.com/y in 1 resource instances"},
	}
	eventually(t, "conditions", func() bool { return len(current().Status.Conditions) == len(want) })
	before := current()
	got := before.DeepCopy().Status.Conditions
	for i := range got {
		if got[i].LastTransitionTime.IsZero() {
			t.Errorf("%s has no time", got[i].Type)
		}
		got[i].LastTransitionTime = metav1.Time{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	release := func(name string) {
		patch := []byte(`{"metadata":{"finalizers":null}}`)
		if _, _, err := patched(t.Context(), s.endpoints, ns, name, "", types.MergePatchType, patch, &metav1.PatchOptions{FieldManager: "two"}); err != nil {
			t.Fatal(err)
		}
	}
	release("b")
	eventually(t, "news", func() bool { return current().ResourceVersion != before.ResourceVersion })
	after := current()
	if after.Status.Conditions[3].Message != "Some resources are remaining: endpoints. has 1 resource instances" ||
		after.Status.Conditions[3].LastTransitionTime != before.Status.Conditions[3].LastTransitionTime {
		t.Errorf("got %+v", after.Status.Conditions[3])
	}
	release("a")
	waitGone(t, s, ns)
}
