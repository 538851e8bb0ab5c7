package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/storage"
)

// settleAll brings every unit in step: what is stored may be of a time without mirroring, or of
// another server that does without.
func (m *mirroring) settleAll(ctx context.Context, report func(error)) {
	for _, s := range []*Store{m.endpoints, m.services, m.slices} {
		if s.cache.WaitFor(ctx, 0) != nil {
			return
		}
	}
	units, err := m.units()
	if err != nil {
		report(fmt.Errorf("bringing Endpoints and EndpointSlices in step: %w", err))
		return
	}
	for _, key := range units {
		if ctx.Err() != nil {
			return
		}
		namespace, name, _ := strings.Cut(key, "/")
		if err := m.settleUnit(ctx, namespace, name); err != nil && ctx.Err() == nil {
			report(fmt.Errorf("bringing the Endpoints and EndpointSlices of %s in step: %w", key, err))
		}
	}
}

// units returns the keys <namespace>/<name> of all units that have Endpoints or slices.
func (m *mirroring) units() ([]string, error) {
	var units []string
	for _, s := range []*Store{m.endpoints, m.slices} {
		snapshot, err := s.cache.Snapshot()
		if err != nil {
			return nil, err
		}
		snapshot.Ascend(s.resource.prefix(""), "", func(entry *cacheEntry) bool {
			unit := unitOf(entry.Value)
			if s == m.endpoints {
				unit = strings.TrimPrefix(entry.Key, s.resource.prefix(""))
			}
			if unit != "" {
				units = append(units, unit)
			}
			return true
		})
	}
	slices.Sort(units)
	return slices.Compact(units), nil
}

// settleUnit brings a unit in step, as often as other writes come in between.
func (m *mirroring) settleUnit(ctx context.Context, namespace, name string) error {
	for {
		fx := &effects{mirroring: m, ctx: ctx, at: object.Identity{Namespace: namespace, Name: name}}
		u := &unit{namespace: namespace, name: name}
		if err := fx.readService(u); err != nil {
			return err
		}
		if ok, err := fx.readEndpoints(u); err != nil || !ok {
			return err
		}
		if err := fx.readSlices(u); err != nil {
			return err
		}
		if err := fx.settle(u); err != nil || len(fx.also.Writes) == 0 {
			return err
		}
		release, err := m.endpoints.capacity.Reserve(fx.grows(m.endpoints, 0))
		if err != nil {
			return err
		}
		response, err := fx.commit()
		release(response, false, err)
		if err != nil || response.Succeeded {
			return err
		}
		m.catchUp(ctx, namespace, response.Revision)
	}
}

// commit commits effects that no write has: the first of them is the one that the transaction is
// for.
func (fx *effects) commit() (storage.WriteResponse, error) {
	first := fx.also.Writes[0]
	fx.also.Writes = fx.also.Writes[1:]
	expect := int64(0)
	for _, c := range fx.also.Conditions {
		if c.Key == first.Key {
			expect = c.Max
		}
	}
	if first.Delete {
		return fx.slices.storage.Delete(fx.ctx, first.Key, storage.DeleteOptions{Expect: expect, Also: fx.also})
	}
	return fx.slices.storage.Put(fx.ctx, first.Key, first.Value, storage.PutOptions{Expect: expect, Also: fx.also})
}
