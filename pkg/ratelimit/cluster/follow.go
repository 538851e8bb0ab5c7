package cluster

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/berth-project/berth/pkg/storage"
)

// peers are the replicas that are registered, this one included.
type peers struct {
	live     map[string]struct{}
	revision int64 // of the store, up to which they are known; 0: they are not
}

// count returns how many replicas there are, at least 1.
func (p *peers) count() int { return max(1, len(p.live)) }

// isDead reports whether a replica that has a block in a state of the revision is no longer
// registered. It was before it could write there.
func (p *peers) isDead(replica string, revision int64) bool {
	_, live := p.live[replica]
	return !live && p.revision >= revision && p.revision > 0
}

// follow hears what other replicas write until ctx ends. After a failure it is tried again; until then
// what others do is known from transactions alone.
func (l *Limiter) follow(ctx context.Context) {
	for ctx.Err() == nil {
		replaced := l.store.Replaced()
		revision, err := l.list(ctx)
		if err == nil {
			l.watchFrom(ctx, revision, replaced)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

// list reads which replicas there are.
func (l *Limiter) list(ctx context.Context) (revision int64, err error) {
	live := map[string]struct{}{}
	for page, err := range storage.Pages(ctx, l.store, replicaPrefix, storage.ListOptions{}) {
		if err != nil {
			return 0, err
		}
		for _, kv := range page.KVs {
			live[strings.TrimPrefix(kv.Key, replicaPrefix)] = struct{}{}
		}
		revision = page.Revision
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peers = peers{live, revision}
	return revision, nil
}

// watchFrom applies what is written after the revision, until the watch ends or the store is replaced.
func (l *Limiter) watchFrom(ctx context.Context, revision int64, replaced <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	responses := l.store.Watch(ctx, keyPrefix, storage.WatchOptions{Revision: revision})
	l.mu.Lock()
	l.watches++
	l.watch = l.watches
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.watch = 0
		l.mu.Unlock()
	}()
	for {
		select {
		case <-replaced:
			l.mu.Lock()
			l.startOver()
			l.mu.Unlock()
			return
		case response, open := <-responses:
			if !open || response.Err != nil {
				return
			}
			l.apply(response)
		}
	}
}

// startOver forgets the revisions of a store that was replaced by another one, or by an older state.
// The registration is not there any more, or belongs to other blocks. l.mu must be held.
func (l *Limiter) startOver() {
	for _, b := range l.slots {
		b.revision, b.known = 0, 0
	}
	l.peers.revision = 0
	l.sessionUntil = time.Time{}
}

func (l *Limiter) apply(response storage.WatchResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, event := range response.Events {
		if replica, ok := strings.CutPrefix(event.KV.Key, replicaPrefix); ok {
			l.applyReplica(replica, event)
		} else if b := l.names[event.KV.Key]; b != nil {
			l.applyBucket(b, event)
		}
	}
	l.peers.revision = max(l.peers.revision, response.Revision)
}

func (l *Limiter) applyReplica(replica string, event storage.Event) {
	if !event.Deleted {
		l.peers.live[replica] = struct{}{}
		if written, err := strconv.ParseInt(string(event.KV.Value), 10, 64); err == nil {
			l.clock.follow(l.now(), written)
		}
		return
	}
	delete(l.peers.live, replica)
	if replica == l.replica {
		l.sessionUntil = time.Time{}
	}
	_, t := l.advance(l.now())
	for _, b := range l.slots {
		if b.shared.own(replica) > 0 {
			b.shared.advance(t)
			b.shared.leave(replica, 0)
			b.shared.settle()
		}
	}
}

// applyBucket takes what another replica has made of a bucket.
func (l *Limiter) applyBucket(b *bucket, event storage.Event) {
	kv := event.KV
	if event.Deleted {
		kv = nil
	}
	before := b.shared
	if !l.learn(b, kv, event.KV.ModRevision) {
		return
	}
	_, t := l.advance(l.now())
	b.adjust(&before, t)
	if b.asking != nil {
		return // it will see
	}
	switch own := b.shared.own(l.replica); {
	case own != b.blockUnits && b.block != nil:
		b.block, b.blockUnits = nil, 0 // the others have taken this replica for dead
	case own > 0 && (b.block == nil || b.shared.wanted):
		l.tell(b)
	}
}
