package etcd

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/storage"
)

// etcd deletes what is attached to a lease when that expires, whichever member or replica is
// running by then. A lease of its own for each key would cost etcd more than the key: those that
// are written within some time share one, and live a little longer for it. The numbers are
// kube-apiserver's.
const (
	// leaseShare is the part of the time to live in which a lease is shared, as its reciprocal,
	// and maxLeaseShare bounds that time.
	leaseShare, maxLeaseShare = 20, time.Minute
	// maxLeaseKeys bounds the keys that are deleted at once.
	maxLeaseKeys = 1000
)

// leases are those that keys are attached to now, by their time to live.
type leases struct {
	grant func(ctx context.Context, key string, seconds int64) (*clientv3.LeaseGrantResponse, error)
	lock  chan struct{} // has an element while one looks at current, or asks for a lease
	// current has as many leases as there are times to live, each of a resource.
	current map[time.Duration]*lease
}

type lease struct {
	id    clientv3.LeaseID
	until time.Time // it lives at least until then
	keys  int       // that were to be attached
}

func newLeases(grant func(ctx context.Context, key string, seconds int64) (*clientv3.LeaseGrantResponse, error)) *leases {
	return &leases{grant: grant, lock: make(chan struct{}, 1), current: map[time.Duration]*lease{}}
}

// get returns a lease for a key that is to live so long from now on, at least.
func (l *leases) get(ctx context.Context, key string, ttl time.Duration) (clientv3.LeaseID, error) {
	select {
	case l.lock <- struct{}{}:
		defer func() { <-l.lock }()
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", storage.ErrUnavailable, ctx.Err())
	}
	start := time.Now()
	if shared := l.current[ttl]; shared != nil && shared.keys < maxLeaseKeys && !start.Add(ttl).After(shared.until) {
		shared.keys++
		return shared.id, nil
	}
	lives := ttl + min(ttl/leaseShare, maxLeaseShare)
	granted, err := l.grant(ctx, key, int64((lives+time.Second-1)/time.Second))
	if err != nil {
		return 0, err
	}
	l.current[ttl] = &lease{granted.ID, start.Add(time.Duration(granted.TTL) * time.Second), 1}
	return granted.ID, nil
}

// forget has the next key get another lease than one that etcd does not know any more.
func (l *leases) forget(ctx context.Context, ttl time.Duration, id clientv3.LeaseID) {
	select {
	case l.lock <- struct{}{}:
		defer func() { <-l.lock }()
	case <-ctx.Done():
		return
	}
	if shared := l.current[ttl]; shared != nil && shared.id == id {
		delete(l.current, ttl)
	}
}
