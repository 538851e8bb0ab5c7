package registry_test

import (
	"bytes"
	"testing"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/berth-project/berth/pkg/registry"
)

func TestParseFieldSet(t *testing.T) {
	for name, tc := range map[string]struct {
		data string
		size int // 0: it is left to the library
	}{
		"a field":                 {`{"f:subsets":{}}`, 1},
		"a collection":            {`{"f:metadata":{"f:labels":{".":{},"f:a":{},"f:a-b":{}}}}`, 3},
		"elements":                {`{"f:metadata":{"f:finalizers":{"v:\"x/f\"":{}},"f:ownerReferences":{"k:{\"uid\":\"u\"}":{}}}}`, 2},
		"a collection alone":      {`{"f:metadata":{"f:labels":{}}}`, 1},
		"nothing":                 {`{}`, 0},
		"the metadata":            {`{"f:metadata":{}}`, 0},
		"all of the metadata":     {`{"f:metadata":{".":{},"f:labels":{}}}`, 0},
		"not as it is written":    {`{"f:metadata":{"f:labels":{".":{}}}}`, 0},
		"space":                   {`{"f:subsets": {}}`, 0},
		"more":                    {`{"f:subsets":{}}{}`, 0},
		"no end":                  {`{"f:subsets":{}`, 0},
		"out of order":            {`{"f:metadata":{"f:labels":{"f:b":{},"f:a":{}}}}`, 0},
		"twice":                   {`{"f:subsets":{},"f:subsets":{}}`, 0},
		"in an atomic field":      {`{"f:subsets":{"i:0":{}}}`, 0},
		"in an owner":             {`{"f:metadata":{"f:ownerReferences":{"k:{\"uid\":\"u\"}":{"f:name":{}}}}}`, 0},
		"a name with a quote":     {`{"f:metadata":{"f:labels":{"f:a\"b":{}}}}`, 0},
		"a name without a name":   {`{"f:metadata":{"f:labels":{"f:":{}}}}`, 0},
		"a number":                {`{"f:metadata":{"f:finalizers":{"v:1":{}}}}`, 0},
		"a key that does not end": {`{"f:metadata":{"f:ownerReferences":{"k:{\"uid\":\"u\"":{}}}}`, 0},
		"an unknown kind":         {`{"x:subsets":{}}`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			set, ok := registry.ParseFieldSet([]byte(tc.data))
			if ok != (tc.size > 0) || ok && len(set) != tc.size {
				t.Errorf("%v, %q", ok, set)
			}
		})
	}
}

// FuzzFieldSet holds sets of fields to the library's: what it reads, what it writes, and
// what two sets have together and apart.
func FuzzFieldSet(f *testing.F) {
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x, ok := registry.ParseFieldSet(a)
		if !ok {
			return
		}
		want := readSet(t, a)
		checkSet(t, "read", x, want)
		if !bytes.Equal(x.FieldsV1().GetRawBytes(), a) {
			t.Errorf("%s became %s", a, x.FieldsV1())
		}
		y, ok := registry.ParseFieldSet(b)
		if !ok {
			return
		}
		other := readSet(t, b)
		checkSet(t, "with", x.With(y), want.Union(other))
		checkSet(t, "without", x.Without(y), want.Difference(other))
		if got, want := x.Meets(y), !want.Intersection(other).Empty(); got != want {
			t.Errorf("meets: %v, want %v", got, want)
		}
	})
}

func readSet(t *testing.T, data []byte) *fieldpath.Set {
	t.Helper()
	set := fieldpath.NewSet()
	if err := set.FromJSON(bytes.NewReader(data)); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return set
}

func checkSet(t *testing.T, what string, got registry.FieldSet, want *fieldpath.Set) {
	t.Helper()
	data, err := want.ToJSON()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.FieldsV1().GetRawBytes(), data) {
		t.Errorf("%s: %s, want %s", what, got.FieldsV1(), data)
	}
}
