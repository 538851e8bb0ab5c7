package registry_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/endpoints"
)

// randomEndpoints is one of few objects, so that two of them often agree in a field. Some
// have what the fast way hands over to the library.
func randomEndpoints(r *rand.Rand) *corev1.Endpoints {
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "e"}}
	pick := func(n int) bool { return r.IntN(n) == 0 }
	for i := range 3 {
		if pick(2) {
			metav1.SetMetaDataLabel(&e.ObjectMeta, fmt.Sprint("l", i), fmt.Sprint(r.IntN(2)))
		}
		if pick(3) {
			metav1.SetMetaDataAnnotation(&e.ObjectMeta, fmt.Sprint("example.com/a", i), fmt.Sprint(r.IntN(2)))
		}
		if pick(3) {
			e.Finalizers = append(e.Finalizers, fmt.Sprint("example.com/f", i))
		}
		if pick(4) {
			controller := pick(2)
			e.OwnerReferences = append(e.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "Service", Name: "s", UID: types.UID(fmt.Sprint("u", i)), Controller: &controller})
		}
		if pick(3) {
			e.Subsets = append(e.Subsets, corev1.EndpointSubset{
				Addresses: []corev1.EndpointAddress{{IP: fmt.Sprint("10.0.0.", r.IntN(2)), TargetRef: &corev1.ObjectReference{Name: fmt.Sprint(r.IntN(2))}}},
				Ports:     []corev1.EndpointPort{{Port: 80, Protocol: corev1.ProtocolTCP}},
			})
		}
	}
	if pick(4) {
		e.GenerateName = fmt.Sprint("g", r.IntN(2))
	}
	if pick(12) && len(e.Finalizers) > 0 {
		e.Finalizers = append(e.Finalizers, e.Finalizers[0])
	}
	if pick(20) {
		e.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	}
	return e
}

// TestOwnershipAgreesWithLibrary takes objects through random updates, once by
// apimachinery's FieldManager alone and once by ours, and wants the same owners each time.
func TestOwnershipAgreesWithLibrary(t *testing.T) {
	resource := endpoints.Resource()
	gvk := resource.GroupVersionKind()
	library, err := managedfields.NewDefaultFieldManager(shared.converter, shared.scheme, shared.scheme, shared.scheme, gvk, gvk.GroupVersion(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := registry.NewOwnership(resource, shared.scheme, shared.converter)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		want, got := &corev1.Endpoints{}, &corev1.Endpoints{}
		for step := range 14 {
			next := randomEndpoints(r)
			manager := fmt.Sprint("m", r.IntN(13))
			if r.IntN(12) == 0 {
				manager = ""
			}
			keepsFields := r.IntN(2) == 0
			update := func(live *corev1.Endpoints, run func(live, next *corev1.Endpoints) *corev1.Endpoints) *corev1.Endpoints {
				next := next.DeepCopy()
				if keepsFields {
					next.ManagedFields = live.DeepCopy().ManagedFields
				}
				out := run(live.DeepCopy(), next)
				out.UID = "uid"
				return out
			}
			want = update(want, func(live, next *corev1.Endpoints) *corev1.Endpoints {
				return library.UpdateNoErrors(live, next, manager).(*corev1.Endpoints)
			})
			got = update(got, func(live, next *corev1.Endpoints) *corev1.Endpoints {
				return ours.Update(live, next, manager).(*corev1.Endpoints)
			})
			if diff := cmp.Diff(owners(t, want), owners(t, got)); diff != "" {
				t.Fatalf("seed %d, step %d (-library +ours):\n%s", seed, step, diff)
			}
		}
	}
}

func TestDuplicateOwners(t *testing.T) {
	s := newPatcher(t, endpoints.Resource(), shared.converter)
	live := finished(t, s, configuration(1), false)
	owner := func(uid, more string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","name":"p","uid":%q%s}`, uid, more)
	}
	for name, tc := range map[string]struct {
		owners []string
		kept   int
		again  string // the uids that the warning names; "": there is none
	}{
		"one":                    {[]string{owner("a", "")}, 1, ""},
		"two":                    {[]string{owner("a", ""), owner("b", "")}, 2, ""},
		"the same":               {[]string{owner("a", ""), owner("b", ""), owner("a", ""), owner("a", "")}, 2, "a, a"},
		"the same, what it says": {[]string{owner("a", `,"controller":true`), owner("a", `,"controller":true`)}, 1, "a"},
		"not the same":           {[]string{owner("a", `,"controller":true`), owner("a", `,"controller":false`), owner("a", ""), owner("a", `,"blockOwnerDeletion":false`)}, 4, ""},
	} {
		t.Run(name, func(t *testing.T) {
			patch := `{"metadata":{"ownerReferences":[` + strings.Join(tc.owners, ",") + `]}}`
			obj, warnings, err := s.PatchJSON(live, "e", types.MergePatchType, []byte(patch), patchOptions())
			if err != nil {
				t.Fatal(err)
			}
			if got := obj.(*corev1.Endpoints).OwnerReferences; len(got) != tc.kept {
				t.Errorf("kept %v", got)
			}
			if len(warnings) > 0 != (tc.again != "") || len(warnings) > 0 && !strings.HasSuffix(warnings[0], ": "+tc.again) {
				t.Errorf("warnings: %q", warnings)
			}
		})
	}
}

// owners are managedFields without their times, but for whether there is one.
func owners(t *testing.T, e *corev1.Endpoints) []string {
	t.Helper()
	var out []string
	for _, entry := range e.ManagedFields {
		timed := entry.Time != nil
		entry.Time = nil
		data, err := json.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%v %s", timed, data))
	}
	slices.Sort(out) // their order depends on the second in which each was written
	return out
}
