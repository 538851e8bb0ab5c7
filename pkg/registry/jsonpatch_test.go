package registry_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// operations is a JSON patch of the operation n times over, each with its number in the place
// of every %d, and of what else it takes before and after.
func operations(before string, n int, operation, after string) string {
	all := make([]string, 0, n+2)
	if before != "" {
		all = append(all, before)
	}
	for i := range n {
		all = append(all, strings.ReplaceAll(operation, "%d", fmt.Sprint(i)))
	}
	if after != "" {
		all = append(all, after)
	}
	return "[" + strings.Join(all, ",") + "]"
}

// patchCost patches the finished JSON and returns the bytes that it took, garbage included.
// It is for tests that do not run beside others.
func (s *stores) patchCost(finished []byte, kind types.PatchType, patch string) (allocated uint64, err error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err = s.endpoints.PatchJSON(finished, "e", kind, []byte(patch), patchOptions())
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

// createFinished returns the finished JSON of a new object in the namespace default, for
// PatchJSON.
func (s *stores) createFinished(t testing.TB, obj *corev1.Endpoints) []byte {
	t.Helper()
	ns := s.newNamespace(t)
	return bytes.ReplaceAll(servedJSON(t, s.create(t, ns, obj)), []byte(`"`+ns+`"`), []byte(`"default"`))
}

// Copies that add up are refused before they have taken the memory, whatever they are of and
// wherever they go.
func TestCopiesAddUp(t *testing.T) {
	s := newStores(t, shared.store)
	e := manyAddresses("e", 2000)
	e.Annotations = map[string]string{"a": strings.Repeat("<", 30_000)}
	finished := s.createFinished(t, e)
	const text = "the copies of a JSON patch add up to more than 3145728 bytes"
	for name, patch := range map[string]string{
		"copies of copies in the annotations": operations(`{"op":"add","path":"/metadata/annotations","value":{}}`, 20, `{"op":"copy","from":"/metadata","path":"/metadata/annotations/c%d"}`, ""),
		"copies of copies beside the fields":  operations("", 20, `{"op":"copy","from":"/metadata","path":"/metadata/x%d"}`, ""),
		"copies that are removed again":       operations("", 20, `{"op":"copy","from":"/metadata","path":"/metadata/x"}`, `{"op":"remove","path":"/metadata/x"}`),
		"copies that replace each other":      operations("", 10_000, `{"op":"copy","from":"/metadata/annotations/a","path":"/metadata/annotations/b"}`, ""),
		"a list, behind itself":               operations("", 20, `{"op":"copy","from":"/subsets/0","path":"/subsets/-"}`, ""),
		"a list, before itself":               operations("", 10_000, `{"op":"copy","from":"/subsets/0","path":"/subsets/0"}`, ""),
		"a list into the metadata":            operations("", 10_000, `{"op":"copy","from":"/subsets","path":"/metadata/x%d"}`, ""),
		"a list into itself":                  operations("", 30, `{"op":"copy","from":"/subsets","path":"/subsets/-"}`, ""),
		"the metadata into a list":            operations("", 10_000, `{"op":"copy","from":"/metadata","path":"/subsets/0/addresses/0/targetRef"}`, ""),
		"an element many times":               operations(`{"op":"add","path":"/subsets/0/addresses/0/hostname","value":"`+strings.Repeat("x", 1000)+`"}`, 9000, `{"op":"copy","from":"/subsets/0/addresses/0","path":"/subsets/0/addresses/-"}`, ""),
		"what was added":                      operations(`{"op":"add","path":"/x","value":["`+strings.Repeat("x", 500_000)+`"]}`, 10, `{"op":"copy","from":"/x/0","path":"/x/-"}`, ""),
		"what was moved":                      operations("", 40, `{"op":"copy","from":"/metadata","path":"/x"},{"op":"move","from":"/x","path":"/metadata/y%d"}`, ""),
		"what grows when it is encoded":       operations(`{"op":"add","path":"/x","value":"`+strings.Repeat("&", 500_000)+`"}`, 2, `{"op":"copy","from":"/x","path":"/y%d"}`, ""),
	} {
		t.Run(name, func(t *testing.T) {
			allocated, err := s.patchCost(finished, types.JSONPatchType, patch)
			checkStatus(t, err, 422, text)
			if most := uint64(128 << 20); allocated > most {
				t.Errorf("it took %d bytes, more than %d", allocated, most)
			}
		})
	}
}

// Copies within the limit are made.
func TestCopiesWithinTheLimit(t *testing.T) {
	s := newStores(t, shared.store)
	e := newEndpoints("e")
	e.Annotations = map[string]string{"a": strings.Repeat("x", 60_000)}
	finished := s.createFinished(t, e)
	patch := operations("", 52, `{"op":"copy","from":"/metadata/annotations/a","path":"/metadata/annotations/b"}`, "")
	got, _, err := s.endpoints.PatchJSON(finished, "e", types.JSONPatchType, []byte(patch), patchOptions())
	if err != nil {
		t.Fatal(err)
	}
	if b := got.(*corev1.Endpoints).Annotations["b"]; b != e.Annotations["a"] {
		t.Errorf("copied %d bytes", len(b))
	}
}

func TestNestedPatches(t *testing.T) {
	s := newStores(t, shared.store)
	finished := s.createFinished(t, newEndpoints("e"))
	deep := func(open, inside, shut string, n int) string {
		return strings.Repeat(open, n) + inside + strings.Repeat(shut, n)
	}
	const text = "more than 100 levels deep"
	for name, tc := range map[string]struct {
		kind  types.PatchType
		patch func(depth int) string // nested so deep in all
	}{
		"objects in a JSON patch":  {types.JSONPatchType, func(n int) string { return `[{"op":"add","path":"/x","value":` + deep(`{"a":`, "1", "}", n-2) + `}]` }},
		"lists in a JSON patch":    {types.JSONPatchType, func(n int) string { return `[{"op":"add","path":"/x","value":` + deep("[", "", "]", n-2) + `}]` }},
		"objects in a merge patch": {types.MergePatchType, func(n int) string { return deep(`{"a":`, "1", "}", n) }},
		"lists in a merge patch":   {types.MergePatchType, func(n int) string { return `{"x":` + deep("[", "", "]", n-1) + "}" }},
		"a strategic patch":        {types.StrategicMergePatchType, func(n int) string { return `{"x":"}{\"\\","metadata":` + deep(`{"a":`, "1", "}", n-1) + "}" }},
		"an apply": {types.ApplyYAMLPatchType, func(n int) string {
			return `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"e"},"subsets":` + deep("[", "", "]", n-1) + "}"
		}},
		"an apply in YAML": {types.ApplyYAMLPatchType, func(n int) string {
			return "apiVersion: v1\nkind: Endpoints\nmetadata: {name: e}\nsubsets: " + deep("[", "", "]", n-1) + "\n"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := s.endpoints.PatchJSON(finished, "e", tc.kind, []byte(tc.patch(100)), patchOptions())
			if err != nil && strings.Contains(err.Error(), text) {
				t.Errorf("100 levels: %v", err)
			}
			for _, depth := range []int{101, 9000, 400_000} {
				allocated, err := s.patchCost(finished, tc.kind, tc.patch(depth))
				if depth < 10_000 { // beyond it the JSON and YAML parsers are the ones who refuse
					checkStatus(t, err, 400, text)
				} else {
					checkStatus(t, err, 400, "")
				}
				if most := uint64(128 << 20); allocated > most {
					t.Errorf("it took %d bytes, more than %d", allocated, most)
				}
			}
		})
	}
	for _, pointer := range []string{"path", "from"} {
		other := map[string]string{"path": "from", "from": "path"}[pointer]
		_, _, err := s.endpoints.PatchJSON(finished, "e", types.JSONPatchType, fmt.Appendf(nil, `[{"op":"copy",%q:%q,%q:"/metadata"}]`, pointer, strings.Repeat("/a", 101), other), patchOptions())
		checkStatus(t, err, 400, text)
	}
}

// Patches at which the library panics are the client's mistakes.
func TestJSONPatchPanics(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	s.create(t, ns, newEndpoints("e"))
	for _, patch := range []string{
		`[{"op":"add","path":"/metadata/x","value":null},{"op":"copy","from":"/metadata/x","path":"/metadata/labels"},{"op":"add","path":"/metadata/labels/a","value":"b"}]`,
		`[{"op":"test","path":""}]`,
		`[{"op":"replace","path":""}]`,
		`[{"op":"replace","path":"","value":null},{"op":"add","path":"/a","value":1}]`,
	} {
		_, _, err := s.patch(t, ns, "e", types.JSONPatchType, patch, patchOptions())
		checkStatus(t, err, 422, "the server rejected our request")
	}
}

// A malformed patch is told so, whether or not there is an object.
func TestMalformedPatchOfNothing(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	for _, kind := range []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType} {
		_, _, err := s.patch(t, ns, "missing", kind, "zzz", patchOptions())
		checkStatus(t, err, 400, "invalid character")
	}
}
