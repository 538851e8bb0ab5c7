package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/resources/endpoints"
)

// The limit counts the object's JSON, on every way to write, a dry run included.
func TestMaxObjectBytes(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	s := newLimitedStores(t, shared.store, limit)
	ns := s.newNamespace(t)
	annotated := func(name string, n int) *corev1.Endpoints {
		e := newEndpoints(name)
		e.Annotations = map[string]string{"a": strings.Repeat("x", n)}
		return e
	}
	s.create(t, ns, annotated("e", 90_000))
	old := s.get(t, ns, "e")
	for name, write := range map[string]func(dryRun []string) error{
		"create": func(dryRun []string) error {
			_, _, err := s.endpoints.Create(t.Context(), ns, annotated("new", limit), &metav1.CreateOptions{FieldManager: "test", DryRun: dryRun})
			return err
		},
		"update that creates": func(dryRun []string) error {
			_, _, _, err := s.endpoints.Update(t.Context(), ns, "new", "", annotated("new", limit), &metav1.UpdateOptions{FieldManager: "test", DryRun: dryRun})
			return err
		},
		"update": func(dryRun []string) error {
			_, _, _, err := s.endpoints.Update(t.Context(), ns, "e", "", annotated("e", limit), &metav1.UpdateOptions{FieldManager: "test", DryRun: dryRun})
			return err
		},
		"namespace": func(dryRun []string) error {
			obj := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "large-", Annotations: map[string]string{"a": strings.Repeat("x", limit)}}}
			_, _, err := s.namespaces.Create(t.Context(), "", obj, &metav1.CreateOptions{FieldManager: "test", DryRun: dryRun})
			return err
		},
	} {
		for _, dryRun := range [][]string{nil, {metav1.DryRunAll}} {
			t.Run(fmt.Sprint(name, dryRun), func(t *testing.T) {
				status := checkStatus(t, write(dryRun), 413, "bytes as JSON, the limit is 100000")
				if status.Reason != metav1.StatusReasonRequestEntityTooLarge {
					t.Error(status.Reason)
				}
			})
		}
	}
	apply := `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":%q,"annotations":{"b":"` + strings.Repeat("x", limit) + `"}}}`
	for name, tc := range map[string]struct {
		kind          types.PatchType
		object, patch string
	}{
		"merge patch":                  {types.MergePatchType, "e", `{"metadata":{"annotations":{"b":"` + strings.Repeat("x", 10_000) + `"}}}`},
		"merge patch of null":          {types.MergePatchType, "e", `{"metadata":{"annotations":{"c":null,"b":"` + strings.Repeat("x", 10_000) + `"}}}`},
		"strategic patch":              {types.StrategicMergePatchType, "e", `{"metadata":{"annotations":{"c":null,"b":"` + strings.Repeat("x", 10_000) + `"}}}`},
		"JSON patch":                   {types.JSONPatchType, "e", `[{"op":"copy","from":"/metadata/annotations/a","path":"/metadata/annotations/b"}]`},
		"JSON patch of unknown fields": {types.JSONPatchType, "e", `[{"op":"copy","from":"/metadata/annotations/a","path":"/b"}]`},
		"apply":                        {types.ApplyYAMLPatchType, "e", fmt.Sprintf(apply, "e")},
		"apply that creates":           {types.ApplyYAMLPatchType, "new", fmt.Sprintf(apply, "new")},
		"apply in YAML":                {types.ApplyYAMLPatchType, "new", "apiVersion: v1\nkind: Endpoints\nmetadata:\n  name: new\n  annotations: {a: &a " + strings.Repeat("x", limit/4) + ", b: *a, c: *a, d: *a}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := s.patch(t, ns, tc.object, tc.kind, tc.patch, patchOptions())
			checkStatus(t, err, 413, "bytes as JSON, the limit is 100000")
		})
	}
	if got := s.get(t, ns, "e"); got.ResourceVersion != old.ResourceVersion {
		t.Error("the object was changed")
	}
	_, _, err := s.patch(t, ns, "new", types.ApplyYAMLPatchType, "a: &a "+strings.Repeat("x", 1_000_000)+"\nb: ["+strings.Repeat("*a, ", 9)+"]", patchOptions())
	checkStatus(t, err, 413, "the aliases and tags of the YAML")
}

// What is larger than the limit, because that was another one, can still be read, be made
// smaller and be deleted.
func TestObjectsBeyondTheLimit(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	large := manyAddresses("large", 2000)
	large.Finalizers = []string{"example.com/hold"}
	s.create(t, ns, large)

	limited := newLimitedStores(t, shared.store, 100_000)
	got := limited.get(t, ns, "large")
	if list, _, err := limited.endpoints.List(t.Context(), ns, &metav1.ListOptions{}); err != nil || len(typed[*corev1.EndpointsList](t, list).Items) != 1 {
		t.Errorf("listed: %v", err)
	}
	same := got.DeepCopy()
	same.Subsets[0].Addresses[0].IP = "10.0.0.9"
	if same.Subsets[0].Addresses[0].IP == got.Subsets[0].Addresses[0].IP {
		t.Fatal("nothing is changed")
	}
	same.ManagedFields = nil
	limited.update(t, same)
	if _, _, err := limited.patch(t, ns, "large", types.JSONPatchType, `[{"op":"remove","path":"/subsets/0/addresses/0"}]`, patchOptions()); err != nil {
		t.Error(err)
	}
	_, _, err := limited.patch(t, ns, "large", types.JSONPatchType, `[{"op":"copy","from":"/subsets/0/addresses/0","path":"/subsets/0/addresses/-"},{"op":"copy","from":"/subsets/0/addresses/0","path":"/subsets/0/addresses/-"}]`, patchOptions())
	checkStatus(t, err, 413, "the limit is 100000")
	if _, _, err := limited.endpoints.Delete(t.Context(), ns, "large", &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if dying := limited.get(t, ns, "large"); dying.DeletionTimestamp == nil {
		t.Error("it is not marked")
	}
	if _, _, err := limited.patch(t, ns, "large", types.MergePatchType, `{"metadata":{"finalizers":null}}`, patchOptions()); err != nil {
		t.Error(err)
	}
	if kv := stored(t, endpoints.Resource().Key(ns, "large")); kv != nil {
		t.Error("it is still there")
	}
}

// forgetHistory spares the registries that start after a test its large values: each reads
// what happened last. A test that calls it must not be parallel.
func forgetHistory(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		client := shared.db.Client()
		latest, err := client.Get(context.Background(), "/")
		if err == nil {
			_, err = client.Compact(context.Background(), latest.Header.Revision)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// No sequence of writes makes of an object what cannot be read.
func TestWritesStayReadable(t *testing.T) {
	forgetHistory(t)
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	s.create(t, ns, manyAddresses("e", 14_000))
	refused := false
	for range 4 {
		_, _, err := s.patch(t, ns, "e", types.JSONPatchType, `[{"op":"copy","from":"/subsets/0","path":"/subsets/-"}]`, patchOptions())
		if err != nil {
			checkStatus(t, err, 413, "the limit is 8388608")
			refused = true
		}
		if size := len(valueOf(t, s.endpoints, s.get(t, ns, "e"))); size > registry.DefaultMaxObjectBytes+1000 {
			t.Fatalf("%d bytes were accepted", size)
		}
	}
	if !refused {
		t.Error("nothing was refused")
	}
	if list, _, err := s.endpoints.List(t.Context(), ns, &metav1.ListOptions{}); err != nil || len(typed[*corev1.EndpointsList](t, list).Items) != 1 {
		t.Errorf("listed: %v", err)
	}
	if _, _, err := s.endpoints.Delete(t.Context(), ns, "e", &metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// Older servers stored whatever became small enough by compression.
func TestLargeValuesAreRead(t *testing.T) {
	forgetHistory(t)
	s := newStores(t, shared.store)
	value := readValue(t, "endpoints.json")
	value = append(bytes.TrimSuffix(value, []byte("}")), `,"unknown":"`+strings.Repeat("x", 48<<20)+`"}`...)
	packed, err := object.Pack(value)
	if err != nil {
		t.Fatal(err)
	}
	key := endpoints.Resource().Key("golden", "full-endpoints")
	put(t, key, packed)
	defer remove(t, key)
	obj, err := s.endpoints.Get(t.Context(), "golden", "full-endpoints", &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := typed[*corev1.Endpoints](t, obj); got.Name != "full-endpoints" {
		t.Errorf("read %q", got.Name)
	}
}

// What clients could not read, or the server not read again, is refused.
func TestWritesThatCouldNotBeRead(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	fields := func(set string, at time.Time) []metav1.ManagedFieldsEntry {
		return []metav1.ManagedFieldsEntry{{
			Manager: "m", Operation: metav1.ManagedFieldsOperationApply, APIVersion: "v1", Time: &metav1.Time{Time: at},
			FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(set),
		}}
	}
	deep := strings.Repeat(`{"f:a":`, 2000) + "{}" + strings.Repeat("}", 2000)
	for name, tc := range map[string]struct {
		entries []metav1.ManagedFieldsEntry
		text    string
	}{
		"nested too deep":             {fields(deep, time.Unix(0, 0)), "metadata: Invalid value: it could not be read again: it is nested more than 1000 deep"},
		"a time that JSON cannot say": {fields(`{"f:other":{}}`, time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)), "it could not be read again"},
	} {
		t.Run(name, func(t *testing.T) {
			obj := newEndpoints("a")
			obj.ManagedFields = tc.entries
			_, _, err := s.endpoints.Create(t.Context(), ns, obj, createOptions())
			checkStatus(t, err, 422, tc.text)
		})
	}
}
