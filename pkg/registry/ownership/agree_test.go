package ownership_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/berth-project/berth/pkg/registry/ownership"
)

// library is the FieldManager with whole objects.
type library struct {
	*managedfields.FieldManager
	kind schema.GroupVersionKind
}

func newLibrary(t *testing.T, kind schema.GroupVersionKind) library {
	t.Helper()
	manager, err := managedfields.NewDefaultFieldManager(converter, scheme, scheme, scheme, kind, kind.GroupVersion(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return library{manager, kind}
}

func (l library) update(live, next runtime.Object, manager string) {
	l.UpdateNoErrors(live, next, manager)
	l.keepTimes(live, next)
}

func (l library) apply(live runtime.Object, config *unstructured.Unstructured, manager string, force bool) (runtime.Object, error) {
	next, err := l.Apply(live, config, manager, force)
	if err == nil {
		setDefault(next)
		l.keepTimes(live, next)
	}
	var known apierrors.APIStatus
	if err != nil && !errors.As(err, &known) {
		err = apierrors.NewBadRequest(err.Error())
	}
	return next, err
}

// keepTimes gives next the entries of live where the times are all that differs.
func (l library) keepTimes(live, next runtime.Object) {
	was, err := meta.Accessor(live)
	if err != nil {
		panic(err)
	}
	is, err := meta.Accessor(next)
	if err != nil {
		panic(err)
	}
	entries := is.GetManagedFields()
	if !slices.Equal(untimed(was.GetManagedFields()), untimed(entries)) {
		return
	}
	is.SetManagedFields(was.GetManagedFields())
	live.GetObjectKind().SetGroupVersionKind(next.GetObjectKind().GroupVersionKind())
	if !equality.Semantic.DeepEqual(live, next) {
		is.SetManagedFields(entries)
	}
}

func untimed(entries []metav1.ManagedFieldsEntry) []string {
	var texts []string
	for _, entry := range entries {
		entry.Time = nil
		data, err := json.Marshal(entry)
		if err != nil {
			panic(err)
		}
		texts = append(texts, string(data))
	}
	slices.Sort(texts)
	return texts
}

// TestAgreesWithLibrary takes objects of several kinds through random updates and applies by
// several managers, each step once with stand-ins and once with whole objects, and wants the
// same objects, owners and errors.
func TestAgreesWithLibrary(t *testing.T) {
	t.Parallel()
	const seeds, steps = 150, 16
	for part, kind := range []schema.GroupVersionKind{endpointsKind, sliceKind, serviceKind, namespaceKind} {
		t.Run(kind.Kind, func(t *testing.T) {
			t.Parallel()
			want := newLibrary(t, kind)
			got, err := ownership.New(ownership.Config{Kind: kind, Scheme: scheme, Converter: converter, SetDefault: setDefault})
			if err != nil {
				t.Fatal(err)
			}
			done := map[string]int{}
			for seed := range uint64(seeds) {
				r := newRandom(seed, uint64(part))
				live := typedOf(kind, map[string]any{})
				for step := range steps {
					what, next := r.step(t, want, got, live)
					if done[what]++; next == nil {
						continue
					}
					live = r.stored(kind, next)
					if t.Failed() {
						t.Fatalf("seed %d, step %d: %s", seed, step, what)
					}
				}
			}
			t.Log(done)
			for _, what := range []string{"update", "apply", "conflict", "refused"} {
				if done[what] < seeds/10 {
					t.Errorf("%s: only %d", what, done[what])
				}
			}
		})
	}
}

// step has both make one step. next is nil where that fails, or is not to be.
func (r random) step(t *testing.T, want library, got *ownership.Manager, live runtime.Object) (what string, next runtime.Object) {
	t.Helper()
	object := r.object(want.kind)
	manager := []string{"", "kubectl", "m0", "m1", "m2"}[r.IntN(5)]
	if r.one(6) {
		manager = fmt.Sprint("many", r.IntN(20))
	}
	if r.one(2) {
		whole := typedOf(want.kind, object)
		if whole == nil {
			return "undecodable", nil
		}
		setDefault(whole)
		wanted := r.withManagedFields(whole, live)
		gotten, before := wanted.DeepCopyObject(), live.DeepCopyObject()
		want.update(live.DeepCopyObject(), wanted, manager)
		mustUpdate(t, got, live, gotten, manager)
		if diff := cmp.Diff(shape(wanted), shape(gotten)); diff != "" || !equality.Semantic.DeepEqual(before, live) {
			t.Errorf("by %q of %s (-library +ours):\n%s", manager, shape(live), diff)
		}
		return "update", gotten
	}
	config, force, before := &unstructured.Unstructured{Object: object}, r.one(2), shape(live)
	wanted, wantErr := want.apply(live.DeepCopyObject(), config.DeepCopy(), manager, force)
	untouched := config.DeepCopy()
	gotten, gotErr := got.Apply(live, config, manager, force)
	for range 1000 { // of several faults the library tells those that it meets before it stops
		if errorLines(wantErr) == errorLines(gotErr) {
			break
		}
		_, wantErr = want.apply(live.DeepCopyObject(), config.DeepCopy(), manager, force)
	}
	if diff := cmp.Diff(errorLines(wantErr), errorLines(gotErr)); diff != "" || !equality.Semantic.DeepEqual(untouched, config) {
		t.Fatalf("%v by %q of %s (-library +ours):\n%s", config, manager, shape(live), diff)
	}
	switch {
	case apierrors.IsConflict(wantErr):
		return "conflict", nil
	case wantErr != nil:
		return "refused", nil
	}
	if diff := cmp.Diff(shape(wanted), shape(gotten)); diff != "" || before != shape(live) {
		t.Errorf("%v by %q of %s (-library +ours):\n%s", config, manager, before, diff)
	}
	return "apply", gotten
}

// withManagedFields gives a new object what a client may send for managedFields.
func (r random) withManagedFields(next, live runtime.Object) runtime.Object {
	was, err := meta.Accessor(live)
	if err != nil {
		panic(err)
	}
	is, err := meta.Accessor(next)
	if err != nil {
		panic(err)
	}
	switch r.IntN(12) {
	case 0:
		is.SetManagedFields([]metav1.ManagedFieldsEntry{}) // a reset
	case 1:
		is.SetManagedFields([]metav1.ManagedFieldsEntry{r.foreignEntry()})
	case 2, 3, 4, 5:
		is.SetManagedFields(was.GetManagedFields())
	}
	return next.DeepCopyObject()
}

// foreignEntry is an entry as another version, or another program, may have written it.
func (r random) foreignEntry() metav1.ManagedFieldsEntry {
	at := metav1.Unix(1_600_000_000, 0)
	return metav1.ManagedFieldsEntry{
		Manager: fmt.Sprint("m", r.IntN(3)), Operation: []metav1.ManagedFieldsOperationType{"Apply", "Update", "Other"}[r.IntN(3)],
		APIVersion: []string{"v1", "v1", "v2", "discovery.k8s.io/v1", "x/y/z"}[r.IntN(5)], Time: &at, FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1([]string{
			`{"f:subsets":{},"f:endpoints":{}}`, `{"f:subsets":{"i:0":{"f:addresses":{}}},"f:endpoints":{".":{},"i:1":{}},"f:ports":{"k:{\"port\":80}":{}}}`,
			`{"f:metadata":{"f:labels":{".":{},"f:l0":{}}},"f:unknown":{}}`, `[1]`, `{}`,
		}[r.IntN(5)]),
	}
}

// stored returns an object as it is read back, in which no entry is of now. Once in a while
// another program has had its hands in it.
func (r random) stored(kind schema.GroupVersionKind, obj runtime.Object) runtime.Object {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		panic(err)
	}
	accessor.SetUID("u")
	entries := accessor.GetManagedFields()
	for i := range entries {
		if entries[i].Time != nil {
			at := metav1.Unix(1_700_000_000+r.Int64N(3), 0)
			entries[i].Time = &at
		}
	}
	switch n := len(entries); r.IntN(25) {
	case 0:
		entries = append(entries, r.foreignEntry())
	case 1:
		entries = nil
	case 2:
		entries = entries[n/2:]
	}
	sortEntries(entries)
	accessor.SetManagedFields(entries)
	return typedOf(kind, decoded(obj))
}

// decoded is an object as decoded JSON.
func decoded(obj runtime.Object) map[string]any {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		panic(err)
	}
	return object
}
