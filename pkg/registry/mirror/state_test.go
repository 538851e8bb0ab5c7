package mirror_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/registry/mirror"
	"github.com/berth-project/berth/pkg/registry/resources/endpointslices"
)

// state is the slices that mirror one Endpoints, as a server keeps them.
type state struct {
	slices map[string]*discoveryv1.EndpointSlice
	count  int
}

func newState() *state { return &state{slices: map[string]*discoveryv1.EndpointSlice{}} }

// changes are the names of slices.
type changes struct{ created, updated, deleted []string }

func (c changes) total() int { return len(c.created) + len(c.updated) + len(c.deleted) }

// update makes the state mirror e, nil for nothing, and holds each slice to be valid.
func (s *state) update(t *testing.T, e *corev1.Endpoints) changes {
	t.Helper()
	names := slices.Collect(maps.Keys(s.slices)) // in any order
	existing := make([]mirror.Existing, len(names))
	for i, name := range names {
		var err error
		if existing[i], err = mirror.Summarize([]byte(show(t, s.slices[name]))); err != nil {
			t.Fatal(err)
		}
	}
	var done changes
	var wanted []mirror.Slice
	surplus := indices(names)
	if e != nil {
		var err error
		if wanted, surplus, err = mirror.Slices(e, existing); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range wanted {
		slice := w.DeepCopy()
		if len(slice.Endpoints) == 0 {
			t.Error("a slice without endpoints")
		}
		if at := w.Takes; at >= 0 {
			old := s.slices[names[at]]
			slice.Name, slice.UID = old.Name, old.UID
			if old.AddressType != slice.AddressType {
				t.Errorf("%s is to change its family", old.Name)
			}
			if equality.Semantic.DeepEqual(old, slice) {
				continue
			}
			done.updated = append(done.updated, slice.Name)
		} else {
			s.count++
			slice.Name = fmt.Sprintf("%s%05d", slice.GenerateName, s.count)
			slice.UID = types.UID(slice.Name)
			done.created = append(done.created, slice.Name)
		}
		if errs := (endpointslices.Strategy{}).Validate(slice); len(errs) > 0 {
			t.Errorf("%s is invalid: %v", slice.Name, errs.ToAggregate())
		}
		s.slices[slice.Name] = slice
	}
	for _, at := range surplus {
		done.deleted = append(done.deleted, names[at])
		delete(s.slices, names[at])
	}
	if len(s.slices) != len(wanted) {
		t.Errorf("%d slices, want %d", len(s.slices), len(wanted))
	}
	return done
}

// names returns the slices' names by family and ports.
func (s *state) names() map[string][]string {
	found := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(s.slices)) {
		slice := s.slices[name]
		key := string(slice.AddressType)
		for _, p := range slice.Ports {
			key += fmt.Sprintf(" %s:%d/%s", *p.Name, *p.Port, *p.Protocol)
			if p.AppProtocol != nil {
				key += "/" + *p.AppProtocol
			}
		}
		found[key] = append(found[key], name)
	}
	return found
}

func indices(names []string) []int {
	all := make([]int, len(names))
	for i := range all {
		all[i] = i
	}
	return all
}
