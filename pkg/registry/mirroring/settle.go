package mirroring

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/storage"
)

// Settle brings every unit in step: what is stored may be of a time without mirroring, or of another
// server that does without. report is told of failures.
func (m *Mirroring) Settle(ctx context.Context, report func(error)) {
	for _, s := range m.stores() {
		if s.WaitFor(ctx, 0) != nil {
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

// units returns all units that have Endpoints or slices.
func (m *Mirroring) units() ([]string, error) {
	endpoints, err := m.Endpoints.All()
	if err != nil {
		return nil, err
	}
	written, err := m.Slices.All()
	if err != nil {
		return nil, err
	}
	var units []string
	for _, e := range endpoints {
		units = append(units, e.Namespace+"/"+e.Name)
	}
	for _, slice := range written {
		if unit := Unit(slice); unit != "" {
			units = append(units, unit)
		}
	}
	slices.Sort(units)
	return slices.Compact(units), nil
}

// settleUnit brings a unit in step, as often as other writes come in between.
func (m *Mirroring) settleUnit(ctx context.Context, namespace, name string) error {
	for {
		fx := &Effects{Mirroring: m, ctx: ctx, at: object.Identity{Namespace: namespace, Name: name}}
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
		release, err := m.Capacity.Reserve(fx.adds)
		if err != nil {
			return err
		}
		response, err := fx.commit()
		release(response, false, err)
		if err != nil || response.Succeeded {
			return err
		}
		m.CatchUp(ctx, namespace, response.Revision)
	}
}

// commit commits effects that no write has: the first of them is the one that the transaction is
// for.
func (fx *Effects) commit() (storage.WriteResponse, error) {
	first := fx.also.Writes[0]
	fx.also.Writes = fx.also.Writes[1:]
	expect := int64(0)
	for _, c := range fx.also.Conditions {
		if c.Key == first.Key {
			expect = c.Max
		}
	}
	if first.Delete {
		return fx.Storage.Delete(fx.ctx, first.Key, storage.DeleteOptions{Expect: expect, Also: fx.also})
	}
	return fx.Storage.Put(fx.ctx, first.Key, first.Value, storage.PutOptions{Expect: expect, Also: fx.also})
}
