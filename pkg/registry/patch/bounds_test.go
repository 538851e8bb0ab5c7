package patch_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/registry/patch"
)

// operations is a JSON patch of the operation n times over, each with its number in the place
// of every %d, behind another one if there is one.
func operations(first string, n int, operation string) string {
	all := make([]string, 0, n+1)
	if first != "" {
		all = append(all, first)
	}
	for i := range n {
		all = append(all, strings.ReplaceAll(operation, "%d", fmt.Sprint(i)))
	}
	return "[" + strings.Join(all, ",") + "]"
}

// mostBytes is what a patch that is refused may take.
const mostBytes = 128 << 20

// Copies that add up are refused before they have taken the memory, whatever they are of and
// wherever they go.
func TestCopiesAddUp(t *testing.T) {
	before, err := apply(types.MergePatchType, `{"metadata":{"annotations":{"a":"`+strings.Repeat("<", 30_000)+`"}}}`, endpoints(t, 2000))
	if err != nil {
		t.Fatal(err)
	}
	for name, patch := range map[string]string{
		"copies of copies in the annotations": operations(`{"op":"add","path":"/metadata/annotations","value":{}}`, 30, `{"op":"copy","from":"/metadata","path":"/metadata/annotations/c%d"}`),
		"copies of copies beside the fields":  operations("", 20, `{"op":"copy","from":"/metadata","path":"/metadata/x%d"}`),
		"copies that are removed again":       operations("", 20, `{"op":"copy","from":"/metadata","path":"/metadata/x"},{"op":"remove","path":"/metadata/x"}`),
		"copies that replace each other":      operations("", 10_000, `{"op":"copy","from":"/metadata/annotations/a","path":"/metadata/annotations/b"}`),
		"a list, behind itself":               operations("", 20, `{"op":"copy","from":"/subsets/0","path":"/subsets/-"}`),
		"a list, before itself":               operations("", 1000, `{"op":"copy","from":"/subsets/0","path":"/subsets/0"}`),
		"a list into the metadata":            operations("", 10_000, `{"op":"copy","from":"/subsets","path":"/metadata/x%d"}`),
		"a list into itself":                  operations("", 30, `{"op":"copy","from":"/subsets","path":"/subsets/-"}`),
		"the metadata into a list":            operations("", 10_000, `{"op":"copy","from":"/metadata","path":"/subsets/0/addresses/0/targetRef"}`),
		"to the top":                          operations("", 10_000, `{"op":"copy","from":"/metadata","path":"/x%d"}`),
		"of the top":                          operations(`{"op":"replace","path":"","value":{"a":{}}}`, 40, `{"op":"copy","from":"/a","path":"/a/%d"}`),
		"an element many times":               operations(`{"op":"add","path":"/subsets/0/addresses/0/hostname","value":"`+strings.Repeat("x", 1000)+`"}`, 9000, `{"op":"copy","from":"/subsets/0/addresses/0","path":"/subsets/0/addresses/-"}`),
		"what was added":                      operations(`{"op":"add","path":"/x","value":["`+strings.Repeat("x", 500_000)+`"]}`, 10, `{"op":"copy","from":"/x/0","path":"/x/-"}`),
		"what was moved":                      operations("", 12, `{"op":"copy","from":"/metadata","path":"/x"},{"op":"move","from":"/x","path":"/metadata/y%d"}`),
		"what was tested":                     operations(`{"op":"add","path":"/x","value":{"a":{"b":"`+strings.Repeat("x", 100_000)+`"}}},{"op":"test","path":"/x/a/c","value":null}`, 40, `{"op":"copy","from":"/x","path":"/x/a%d"}`),
		"what grows when it is encoded":       operations(`{"op":"add","path":"/x","value":"`+strings.Repeat("&", 500_000)+`"}`, 2, `{"op":"copy","from":"/x","path":"/y%d"}`),
	} {
		t.Run(name, func(t *testing.T) {
			allocated, err := cost(types.JSONPatchType, patch, before)
			check(t, err, 422, "the copies of a JSON patch add up to more than 3145728 bytes, the limit")
			if allocated > mostBytes {
				t.Errorf("it took %d bytes", allocated)
			}
		})
	}
	if _, err := apply(types.JSONPatchType, operations("", 17, `{"op":"copy","from":"/metadata/annotations/a","path":"/metadata/annotations/b"}`), before); err != nil {
		t.Errorf("copies within the limit: %v", err)
	}
}

// Elements that move since others are inserted and removed are bounded as well: a list of a
// million elements and nine thousand operations would take half a minute.
func TestMovesOfElements(t *testing.T) {
	long := `{"op":"add","path":"/x","value":[` + strings.Repeat("0,", 300_000) + `0]}`
	for name, operation := range map[string]string{
		"insert":         `{"op":"add","path":"/x/0","value":0}`,
		"remove":         `{"op":"remove","path":"/x/0"}`,
		"there and back": `{"op":"move","from":"/x/0","path":"/x/5"}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := apply(types.JSONPatchType, operations(long, 9000, operation), endpoints(t, 1))
			check(t, err, 413, "operations on elements of lists of up to")
			if _, err := apply(types.JSONPatchType, operations(long, 50, operation), endpoints(t, 1)); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := apply(types.JSONPatchType, operations("", 9_990, `{"op":"remove","path":"/subsets/0/addresses/0"}`), endpoints(t, 10_000)); err != nil {
		t.Errorf("all of many addresses: %v", err)
	}
}

func TestNesting(t *testing.T) {
	deep := func(open, inside, shut string, n int) string {
		return strings.Repeat(open, n) + inside + strings.Repeat(shut, n)
	}
	before := endpoints(t, 1)
	for name, tc := range map[string]struct {
		kind  types.PatchType
		patch func(depth int) string // nested so deep in all
	}{
		"objects in a JSON patch":  {types.JSONPatchType, func(n int) string { return `[{"op":"add","path":"/x","value":` + deep(`{"a":`, "1", "}", n-2) + `}]` }},
		"lists in a JSON patch":    {types.JSONPatchType, func(n int) string { return `[{"op":"add","path":"/x","value":` + deep("[", "", "]", n-2) + `}]` }},
		"a pointer":                {types.JSONPatchType, func(n int) string { return `[{"op":"test","path":"` + strings.Repeat("/x", n) + `"}]` }},
		"a pointer to copy":        {types.JSONPatchType, func(n int) string { return `[{"op":"copy","path":"/x","from":"` + strings.Repeat("/x", n) + `"}]` }},
		"objects in a merge patch": {types.MergePatchType, func(n int) string { return deep(`{"a":`, "1", "}", n) }},
		"lists in a merge patch":   {types.MergePatchType, func(n int) string { return `{"x":` + deep("[", "", "]", n-1) + "}" }},
		"objects in a test":        {types.JSONPatchType, func(n int) string { return `[{"op":"test","path":"/x","value":` + deep(`{"a":`, "1", "}", n-2) + `}]` }},
		"a strategic patch":        {types.StrategicMergePatchType, func(n int) string { return `{"x":"}{\"\\","metadata":` + deep(`{"a":`, "1", "}", n-1) + "}" }},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := patch.Parse(tc.kind, []byte(tc.patch(100)), nil); err != nil && strings.Contains(err.Error(), "deep") {
				t.Errorf("100 levels: %v", err)
			}
			for _, depth := range []int{101, 9000, 400_000} {
				allocated, err := cost(tc.kind, tc.patch(depth), before)
				check(t, err, 400, "more than 100 levels deep, the limit")
				if allocated > mostBytes {
					t.Errorf("it took %d bytes", allocated)
				}
			}
		})
	}
}

// The library decodes a large value again for each level that it finds it at.
func TestWorkAtDepthIsBounded(t *testing.T) {
	large := `["` + strings.Repeat("x", 2<<20) + `"]`
	deep := strings.Repeat(`{"a":`, 90) + large + strings.Repeat("}", 90)
	// Copies of copies, of which the last is decoded for each level.
	way := strings.Repeat("/a", 88)
	copied := `[{"op":"add","path":"/x","value":` + strings.Repeat(`{"a":`, 88) + `["` + strings.Repeat("x", 1000) + `"]` + strings.Repeat("}", 88) + "}" +
		strings.Repeat(`,{"op":"copy","from":"/x`+way+`/0","path":"/x`+way+`/-"}`, 1200) +
		`,{"op":"copy","from":"/x","path":"/y"},{"op":"test","path":"/y` + way + `/0","value":1}]`
	const words = "levels deep are too costly for a patch and an object of"
	for name, operations := range map[string]string{
		"a pointer":  `[{"op":"add","path":"/x","value":` + deep + `},{"op":"test","path":"/x` + strings.Repeat("/a", 90) + `/0","value":1}]`,
		"a test":     `[{"op":"add","path":"/x","value":` + large + `},{"op":"test","path":"/x","value":` + deep[:90*len(`{"a":`)] + "1" + strings.Repeat("}", 90) + `}]`,
		"copies":     copied,
		"moves down": operations(`{"op":"add","path":"/x","value":`+large+`}`, 100, `{"op":"add","path":"/y","value":{}},{"op":"move","from":"/x","path":"/y/x"},{"op":"move","from":"/y","path":"/x"}`),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := apply(types.JSONPatchType, operations, endpoints(t, 1))
			check(t, err, 413, words)
		})
	}
	for kind, data := range map[types.PatchType]string{
		types.JSONPatchType:  `[{"op":"add","path":"/x","value":` + deep + `}]`, // it is not looked into
		types.MergePatchType: `{"x":` + deep + `}`,
	} {
		if _, err := apply(kind, data, endpoints(t, 1)); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := apply(types.JSONPatchType, `[{"op":"replace","path":"/subsets/0/addresses/0/targetRef/name","value":"x"}]`, endpoints(t, 50_000)); err != nil {
		t.Errorf("a field of a large object: %v", err)
	}
}

// The outcome is bounded as Apply promises.
func TestOutcomeIsBounded(t *testing.T) {
	before := endpoints(t, 100)
	worst := strings.Repeat("<", 1<<20)
	for kind, data := range map[types.PatchType]string{
		types.JSONPatchType:           `[{"op":"add","path":"/metadata/x","value":"` + worst + `"}]`,
		types.MergePatchType:          `{"metadata":{"x":"` + worst + `"}}`,
		types.StrategicMergePatchType: `{"metadata":{"labels":{"x":"` + worst + `"}}}`,
	} {
		after, err := apply(kind, data, before)
		if err != nil || !json.Valid(after) {
			t.Fatal(err)
		}
		if most := len(before) + 6*len(data) + patch.MaxCopies; len(after) > most {
			t.Errorf("%s: %d bytes, more than %d", kind, len(after), most)
		}
	}
}

// What a patch weighs grows with its work for the object, and is nothing where there is none or
// where it is refused.
func TestWeigh(t *testing.T) {
	before, small := endpoints(t, 10_000), endpoints(t, 1)
	finalizers := func(n int) string {
		return `{"metadata":{"finalizers":["a/b"` + strings.Repeat(`,"a/b"`, n-1) + `]}}`
	}
	for name, tc := range map[string]struct {
		kind        types.PatchType
		patch       string
		before      []byte
		least, most int
	}{
		"a label":                  {types.JSONPatchType, `[{"op":"add","path":"/metadata/labels/x","value":"y"}]`, before, 1, 4096},
		"a field of an address":    {types.JSONPatchType, `[{"op":"replace","path":"/subsets/0/addresses/0/ip","value":"x"}]`, before, 3 * len(before), 5 * len(before)},
		"moves":                    {types.JSONPatchType, operations("", 1000, `{"op":"move","from":"/subsets/0/addresses/0","path":"/subsets/0/addresses/9"}`), before, 2 * 1000 * 10_000 / 8, 10 * len(before)},
		"moves in a short list":    {types.JSONPatchType, operations("", 1000, `{"op":"move","from":"/subsets/0/addresses/0","path":"/subsets/0/addresses/0"}`), small, 1000, 1 << 20},
		"copies of copies":         {types.JSONPatchType, operations("", 40, `{"op":"copy","from":"/subsets","path":"/subsets/-"}`), small, 2 * patch.MaxCopies, 3 * patch.MaxCopies},
		"too many moves":           {types.JSONPatchType, operations("", 9000, `{"op":"move","from":"/subsets/0/addresses/0","path":"/subsets/0/addresses/9"}`), before, 0, 0},
		"a merge patch":            {types.MergePatchType, finalizers(400), before, 0, 0},
		"lists that are merged":    {types.StrategicMergePatchType, finalizers(400), before, 400 * 400, 16 * 400 * 400},
		"a list that is replaced":  {types.StrategicMergePatchType, `{"subsets":[{"addresses":[{"ip":"10.0.0.1"}]}]}`, before, 0, 0},
		"too long a list":          {types.StrategicMergePatchType, finalizers(1001), before, 0, 0},
		"what is no object at all": {types.StrategicMergePatchType, finalizers(1), []byte("x"), 0, 0},
	} {
		p, err := patch.Parse(tc.kind, []byte(tc.patch), &corev1.Endpoints{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := p.Weigh(tc.before); got < tc.least || got > tc.most {
			t.Errorf("%s: it weighs %d, want %d to %d", name, got, tc.least, tc.most)
		}
	}
}
