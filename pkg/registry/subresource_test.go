package registry_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/resources/endpoints"
	"github.com/berth-project/berth/pkg/registry/resources/namespaces"
)

// managers are who owns something of an object by a subresource.
func managers(ns *corev1.Namespace) []string {
	var out []string
	for _, entry := range ns.ManagedFields {
		if entry.Subresource == "" {
			continue
		}
		out = append(out, entry.Manager+"/"+entry.Subresource+" "+entry.FieldsV1.GetRawString())
	}
	return out
}

// A status is written by its subresource alone, and its owners are those of the subresource.
func TestStatusOfANamespace(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	name := s.newNamespace(t)
	condition := func(kind string) string {
		return `"conditions":[{"type":"` + kind + `","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]`
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	ns.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive, Conditions: []corev1.NamespaceCondition{{Type: "Ready", Status: "True"}}}
	ns.Spec.Finalizers = []corev1.FinalizerName{"example.com/ignored"}
	updated, created, _, err := s.namespaces.Update(t.Context(), "", name, "status", ns.DeepCopy(), &metav1.UpdateOptions{FieldManager: "one"})
	if err != nil || created {
		t.Fatal(created, err)
	}
	got := typed[*corev1.Namespace](t, updated)
	if len(got.Status.Conditions) != 1 || !cmp.Equal(got.Spec.Finalizers, []corev1.FinalizerName{corev1.FinalizerKubernetes}) {
		t.Errorf("updated to %+v, %+v", got.Spec, got.Status)
	}
	want := []string{`one/status {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Ready\"}":{".":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}}}}}`}
	if diff := cmp.Diff(want, managers(got)); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
	for _, step := range []struct {
		kind        types.PatchType
		subresource string
		patch       string
		conditions  int
	}{
		{types.StrategicMergePatchType, "status", `{"status":{` + condition("Quota") + `}}`, 2},
		{types.ApplyYAMLPatchType, "status", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + name + `"},"status":{` + condition("Applied") + `}}`, 3},
		{types.MergePatchType, "", `{"status":{"conditions":null}}`, 3},
		{types.MergePatchType, "status", `{"status":{"conditions":null}}`, 0},
	} {
		obj, _, err := patched(t.Context(), s.namespaces, "", name, step.subresource, step.kind, []byte(step.patch), as("two", true))
		if err != nil {
			t.Fatalf("%s: %v", step.patch, err)
		}
		if got := typed[*corev1.Namespace](t, obj); len(got.Status.Conditions) != step.conditions {
			t.Errorf("%s: %d conditions, want %d", step.patch, len(got.Status.Conditions), step.conditions)
		}
	}
	ns.Status.Phase = corev1.NamespaceTerminating
	_, _, _, err = s.namespaces.Update(t.Context(), "", name, "status", ns.DeepCopy(), updateOptions())
	checkStatus(t, err, 422, "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty")
	ns.Name = name + "-none"
	_, _, _, err = s.namespaces.Update(t.Context(), "", ns.Name, "status", ns.DeepCopy(), updateOptions())
	checkStatus(t, err, 404, "not found")
	_, _, err = patched(t.Context(), s.namespaces, "", ns.Name, "status", types.ApplyYAMLPatchType, []byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"`+ns.Name+`"}}`), as("two", true))
	checkStatus(t, err, 404, "not found")
	if _, _, _, err := s.namespaces.Update(t.Context(), "", name, "scale", ns.DeepCopy(), updateOptions()); err == nil {
		t.Error("a subresource was updated that there is not")
	}
}

// The finalizers of spec are written by their subresource, and hold the namespace.
func TestFinalizersOfANamespace(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	name := s.newNamespace(t)
	finalize := func(finalizers ...corev1.FinalizerName) (*corev1.Namespace, error) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NamespaceSpec{Finalizers: finalizers}}
		updated, _, _, err := s.namespaces.Update(t.Context(), "", name, "finalize", ns, &metav1.UpdateOptions{FieldManager: "fin"})
		if err != nil {
			return nil, err
		}
		return typed[*corev1.Namespace](t, updated), nil
	}
	_, err := finalize("Not A Name")
	checkStatus(t, err, 422, "spec.finalizers[0]: Invalid value")
	held, err := finalize(corev1.FinalizerKubernetes, "example.com/x")
	if err != nil {
		t.Fatal(err)
	}
	if owners := managers(held); len(owners) != 1 || owners[0] != `fin/finalize {"f:spec":{"f:finalizers":{}}}` || held.Status.Phase != corev1.NamespaceActive {
		t.Errorf("owners %q, %v", owners, held.Status)
	}
	s.create(t, name, newEndpoints("a"))
	if _, _, err := s.namespaces.Delete(t.Context(), "", name, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of what is in it", func() bool { return stored(t, s.endpoints.Key(name, "a")) == nil })
	if stored(t, s.namespaces.Key("", name)) == nil {
		t.Fatal("it was deleted in spite of its finalizer")
	}
	if _, err := finalize(corev1.FinalizerKubernetes); err != nil {
		t.Fatal(err)
	}
	waitGone(t, s, name)
}

// newStoreOf returns the store of Endpoints that change describes differently.
func newStoreOf(t *testing.T, change func(*registry.Resource)) *registry.Store {
	t.Helper()
	resource := endpoints.Resource()
	change(resource)
	r, err := registry.New(registry.Config{
		Storage: shared.store, Scheme: shared.scheme, TypeConverter: shared.converter,
		Resources: []*registry.Resource{namespaces.Resource(), resource},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if err := r.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r.Stores()[1]
}

func TestRequiredVersion(t *testing.T) {
	t.Parallel()
	s := newStoreOf(t, func(r *registry.Resource) { r.RequireVersion = true })
	ns := newStores(t, shared.store).newNamespace(t)
	update := func(version string) (created bool, err error) {
		obj := newEndpoints("a")
		obj.ResourceVersion = version
		obj.Labels = map[string]string{"version": version}
		_, created, _, err = s.Update(t.Context(), ns, "a", "", obj, updateOptions())
		return created, err
	}
	if created, err := update(""); !created || err != nil {
		t.Fatalf("created is %v, %v", created, err)
	}
	for _, version := range []string{"", "0"} {
		_, err := update(version)
		checkStatus(t, err, 422, `endpoints "a" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update`)
	}
	if created, err := update(revision(stored(t, s.Key(ns, "a")))); created || err != nil {
		t.Errorf("created is %v, %v", created, err)
	}
	if _, _, err := patched(t.Context(), s, ns, "a", "", types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), patchOptions()); err != nil {
		t.Error(err)
	}
}

func TestNoCreateOnUpdate(t *testing.T) {
	t.Parallel()
	s := newStoreOf(t, func(r *registry.Resource) { r.NoCreateOnUpdate = true })
	ns := newStores(t, shared.store).newNamespace(t)
	for _, dryRun := range [][]string{nil, {metav1.DryRunAll}} {
		_, _, _, err := s.Update(t.Context(), ns, "a", "", newEndpoints("a"), &metav1.UpdateOptions{FieldManager: "test", DryRun: dryRun})
		checkStatus(t, err, 404, `endpoints "a" not found`)
	}
	_, created, err := patched(t.Context(), s, ns, "a", "", types.ApplyYAMLPatchType, []byte(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"a"}}`), as("test", false))
	if !created || err != nil {
		t.Errorf("created is %v, %v", created, err)
	}
}
