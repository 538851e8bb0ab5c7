package cluster

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/storage"
)

// Keys in the store.
const (
	keyPrefix     = "/berth/ratelimit/"
	bucketPrefix  = keyPrefix + "buckets/"
	replicaPrefix = keyPrefix + "replicas/"
)

const (
	// askTimeout bounds what a request waits for the store. A store that is slower than that is
	// taken for one that does not answer.
	askTimeout = 200 * time.Millisecond
	// maxAttempts bounds how often a transaction is tried again because another replica was first.
	maxAttempts = 8
	// leastTTL is how long a bucket's state is kept after the last change, at least, and maxTTL at
	// most. Times between are powers of two of the first, so that states share their leases.
	leastTTL = 10 * time.Minute
	maxTTL   = 365 * 24 * time.Hour
	// ttlMargin is how long before the end of a lease what depends on it ends.
	ttlMargin = time.Second
)

// bucketKey returns the key of a bucket, from which nobody can tell whose it is.
func bucketKey(key ratelimit.Key) string {
	hash := key.Hash()
	return bucketPrefix + hex.EncodeToString(hash[:16])
}

// ttl returns how long a state is kept, which is at least until the bucket is full.
func (s *stateOf) ttl() time.Duration {
	ttl := leastTTL
	for full := 2 * duration(s.debt/s.rate()); ttl < full && ttl < maxTTL; {
		ttl *= 2
	}
	return ttl
}

// transact gives back what the replica holds of b, and takes n tokens of the bucket and more in
// advance; with 0, it takes nothing. It returns how long the request must wait, 0 if it is
// admitted. l.mu must be held, and is not when it returns.
func (l *Limiter) transact(b *bucket, n int) (wait time.Duration) {
	now, _ := l.advance(l.now())
	a := b.begin(now)
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	wait, err := l.attempt(ctx, b, &a, n)
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		if b.block != nil && (b.shared.own(l.replica) != b.blockUnits || b.shared.wanted) {
			l.tell(b) // others have changed it meanwhile
		}
		close(b.asking)
		b.asking = nil
	}()
	if err == nil {
		return wait
	}
	if !errors.Is(err, storage.ErrUnknownOutcome) { // else it counts as told: to tell it twice charges it twice
		b.undo(&a)
	}
	if errors.Is(err, errContended) {
		l.tell(b)
		return leastWait
	}
	l.fail(err)
	if n == 0 {
		return 0
	}
	now, t := l.advance(l.now())
	return b.admitAlone(now, t, n, l.share)
}

var errContended = errors.New("other replicas were always first")

// attempt is transact until the store has taken a state. An error says that it has not, or that
// nobody knows.
func (l *Limiter) attempt(ctx context.Context, b *bucket, a *asked, n int) (time.Duration, error) {
	for range maxAttempts {
		p, session := l.plan(b, a, n)
		if !p.write {
			return p.wait, nil
		}
		sent, ttl := l.now(), p.next.ttl()
		response, err := l.store.Put(ctx, b.name, p.next.encode(), storage.PutOptions{Expect: p.revision, TTL: ttl, Reserve: storage.ForShrinking})
		switch {
		case err != nil:
			l.metrics.transactions.WithLabelValues(failed).Inc()
			return 0, err
		case response.Succeeded:
			l.metrics.transactions.WithLabelValues(p.outcome(n)).Inc()
			l.mu.Lock()
			now, _ := l.advance(l.now())
			b.commit(now, p.next, response.Revision, p.grant, sent.Add(ttl-ttlMargin), session)
			b.known = l.watch
			if p.wait > 0 {
				p.wait = b.refuse(&p.next, n)
			}
			l.mu.Unlock()
			return p.wait, nil
		}
		l.metrics.transactions.WithLabelValues(conflict).Inc()
		l.mu.Lock()
		if response.Revision <= p.revision { // where the key would be as expected
			l.startOver()
		}
		before := b.shared
		if l.learn(b, response.Current, response.Revision) {
			_, t := l.advance(l.now())
			b.adjust(&before, t)
		}
		l.mu.Unlock()
	}
	return 0, errContended
}

// plan decides by the newest state that the replica knows.
func (l *Limiter) plan(b *bucket, a *asked, n int) (p plan, session int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, t := l.advance(l.now())
	session = l.validSession(now)
	if session == 0 {
		a.units = 0
	}
	dead := func(replica string) bool { return l.peers.isDead(replica, b.revision) }
	return b.plan(a, l.replica, t, n, dead), session
}

// learn takes what the store has of b, as of the given revision, and reports whether that is news;
// nil: it has nothing.
func (l *Limiter) learn(b *bucket, kv *storage.KeyValue, revision int64) bool {
	b.known = l.watch
	if revision <= b.revision {
		return false
	}
	now, t := l.advance(l.now())
	s := stateOf{state: state{at: t}, limit: b.limit}
	if kv == nil {
		b.learn(s, 0)
		return true
	}
	stored, err := decode(kv.Value, b.limit)
	if err != nil || !l.clock.follow(now, stored.at) {
		// Nobody knows what was there: the bucket counts as empty.
		l.metrics.damaged.Inc()
		s.debt = float64(b.limit.Burst)
		stored = s
	}
	b.learn(stored, kv.ModRevision)
	return true
}
