package registry_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/berth-project/berth/pkg/registry"
)

func TestScanPlain(t *testing.T) {
	for name, tc := range map[string]struct {
		data  string
		empty int // -1: it is not plain
	}{
		"an object":             {`{"a":{"b":["c",1,-2,true]}}`, 0},
		"space":                 {"{ \"a\" :\n[ \"b\" , 10 ]\t}", 0},
		"empty strings":         {`{"a":"","b":["",""]}`, 3},
		"an empty name":         {`{"":"a"}`, 1},
		"quotes":                {`{"a":"\"","b":"\\","c":"\\\"","d":"\"\""}`, 0},
		"what a string may say": {`{"a":"null {} [] 0 \u0000"}`, 0},
		"numbers":               {`{"a":[100,1.05,2e10]}`, 0},
		"null":                  {`{"a":null}`, -1},
		"zero":                  {`{"a":0}`, -1},
		"zero behind space":     {`{"a": 0}`, -1},
		"zero in a list":        {`{"a":[0]}`, -1},
		"zeros in a list":       {`{"a":[1,0]}`, -1},
		"less than zero":        {`{"a":-0}`, -1},
		"less than one":         {`{"a":0.5}`, -1},
		"an empty object":       {`{"a":{}}`, -1},
		"an empty list":         {`{"a":[ ]}`, -1},
		"nothing":               {`{ }`, -1},
		"no object":             {`[1]`, -1},
		"no end":                {`{"a`, -1},
		"no data":               {``, -1},
	} {
		t.Run(name, func(t *testing.T) {
			empty, ok := registry.ScanPlain([]byte(tc.data))
			if ok != (tc.empty >= 0) || ok && empty != tc.empty {
				t.Errorf("%d, %v", empty, ok)
			}
		})
	}
}

func TestMergeList(t *testing.T) {
	for name, tc := range map[string]struct{ live, given, want string }{
		"nothing given":          {"a b", "", "a b"},
		"nothing there":          {"", "b a", "b a"},
		"the same":               {"a b", "a b", "a b"},
		"one of them":            {"a b c", "b", "a b c"},
		"others":                 {"a b", "x y", "a b x y"},
		"in front":               {"a b", "x a", "x a b"},
		"between":                {"a b c", "a x c", "a b x c"},
		"behind what is before":  {"a b", "x b", "a x b"},
		"in another order":       {"a b", "b a", "?"},
		"in another order, some": {"a x b y", "b z a", "?"},
	} {
		t.Run(name, func(t *testing.T) {
			same := func(x, y string) bool { return x == y }
			live := strings.Fields(tc.live)
			got, ok := registry.MergeList(live, strings.Fields(tc.given), same)
			if want := strings.Fields(tc.want); ok != (tc.want != "?") || ok && !slices.Equal(got, want) {
				t.Errorf("%q, %v", got, ok)
			}
			if !slices.Equal(live, strings.Fields(tc.live)) {
				t.Errorf("live became %q", live)
			}
		})
	}
}
