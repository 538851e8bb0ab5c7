package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/object"
)

// Old versions that only the store has are read within bounds: a page ends early, and a list
// that cannot end early is refused.
func TestLargeOldVersions(t *testing.T) {
	forgetHistory(t)
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	want := []string{"e-0", "e-1", "e-2", "e-3"}
	write := func(bytes int) {
		for _, name := range want {
			value := fmt.Appendf(nil, `{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":%q,"namespace":%q},"subsets":[{"addresses":[{"ip":"10.0.0.1","hostname":"%s"}]}]}`,
				name, ns, strings.Repeat("x", bytes))
			packed, err := object.Pack(value)
			if err != nil {
				t.Fatal(err)
			}
			put(t, s.endpoints.Key(ns, name), packed)
		}
	}
	write(20 << 20)
	version := formatRevision(storeRevision(t))
	write(1)
	s.list(t, ns, metav1.ListOptions{}) // the cache has the newest versions

	var got []string
	opts := metav1.ListOptions{Limit: 3, ResourceVersion: version}
	for pages := 1; ; pages++ {
		list, _, err := s.endpoints.List(t.Context(), ns, &opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Objects {
			got = append(got, o.Name)
		}
		if left := len(want) - len(got); left > 0 && (list.Meta.RemainingItemCount == nil || *list.Meta.RemainingItemCount != int64(left)) {
			t.Errorf("remaining %v, want %d", list.Meta.RemainingItemCount, left)
		}
		list.Done()
		if list.Meta.Continue == "" {
			if pages != len(want) {
				t.Errorf("%d pages, want one for each object", pages)
			}
			break
		}
		opts = metav1.ListOptions{Limit: 3, Continue: list.Meta.Continue}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	exact := metav1.ListOptions{ResourceVersion: version, ResourceVersionMatch: metav1.ResourceVersionMatchExact}
	_, _, err := s.endpoints.List(t.Context(), ns, &exact)
	checkStatus(t, err, 400, "the list has more than 67108864 bytes of old versions: ask for it in pages (limit)")
	exact.FieldSelector = "metadata.name=e-1"
	list, _, err := s.endpoints.List(t.Context(), ns, &exact)
	if err != nil || len(list.Objects) != 1 {
		t.Fatalf("what a selector leaves out counts: %v", err)
	}
	list.Done()
}
