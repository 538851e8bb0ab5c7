package mirroring

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/mirror"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
)

// maxTogether is how many slices the deletion of one takes along. An etcd takes 128 writes at least.
const maxTogether = 50

// togetherKey is the context's key of what is to be deleted together: uids by key.
type togetherKey struct{}

// Together returns a context in which the deletion of one of the listed slices takes others of its unit
// along: to show the rest again for each of them would cost as much as all of them each time. For
// other objects it returns ctx.
func (m *Mirroring) Together(ctx context.Context, s Store, listed *object.List) context.Context {
	if m == nil || s != m.Slices {
		return ctx
	}
	uids := map[string]types.UID{}
	for _, o := range listed.Objects {
		if !mirror.IsMirror(o.Labels()) {
			uids[o.Key] = o.UID()
		}
	}
	return context.WithValue(ctx, togetherKey{}, uids)
}

// takeAlong deletes slices of the unit that are to be deleted with the one that is.
func (fx *Effects) takeAlong(u *unit) error {
	uids, _ := fx.ctx.Value(togetherKey{}).(map[string]types.UID)
	if uids == nil {
		return nil
	}
	kept, taken := u.written[:0:0], 0
	for _, w := range u.written {
		metadata, err := w.stored.Metadata()
		if err != nil {
			return err
		}
		if uid, listed := uids[w.stored.Key]; taken == maxTogether || !listed || uid != w.stored.UID() || objectmeta.Hold(metadata.Finalizers) {
			kept = append(kept, w)
			continue
		}
		fx.delete(w.stored)
		taken++
	}
	u.written = kept
	return nil
}
