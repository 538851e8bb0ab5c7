package mirror_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/registry/mirror"
	"github.com/berth-project/berth/pkg/registry/resources/endpoints"
)

// The pairs of a Service and Endpoints in testdata/inputs.json.gz, in rounds of writes, and
// what Kubernetes' mirror made of them, in testdata/slices.json.gz. A round of slices that is
// null is as the one before it.
type pair struct {
	Name   string
	Note   string
	Rounds [][]struct {
		Op, Kind string
		Body     json.RawMessage
	}
}

type recording struct {
	Name string
	// Refused says why Kubernetes never gets the pair mirrored.
	Refused string
	// Truncated: Kubernetes mirrors only the first 1,000 addresses.
	Truncated bool
	After     [][]map[string]any
}

func TestRecorded(t *testing.T) {
	var pairs []pair
	var recorded []recording
	load(t, "inputs.json.gz", &pairs)
	load(t, "slices.json.gz", &recorded)
	if len(pairs) != 150 || len(recorded) != len(pairs) {
		t.Fatalf("%d pairs, %d recordings", len(pairs), len(recorded))
	}
	for i, p := range pairs {
		t.Run(p.Name, func(t *testing.T) { replay(t, p, recorded[i]) })
	}
}

func replay(t *testing.T, p pair, want recording) {
	var service *corev1.Service
	var e *corev1.Endpoints
	stored := newState()
	var expected []map[string]any
	for n, round := range p.Rounds {
		for _, w := range round {
			switch w.Kind {
			case "Service":
				service = decode[corev1.Service](t, w.Body)
			case "Endpoints":
				if e = decode[corev1.Endpoints](t, w.Body); e != nil {
					e.Namespace, e.UID = "ns", types.UID("<uid of Endpoints "+p.Name+">")
					endpoints.Strategy{}.Default(e)
				}
			}
		}
		mirrored := e
		if e == nil || service == nil || len(service.Spec.Selector) > 0 || !mirror.Mirrors(e) {
			mirrored = nil
		}
		before := stored.names()
		stored.update(t, mirrored)
		checkNames(t, before, stored.names())
		if want.Refused != "" {
			continue // update has validated the slices
		}
		if n == 0 || want.After[n] != nil {
			expected = want.After[n]
		}
		got := masked(t, stored, p.Name)
		if want.Truncated {
			expected, got = merge(t, expected), merge(t, got)
			allowMore(t, expected, got)
		}
		if strings.Contains(p.Note, "only the targets' versions") { // which Kubernetes does not see
			dropTargetVersions(expected)
			dropTargetVersions(got)
		}
		if len(expected)+len(got) > 0 && !cmp.Equal(expected, got) {
			t.Errorf("round %d (%s) (-want +got)\n%s", n+1, p.Note, cmp.Diff(expected, got))
		}
	}
}

// checkNames holds that slices of the same family and ports keep their names.
func checkNames(t *testing.T, before, after map[string][]string) {
	t.Helper()
	for key, names := range before {
		for i, name := range after[key] {
			if i < len(names) && !slices.Contains(names, name) {
				t.Errorf("the slices of %s were %q and are %q", key, names, after[key])
			}
		}
	}
}

// masked returns the slices as they are recorded.
func masked(t *testing.T, s *state, name string) []map[string]any {
	var found []map[string]any
	for _, slice := range s.slices {
		m := *decode[map[string]any](t, []byte(show(t, slice)))
		meta := m["metadata"].(map[string]any)
		for _, key := range []string{"namespace", "generateName", "creationTimestamp", "uid"} {
			delete(meta, key)
		}
		meta["name"] = name + "-<generated>"
		for _, key := range []string{"endpoints", "ports"} {
			if list, ok := m[key].([]any); ok {
				sortByJSON(t, list)
			}
		}
		found = append(found, m)
	}
	sortByJSON(t, found)
	return found
}

// merge joins the slices that differ in their endpoints alone.
func merge(t *testing.T, in []map[string]any) []map[string]any {
	byRest := map[string]map[string]any{}
	for _, slice := range in {
		m := *decode[map[string]any](t, []byte(show(t, slice)))
		list := m["endpoints"].([]any)
		delete(m, "endpoints")
		rest := show(t, m)
		if byRest[rest] == nil {
			m["endpoints"] = []any{}
			byRest[rest] = m
		}
		byRest[rest]["endpoints"] = append(byRest[rest]["endpoints"].([]any), list...)
	}
	var out []map[string]any
	for _, m := range byRest {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b map[string]any) int {
		return strings.Compare(show(t, a["addressType"]), show(t, b["addressType"]))
	})
	return out
}

// allowMore takes those endpoints from got that are beyond the expected ones.
func allowMore(t *testing.T, expected, got []map[string]any) {
	for i := range min(len(expected), len(got)) {
		wanted := map[string]bool{}
		for _, endpoint := range expected[i]["endpoints"].([]any) {
			wanted[show(t, endpoint)] = true
		}
		got[i]["endpoints"] = slices.DeleteFunc(got[i]["endpoints"].([]any), func(endpoint any) bool { return !wanted[show(t, endpoint)] })
		sortByJSON(t, got[i]["endpoints"].([]any))
		sortByJSON(t, expected[i]["endpoints"].([]any))
	}
}

func dropTargetVersions(in []map[string]any) {
	for _, slice := range in {
		for _, endpoint := range slice["endpoints"].([]any) {
			if ref, ok := endpoint.(map[string]any)["targetRef"].(map[string]any); ok {
				delete(ref, "resourceVersion")
			}
		}
	}
}

func sortByJSON[T any](t *testing.T, list []T) {
	byJSON := map[string][]T{}
	for _, item := range list {
		key := show(t, item)
		byJSON[key] = append(byJSON[key], item)
	}
	list = list[:0]
	for _, key := range slices.Sorted(maps.Keys(byJSON)) {
		list = append(list, byJSON[key]...)
	}
}

func show(t *testing.T, v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func decode[T any](t *testing.T, data []byte) *T {
	t.Helper()
	if len(data) == 0 {
		return nil
	}
	v := new(T)
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
	return v
}

func load(t *testing.T, name string, to any) {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, to); err != nil {
		t.Fatal(err)
	}
}
