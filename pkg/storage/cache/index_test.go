package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/storage"
)

// The index finds what a look at all entries finds, whatever was written, and after a restart.
func TestIndexed(t *testing.T) {
	prefix := newPrefix()
	cfg := stringConfig(shared.store, prefix)
	cfg.Index = func(value string) string {
		if value == "none" {
			return ""
		}
		return value
	}
	c := filled(t, start(t, cfg))
	random := rand.New(rand.NewPCG(1, 2))
	revisions := map[string]int64{}
	for range 300 {
		key := fmt.Sprint(prefix, random.IntN(20))
		if revisions[key] != 0 && random.IntN(3) == 0 {
			w, err := shared.store.Delete(t.Context(), key, storage.DeleteOptions{Expect: revisions[key]})
			if err != nil || !w.Succeeded {
				t.Fatalf("%+v, %v", w, err)
			}
			delete(revisions, key)
			continue
		}
		value := []string{"none", "a", "ab", "b"}[random.IntN(4)]
		w, err := shared.store.Put(t.Context(), key, []byte(value), storage.PutOptions{Expect: revisions[key]})
		if err != nil || !w.Succeeded {
			t.Fatalf("%+v, %v", w, err)
		}
		revisions[key] = w.Revision
	}
	for name, c := range map[string]*running{"followed": c, "filled": filled(t, start(t, cfg))} {
		if err := c.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, value := range []string{"a", "ab", "b", "none", "other"} {
			var want []string
			snapshot(t, c.Cache).Ascend(prefix, "", func(e *Entry[string]) bool {
				if e.Value == value && value != "none" {
					want = append(want, e.Key)
				}
				return true
			})
			found, revision, err := c.Indexed(value)
			if current, _ := c.Revision(); err != nil || revision != current {
				t.Errorf("%s: %d, %v", name, revision, err)
			}
			var got []string
			for _, e := range found {
				got = append(got, e.Key)
			}
			slices.Sort(want)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %q (-want +got)\n%s", name, value, d)
			}
		}
	}
}
