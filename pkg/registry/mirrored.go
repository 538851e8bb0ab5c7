package registry

import (
	"context"
	"fmt"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/capacity"
	"github.com/berth-project/berth/pkg/registry/mirroring"
)

// mirrorStores has the stores of Endpoints, Services and EndpointSlices kept in step, if cfg asks for
// that.
func (r *Registry) mirrorStores(cfg Config) error {
	if cfg.Mirroring == mirroring.None {
		return nil
	}
	m := &mirroring.Mirroring{
		Mode: cfg.Mirroring, MaxObjectBytes: cfg.MaxObjectBytes, Storage: cfg.Storage, Namespaces: r.namespaces, Capacity: r.capacity,
	}
	for name, place := range map[string]*mirroring.Store{"endpoints": &m.Endpoints, "services": &m.Services, "endpointslices": &m.Slices} {
		for _, s := range r.stores {
			if s.resource.API.Name == name {
				*place, s.mirroring = mirrored{s}, m
			}
		}
		if *place == nil {
			return fmt.Errorf("mirroring needs the resource %s", name)
		}
	}
	r.mirroring = m
	return nil
}

// mirrored is a Store as a Mirroring knows it.
type mirrored struct{ *Store }

var _ mirroring.Store = mirrored{}

// Key is the resource's key.
func (s mirrored) Key(namespace, name string) string { return s.resource.key(namespace, name) }

// Cache is the store's cache.
func (s mirrored) Cache() capacity.Cache { return s.cache }

// Cached is mirroring.Store's.
func (s mirrored) Cached(key string) (o *object.Object, revision int64, err error) {
	entry, _, err := s.cache.Get(key)
	if err != nil || entry == nil {
		return nil, 0, err
	}
	return entry.Value.object, entry.Revision, nil
}

// All is mirroring.Store's.
func (s mirrored) All() ([]*object.Object, error) {
	snapshot, err := s.cache.Snapshot()
	if err != nil {
		return nil, err
	}
	var all []*object.Object
	snapshot.Ascend(s.resource.prefix(""), "", func(entry *cacheEntry) bool {
		if o := entry.Value.object; o != nil {
			all = append(all, o)
		}
		return true
	})
	return all, nil
}

// unitOf is the index of the cache of slices.
func unitOf(v stored) string {
	if v.object == nil {
		return ""
	}
	return mirroring.Unit(v.object)
}

// OfUnit is mirroring.Store's.
func (s mirrored) OfUnit(unit string) ([]*object.Object, int64, error) {
	entries, revision, err := s.cache.Indexed(unit)
	found := make([]*object.Object, len(entries))
	for i, entry := range entries {
		found[i] = entry.Value.object
	}
	return found, revision, err
}

// WaitFor is that of the cache.
func (s mirrored) WaitFor(ctx context.Context, revision int64) error {
	return s.cache.WaitFor(ctx, revision)
}

// Prepare is mirroring.Store's.
func (s mirrored) Prepare(obj, old mirroring.APIObject, manager string) error {
	live := old
	if old == nil {
		live = s.resource.New()
	}
	if err := s.parts[""].owners.Update(live, obj, manager); err != nil {
		return err
	}
	if old == nil {
		s.resource.Strategy.PrepareForCreate(obj)
	} else {
		s.resource.Strategy.PrepareForUpdate(obj, old)
	}
	return nil
}

// Draft is Store.draft.
func (s mirrored) Draft(obj mirroring.APIObject, at object.Identity, atLeast int) (*object.Object, error) {
	return s.draft(obj, at, atLeast)
}
