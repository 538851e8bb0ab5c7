package registry_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	smd "sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/endpoints"
	"github.com/berth-project/berth/pkg/registry/namespaces"
)

// pair is the same resource twice: once as it is, and once without Atomic, so that
// libraries do everything.
type pair struct {
	ours, library *registry.Store
	schema        *watchedConverter // of ours
}

// watchedConverter counts how often the schema is used.
type watchedConverter struct {
	managedfields.TypeConverter
	uses int
}

func (w *watchedConverter) ObjectToTyped(obj runtime.Object, opts ...smd.ValidationOptions) (*smd.TypedValue, error) {
	w.uses++
	return w.TypeConverter.ObjectToTyped(obj, opts...)
}

func newPair(t testing.TB) pair {
	t.Helper()
	schema := &watchedConverter{TypeConverter: shared.converter}
	resource := endpoints.Resource()
	resource.Atomic = nil
	return pair{newPatcher(t, endpoints.Resource(), schema), newPatcher(t, resource, shared.converter), schema}
}

// newPatcher returns a store that patches objects without a running registry.
func newPatcher(t testing.TB, resource *registry.Resource, converter managedfields.TypeConverter) *registry.Store {
	t.Helper()
	r, err := registry.New(registry.Config{
		Storage: shared.store, Scheme: shared.scheme, TypeConverter: converter, Resources: []*registry.Resource{resource, namespaces.Resource()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.Stores()[0]
}

// result is what became of a request, in a form to compare: times of now are one.
type result struct {
	Object   *corev1.Endpoints
	Warnings []string
	Err      string
}

func newResult(obj runtime.Object, warnings []string, err error) result {
	if err != nil {
		faults := strings.Split(fmt.Sprintf("%T %v", err, err), "\n")
		slices.Sort(faults) // libraries range over maps
		return result{Err: strings.Join(faults, "\n"), Warnings: warnings}
	}
	e := obj.DeepCopyObject().(*corev1.Endpoints)
	e.TypeMeta = metav1.TypeMeta{} // whoever writes it sets them
	for i := range e.ManagedFields {
		if at := &e.ManagedFields[i]; at.Time != nil && time.Since(at.Time.Time) < time.Hour {
			at.Time = &metav1.Time{Time: time.Unix(2_000_000_000, 0)}
		}
	}
	sortEntries(e.ManagedFields)
	data, err := json.Marshal(e)
	if err != nil {
		return result{Err: err.Error()}
	}
	plain := &corev1.Endpoints{} // in which nothing is empty
	if err := json.Unmarshal(data, plain); err != nil {
		return result{Err: err.Error()}
	}
	return result{Object: plain, Warnings: warnings}
}

// sortEntries puts entries in their order, which the second in which they were written
// decides.
func sortEntries(entries []metav1.ManagedFieldsEntry) {
	slices.SortFunc(entries, func(a, b metav1.ManagedFieldsEntry) int {
		key := func(e metav1.ManagedFieldsEntry) string {
			at := int64(0)
			if e.Time != nil {
				at = e.Time.Unix()
			}
			return fmt.Sprintf("%s %12d %s", e.Operation, at, e.Manager)
		}
		return strings.Compare(key(a), key(b))
	})
}

// hasEmptyLists says whether a subset has a list with nothing in it. To the library, an
// update that makes it so changes something, though nothing of it is ever stored.
func hasEmptyLists(obj runtime.Object) bool {
	e, ok := obj.(*corev1.Endpoints)
	return ok && slices.ContainsFunc(e.Subsets, func(s corev1.EndpointSubset) bool {
		return s.Addresses != nil && len(s.Addresses) == 0 || s.NotReadyAddresses != nil && len(s.NotReadyAddresses) == 0 || s.Ports != nil && len(s.Ports) == 0
	})
}

// check has both stores patch live, and wants the same of them. The type "" stands for an
// update. It returns what became of it.
func (p pair) check(t *testing.T, live []byte, kind types.PatchType, patch []byte, opts *metav1.PatchOptions) (want result) {
	t.Helper()
	stored := true // nothing but what would be stored differs
	run := func(s *registry.Store) result {
		if kind == "" {
			return newResult(s.UpdateJSON(live, patch, opts.FieldManager), nil, nil)
		}
		obj, warnings, err := s.PatchJSON(live, "e", kind, patch, opts)
		stored = stored && !hasEmptyLists(obj)
		return newResult(obj, warnings, err)
	}
	want = run(p.library)
	p.schema.uses = 0
	got := run(p.ours)
	for range 1000 { // of several faults, the library tells those that it meets before it stops
		if want.Err == got.Err {
			break
		}
		want = run(p.library)
	}
	if stored && !reflect.DeepEqual(want, got) {
		t.Fatalf("%s by %q, force %v\n%s\nof %s\n(-library +ours):\n%s", kind, opts.FieldManager, *opts.Force, patch, live, cmp.Diff(want, got))
	}
	return want
}

// finish makes stored JSON of an outcome, in which no entry is of now. Once in a while
// another program has had its hands in it.
func (res *result) finish(t *testing.T, r *rand.Rand) []byte {
	t.Helper()
	e := res.Object
	e.APIVersion, e.Kind, e.UID, e.ResourceVersion, e.Namespace = "v1", "Endpoints", "u", "5", "default"
	e.CreationTimestamp = metav1.Unix(1_700_000_000, 0)
	for i := range e.ManagedFields {
		if e.ManagedFields[i].Time != nil {
			at := metav1.Unix(1_700_000_000+r.Int64N(3), 0)
			e.ManagedFields[i].Time = &at
		}
	}
	if n := len(e.ManagedFields); n > 0 {
		at := r.IntN(n)
		switch r.IntN(60) {
		case 0:
			e.ManagedFields = slices.Delete(e.ManagedFields, at, at+1)
		case 1:
			addField(t, e.ManagedFields[at].FieldsV1, "metadata", "creationTimestamp")
		case 2:
			addField(t, e.ManagedFields[at].FieldsV1, "metadata", "labels")
		}
	}
	sortEntries(e.ManagedFields)
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if r.IntN(60) == 0 {
		data = append(data[:len(data)-1], `,"unknown":1}`...)
	}
	return data
}

func addField(t *testing.T, fields *metav1.FieldsV1, path ...any) {
	t.Helper()
	set := fieldpath.NewSet()
	if err := set.FromJSON(fields.GetRawReader()); err != nil {
		t.Fatal(err)
	}
	set.Insert(fieldpath.MakePathOrDie(path...))
	data, err := set.ToJSON()
	if err != nil {
		t.Fatal(err)
	}
	fields.SetRawBytes(data)
}

// TestPatchesAgreeWithLibraries takes objects through random applies, patches and updates by
// several managers, each step once by libraries alone and once by ours, and wants the
// same objects, owners, warnings and errors. It wants most applies to need no schema.
func TestPatchesAgreeWithLibraries(t *testing.T) {
	t.Parallel()
	const parts, seeds, steps = 4, 320, 16
	for part := range uint64(parts) {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			applies, plain := 0, 0
			for seed := range uint64(seeds) {
				r := rand.New(rand.NewPCG(seed, part))
				w := writer{r, seed%3 == 0}
				var live, applied []byte
				for range steps {
					kind, patch := w.patch(live != nil)
					if kind == types.ApplyYAMLPatchType {
						if applied != nil && r.IntN(3) == 0 {
							patch = applied
						}
						applied = patch
					}
					res := p.check(t, live, kind, patch, w.options())
					if res.Err != "" {
						continue
					}
					if kind == types.ApplyYAMLPatchType {
						applies++
						if p.schema.uses == 0 {
							plain++
						}
					}
					live = res.finish(t, r)
				}
			}
			if plain < applies/2 {
				t.Errorf("%d of %d applies needed no schema", plain, applies)
			}
		})
	}
}

// share leaves "test" a label, has it own the subsets together with "other", and nobody the
// rest, in which there is an owner without a version.
func share(t testing.TB, live []byte) []byte {
	t.Helper()
	var e corev1.Endpoints
	if err := json.Unmarshal(live, &e); err != nil {
		t.Fatal(err)
	}
	own := e.ManagedFields[0]
	own.FieldsV1 = metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:a":{}}},"f:subsets":{}}`)
	own.Time = &metav1.Time{Time: time.Unix(1_700_000_000, 0)}
	other := own
	other.Manager, other.FieldsV1 = "other", metav1.NewFieldsV1(`{"f:subsets":{}}`)
	e.ManagedFields = []metav1.ManagedFieldsEntry{other, own}
	e.OwnerReferences = append(e.OwnerReferences, metav1.OwnerReference{Kind: "Service", Name: "s", UID: "u2"})
	data, err := json.Marshal(&e)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzPatch wants the same of ours and of the libraries for any patch, of an object or of
// none.
func FuzzPatch(f *testing.F) {
	var live [4][]byte // none, applied by "test", created by it, shared
	p := newPair(f)
	const config = `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"e","namespace":"default","labels":{"a":"1","b":"2"},"annotations":{"c":"3"},"finalizers":["x/f","x/g"],` +
		`"ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"s","uid":"u1"}]},"subsets":[{"addresses":[{"ip":"10.0.0.1","targetRef":{"name":"p"}}],"ports":[{"port":80,"protocol":"TCP"}]}]}`
	live[1] = finished(f, p.library, config, true)
	live[2] = finished(f, p.library, config, false)
	live[3] = share(f, live[1])
	kinds := []types.PatchType{types.ApplyYAMLPatchType, types.MergePatchType, types.StrategicMergePatchType, types.JSONPatchType}
	f.Fuzz(func(t *testing.T, kind, of uint8, other, force bool, patch []byte) {
		opts := as(map[bool]string{true: "other", false: "test"}[other], force)
		opts.FieldValidation = metav1.FieldValidationWarn
		p.check(t, live[int(of)%len(live)], kinds[int(kind)%len(kinds)], patch, opts)
	})
}

// TestApplyNeedsNoSchema tells the applies that are dealt with on typed objects from those
// that are left to the library.
func TestApplyNeedsNoSchema(t *testing.T) {
	p := newPair(t)
	live := finished(t, p.library, configuration(1), true)
	with := func(text string) string {
		return strings.Replace(configuration(1), `"labels":{"app":"bench"}`, text, 1)
	}
	for name, tc := range map[string]struct {
		patch         string
		manager       string
		live, library bool
	}{
		"a new object":                 {patch: configuration(1), manager: "test"},
		"the same again":               {patch: configuration(1), manager: "test", live: true},
		"the same by another":          {patch: configuration(1), manager: "other", live: true},
		"what another has, forced":     {patch: with(`"labels":{"app":"x"}`), manager: "other", live: true},
		"empty labels and annotations": {patch: with(`"labels":{"app":""},"annotations":{"a":""}`), manager: "test", live: true},
		"less than before":             {patch: with(`"labels":{"b":"c"}`), manager: "test", live: true},
		"lists":                        {patch: with(`"finalizers":["x/y"],"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"u"}]`), manager: "test", live: true},
		"kubectl":                      {patch: configuration(1), manager: "kubectl", live: true},
		"space":                        {patch: strings.ReplaceAll(configuration(1), ",", " ,\n "), manager: "test", live: true},
		"no labels":                    {patch: with(`"labels":{}`), manager: "test", live: true, library: true},
		"null":                         {patch: with(`"creationTimestamp":null`), manager: "test", live: true, library: true},
		"an odd name":                  {patch: with(`"labels":{"é":"x"}`), manager: "test", live: true, library: true},
		"YAML":                         {patch: "{apiVersion: v1, kind: Endpoints, metadata: {name: e}}", manager: "test", live: true, library: true},
	} {
		t.Run(name, func(t *testing.T) {
			of := live
			if !tc.live {
				of = nil
			}
			if res := p.check(t, of, types.ApplyYAMLPatchType, []byte(tc.patch), as(tc.manager, true)); res.Err != "" {
				t.Error(res.Err)
			}
			if (p.schema.uses > 0) != tc.library {
				t.Errorf("the schema was used %d times", p.schema.uses)
			}
		})
	}
}

// Patches of the metadata decode no addresses, and usual ones nothing but themselves.
func TestPatchesOfMetadataDecodeLittle(t *testing.T) {
	resource := endpoints.Resource()
	decode, longest := resource.DecodePlainJSON, 0
	resource.DecodePlainJSON = func(data []byte, obj runtime.Object) bool {
		longest = max(longest, len(data))
		return decode(data, obj)
	}
	s := newPatcher(t, resource, shared.converter)
	live := finished(t, s, configuration(1000), false)
	for name, tc := range map[string]struct {
		kind  types.PatchType
		patch string
		usual bool
	}{
		"merge":             {types.MergePatchType, `{"metadata":{"labels":{"app":"x"}}}`, true},
		"merge with null":   {types.MergePatchType, `{"metadata":{"labels":{"app":null}}}`, false},
		"strategic":         {types.StrategicMergePatchType, `{"metadata":{"labels":{"app":"x"}}}`, true},
		"strategic, a list": {types.StrategicMergePatchType, `{"metadata":{"finalizers":["example.com/x"]}}`, false},
		"JSON":              {types.JSONPatchType, `[{"op":"replace","path":"/metadata/labels/app","value":"x"}]`, false},
	} {
		change := s.Change(t, live, "e", tc.kind, []byte(tc.patch), patchOptions())
		longest = 0
		change()
		if tc.usual && longest > len(tc.patch) || longest > 2000 {
			t.Errorf("%s: decoded %d bytes of %d", name, longest, len(live))
		}
	}
}
