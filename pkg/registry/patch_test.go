package registry_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/storage"
)

func (s *stores) update(t testing.TB, obj *corev1.Endpoints) *corev1.Endpoints {
	t.Helper()
	updated, _, _, err := s.endpoints.Update(t.Context(), obj.Namespace, obj.Name, "", obj.DeepCopy(), &metav1.UpdateOptions{FieldManager: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return typed[*corev1.Endpoints](t, updated)
}

// patch patches, as the manager, and returns the object and whether it was created.
func (s *stores) patch(t testing.TB, namespace, name string, kind types.PatchType, patch string, opts *metav1.PatchOptions) (*corev1.Endpoints, bool, error) {
	t.Helper()
	obj, created, err := patched(t.Context(), s.endpoints, namespace, name, "", kind, []byte(patch), opts)
	if err != nil {
		return nil, created, err
	}
	return typed[*corev1.Endpoints](t, obj), created, nil
}

func patchOptions() *metav1.PatchOptions { return &metav1.PatchOptions{FieldManager: "test"} }

func as(manager string, force bool) *metav1.PatchOptions {
	return &metav1.PatchOptions{FieldManager: manager, Force: &force}
}

// Fifty clients who each patch a field of their own lose nothing, whatever the patch.
func TestFiftyPatchesLoseNothing(t *testing.T) {
	t.Parallel()
	servers := []*stores{newStores(t, shared.store), newStores(t, shared.store)}
	ns := servers[0].newNamespace(t)
	obj := newEndpoints("a")
	obj.Annotations = map[string]string{"first": "1"}
	servers[0].create(t, ns, obj)
	want := map[string]string{"first": "1"}
	forms := []struct {
		kind types.PatchType
		form string
	}{
		{types.MergePatchType, `{"metadata":{"annotations":{"w%d":"1"}}}`},
		{types.StrategicMergePatchType, `{"metadata":{"annotations":{"w%d":"1"}}}`},
		{types.JSONPatchType, `[{"op":"add","path":"/metadata/annotations/w%d","value":"1"}]`},
		{types.ApplyYAMLPatchType, `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"a","annotations":{"w%d":"1"}}}`},
	}
	var writers sync.WaitGroup
	for i := range 50 {
		want[fmt.Sprintf("w%d", i)] = "1"
		writers.Go(func() {
			form := forms[i%len(forms)]
			if _, _, err := servers[i%2].patch(t, ns, "a", form.kind, fmt.Sprintf(form.form, i), as(fmt.Sprintf("m%d", i), false)); err != nil {
				t.Errorf("%s: %v", form.kind, err)
			}
		})
	}
	writers.Wait()
	if diff := cmp.Diff(want, servers[1].get(t, ns, "a").Annotations); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Of many who apply an object that is not there, one creates it and the rest own a part.
func TestApplyCreatesOnce(t *testing.T) {
	t.Parallel()
	servers := []*stores{newStores(t, shared.store), newStores(t, shared.store)}
	ns := servers[0].newNamespace(t)
	var created atomic.Int64
	var writers sync.WaitGroup
	want := map[string]string{}
	for i := range 12 {
		want[fmt.Sprintf("w%d", i)] = "1"
		writers.Go(func() {
			_, made, err := servers[i%2].patch(t, ns, "a", types.ApplyYAMLPatchType, fmt.Sprintf("apiVersion: v1\nkind: Endpoints\nmetadata:\n  name: a\n  labels: {w%d: \"1\"}\n", i), as(fmt.Sprintf("m%d", i), false))
			if err != nil {
				t.Error(err)
			}
			if made {
				created.Add(1)
			}
		})
	}
	writers.Wait()
	got := servers[0].get(t, ns, "a")
	if diff := cmp.Diff(want, got.Labels); diff != "" || created.Load() != 1 || len(got.ManagedFields) != 12 {
		t.Errorf("%d created, %d managers (-want +got):\n%s", created.Load(), len(got.ManagedFields), diff)
	}
}

// A manager's field is another's only by force; what the owners agree on is shared, and
// what the last of them gives up is gone.
func TestApplyOwnership(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	object := func(fields string) string {
		return `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"a"` + fields + `}`
	}
	subsets := func(ip string) string {
		return object("}")[:len(object("}"))-1] + `,"subsets":[{"addresses":[{"ip":"` + ip + `"}],"ports":[{"port":80}]}]}`
	}
	label := func(value string) string { return object(`,"labels":{"app":"` + value + `"}}`) }
	for i, step := range []struct {
		manager, patch string
		force          bool
		conflict       string // with whom; "": none
		app, ip        string // afterwards
	}{
		{"one", label("x"), false, "", "x", ""},
		{"two", label("y"), false, `conflict with "one"`, "x", ""},
		{"two", label("x"), false, "", "x", ""},
		{"one", object("}"), false, "", "x", ""}, // two still owns it
		{"two", label("y"), false, "", "y", ""},
		{"one", label("z"), true, "", "z", ""},
		{"two", subsets("10.0.0.1"), false, "", "z", "10.0.0.1"},
		{"one", subsets("10.0.0.2"), false, `conflict with "two"`, "z", "10.0.0.1"},
		{"one", subsets("10.0.0.2"), true, "", "", "10.0.0.2"},
		{"two", object("}"), false, "", "", "10.0.0.2"},
		{"one", object("}"), false, "", "", ""},
	} {
		got, _, err := s.patch(t, ns, "a", types.ApplyYAMLPatchType, step.patch, as(step.manager, step.force))
		if step.conflict != "" {
			if status := checkStatus(t, err, 409, step.conflict); len(status.Details.Causes) == 0 || status.Details.Causes[0].Type != metav1.CauseTypeFieldManagerConflict {
				t.Errorf("step %d: %v", i, status.Details)
			}
			got = s.get(t, ns, "a")
		} else if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		ip := ""
		if len(got.Subsets) > 0 {
			ip = got.Subsets[0].Addresses[0].IP
		}
		if got.Labels["app"] != step.app || ip != step.ip {
			t.Errorf("step %d: app %q and address %q, want %q and %q", i, got.Labels["app"], ip, step.app, step.ip)
		}
	}
}

func TestPatchRefuses(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	old := s.create(t, ns, newEndpoints("a"))
	changed := old.DeepCopy()
	changed.Annotations = map[string]string{"n": "1"}
	current := s.update(t, changed)
	strict := patchOptions()
	strict.FieldValidation = metav1.FieldValidationStrict
	operations := "[" + strings.Repeat(`{"op":"test","path":"/kind","value":"Endpoints"},`, 10_000) + `{"op":"test","path":"/kind","value":"Endpoints"}]`
	for name, tc := range map[string]struct {
		kind  types.PatchType
		patch string
		opts  *metav1.PatchOptions
		name  string
		code  int32
		text  string
	}{
		"no JSON":                     {types.MergePatchType, `{`, patchOptions(), "a", 400, "invalid JSON patch"},
		"no list":                     {types.JSONPatchType, `{}`, patchOptions(), "a", 400, "error decoding patch"},
		"a test that fails":           {types.JSONPatchType, `[{"op":"test","path":"/metadata/annotations/n","value":"2"}]`, patchOptions(), "a", 422, "the server rejected our request"},
		"a path that is not there":    {types.JSONPatchType, `[{"op":"remove","path":"/metadata/labels/x"}]`, patchOptions(), "a", 422, "the server rejected our request"},
		"too many operations":         {types.JSONPatchType, operations, patchOptions(), "a", 413, "10000"},
		"a version that has passed":   {types.MergePatchType, `{"metadata":{"resourceVersion":"` + old.ResourceVersion + `"}}`, patchOptions(), "a", 409, "the object has been modified"},
		"another name":                {types.MergePatchType, `{"metadata":{"name":"b"}}`, patchOptions(), "a", 400, "does not match the name"},
		"another namespace":           {types.MergePatchType, `{"metadata":{"namespace":"b"}}`, patchOptions(), "a", 400, "does not match the namespace"},
		"another uid":                 {types.MergePatchType, `{"metadata":{"uid":"b"}}`, patchOptions(), "a", 422, "field is immutable"},
		"another kind":                {types.MergePatchType, `{"kind":"Service"}`, patchOptions(), "a", 422, "cannot become"},
		"an unknown field, strict":    {types.MergePatchType, `{"x":1}`, strict, "a", 422, "unknown field"},
		"a wrong type":                {types.MergePatchType, `{"subsets":"x"}`, patchOptions(), "a", 422, "subsets"},
		"an invalid outcome":          {types.MergePatchType, `{"subsets":[{"addresses":[{"ip":"x"}]}]}`, patchOptions(), "a", 422, "subsets[0].addresses[0].ip"},
		"nothing to patch":            {types.MergePatchType, `{}`, patchOptions(), "missing", 404, `"missing" not found`},
		"an apply of no object":       {types.ApplyYAMLPatchType, "- x", patchOptions(), "a", 400, "error decoding YAML"},
		"a new object without a name": {types.ApplyYAMLPatchType, `{"apiVersion":"v1","kind":"Endpoints","metadata":{}}`, patchOptions(), "missing", 400, "name must be provided"},
		"an apply of a uid":           {types.ApplyYAMLPatchType, `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"missing","uid":"x"}}`, patchOptions(), "missing", 409, "uid mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := s.patch(t, ns, tc.name, tc.kind, tc.patch, tc.opts)
			checkStatus(t, err, tc.code, tc.text)
		})
	}
	if diff := cmp.Diff(current, s.get(t, ns, "a")); diff != "" {
		t.Errorf("changed by what was refused (-want +got):\n%s", diff)
	}
}

// What changes nothing writes nothing, whichever way it comes.
func TestNothingChanged(t *testing.T) {
	t.Parallel()
	var writes atomic.Int64
	store := &faulty{Interface: shared.store}
	store.put = func(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
		response, err := shared.store.Put(ctx, key, value, opts)
		if response.Succeeded {
			writes.Add(1)
		}
		return response, err
	}
	s := newStores(t, store)
	ns := s.newNamespace(t)
	patch := func(kind types.PatchType, body string) func(*testing.T, *corev1.Endpoints) (*corev1.Endpoints, error) {
		return func(t *testing.T, o *corev1.Endpoints) (*corev1.Endpoints, error) {
			obj, _, err := patched(t.Context(), s.endpoints, ns, o.Name, "", kind, []byte(body), &metav1.PatchOptions{FieldManager: "test"})
			if err != nil {
				return nil, err
			}
			return typed[*corev1.Endpoints](t, obj), nil
		}
	}
	put := func(change func(*corev1.Endpoints)) func(*testing.T, *corev1.Endpoints) (*corev1.Endpoints, error) {
		return func(t *testing.T, o *corev1.Endpoints) (*corev1.Endpoints, error) {
			change(o)
			obj, _, _, err := s.endpoints.Update(t.Context(), ns, o.Name, "", o, updateOptions())
			if err != nil {
				return nil, err
			}
			return typed[*corev1.Endpoints](t, obj), nil
		}
	}
	const applied = `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"e","labels":{"app":"x"}},"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":80,"protocol":"TCP"}]}]}`
	for name, again := range map[string]func(*testing.T, *corev1.Endpoints) (*corev1.Endpoints, error){
		"update":        put(func(*corev1.Endpoints) {}),
		"unconditional": put(func(o *corev1.Endpoints) { o.ResourceVersion = "" }),
		"without metadata": put(func(o *corev1.Endpoints) {
			o.UID, o.ManagedFields, o.CreationTimestamp, o.SelfLink = "", nil, metav1.Time{}, ""
		}),
		"merge patch":     patch(types.MergePatchType, `{"metadata":{"labels":{"app":"x"}}}`),
		"strategic patch": patch(types.StrategicMergePatchType, `{"metadata":{"labels":{"app":"x"}}}`),
		"JSON patch":      patch(types.JSONPatchType, `[{"op":"replace","path":"/metadata/labels/app","value":"x"}]`),
		"empty patch":     patch(types.MergePatchType, `{}`),
		"apply":           patch(types.ApplyYAMLPatchType, applied),
	} {
		for _, dying := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, being deleted %v", name, dying), func(t *testing.T) {
				first, err := patch(types.ApplyYAMLPatchType, applied)(t, newEndpoints("e"))
				if err != nil {
					t.Fatal(err)
				}
				if dying {
					first.Finalizers = []string{"example.com/hold"}
					s.update(t, first)
					if _, _, err := s.endpoints.Delete(t.Context(), ns, "e", &metav1.DeleteOptions{}); err != nil {
						t.Fatal(err)
					}
					first = s.get(t, ns, "e")
				}
				before := writes.Load()
				got, err := again(t, first.DeepCopy())
				if diff := cmp.Diff(first, got); err != nil || diff != "" {
					t.Errorf("%v (-before +after):\n%s", err, diff)
				}
				if writes.Load() != before {
					t.Errorf("%d writes", writes.Load()-before)
				}
				remove(t, s.endpoints.Key(ns, "e"))
				s.checkGone(t, ns)
			})
		}
	}
}
