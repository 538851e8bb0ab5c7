// Package cluster gives the buckets of tokens and users to several servers together, the replicas:
// what all of them admit stays within burst + rate × time, for any time.
//
// A bucket's state is in the store, and is changed by compare-and-swap alone. A replica takes parts of it
// in advance: while there are plenty a block, which is a share of the bucket's tokens and of the
// rate at which it gains them, and which costs the store nothing while it suffices; near the end
// some tokens. Nobody waits for the store who finds what he needs in there; who does not waits for
// one transaction, together with the others. A refusal is computed from the state that the replica
// has heard of last, and costs no transaction.
//
// Blocks are valid while their replica is registered, and go back when they are not used, when the
// bucket becomes empty, and when the replica stops. Those of a replica that has died count as used.
//
// While the store does not answer each replica admits its share of the rate, by the number of
// replicas that there were, and charges it to the bucket later.
package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/storage"
)

const (
	// maxBuckets bounds the buckets that a replica knows, as those of a process are bounded. One takes up
	// to 1 KiB.
	maxBuckets = 1 << 16
	// maxWaiters bounds the requests that wait for a transaction of their bucket.
	maxWaiters = 256
	// maxTurns bounds how many transactions of others a request waits for.
	maxTurns = 4
	// leastWait is the least that a refused request is told, which is what clients are told anyway, in
	// whole seconds. No replica refuses for longer without a look at what is there.
	leastWait = time.Second
)

// Config is what a Limiter is made of.
type Config struct {
	// Store is what the replicas have in common; required.
	Store storage.Interface
	// Registerer registers the metrics; nil: they are not registered.
	Registerer prometheus.Registerer
	// Logger is told when the store stops answering, and when it answers again.
	Logger zerolog.Logger
	// Now is the time of this process; nil is time.Now.
	Now func() time.Time
}

// Limiter is a ratelimit.Limiter whose buckets of tokens and users are those of all replicas. Those
// of addresses and of lines in the log, and the configuration, are the embedded one's. Its methods
// are safe for concurrent use, and need Run to run.
type Limiter struct {
	*ratelimit.Limiter
	store   storage.Interface
	logger  zerolog.Logger
	now     func() time.Time
	metrics *metrics
	replica string        // this one's name
	wake    chan struct{} // for Run: returns has become longer
	max     int           // buckets
	timeout time.Duration // of a transaction

	mu      sync.Mutex // guards everything below; held for some 300 ns per request
	clock   clock
	latest  time.Time
	buckets map[ratelimit.Key]*bucket
	names   map[string]*bucket // the same, by their keys in the store
	slots   []*bucket          // the same, in the order of the sweep
	returns []*bucket          // which are to tell the store what they have
	// watch is the number of the watch that is open, 0 while there is none.
	watch, watches int
	peers          peers
	// session is the number of the registration, which lasts until sessionUntil.
	session      int
	sessionUntil time.Time
	// failed says that the store did not answer, which Run tries again, and share how many replicas
	// there were then: registrations end meanwhile.
	failed bool
	share  int
}

// New returns a Limiter with the configuration of local.
func New(local *ratelimit.Limiter, cfg Config) *Limiter {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	var name [6]byte
	_, _ = rand.Read(name[:]) // never fails
	now := cfg.Now()
	l := &Limiter{
		Limiter: local, store: cfg.Store, logger: cfg.Logger, now: cfg.Now, replica: hex.EncodeToString(name[:]),
		wake: make(chan struct{}, 1), max: maxBuckets, timeout: askTimeout, clock: newClock(now), latest: now,
		buckets: map[ratelimit.Key]*bucket{}, names: map[string]*bucket{}, peers: peers{live: map[string]struct{}{}},
	}
	l.metrics = newMetrics(l, cfg.Registerer)
	return l
}

// Allow admits a request as that of ratelimit.Limiter does, for all replicas together. The wait
// suffices at each of them, unless others take tokens first. It is at least a second. Allow waits
// for the store if the replica has no tokens in advance, for a fraction of a second at most.
func (l *Limiter) Allow(now time.Time, s ratelimit.Subject, class ratelimit.Class, n int) time.Duration {
	if wait := l.allow(now, s, class, n); wait > 0 {
		return max(wait, leastWait)
	}
	return 0
}

func (l *Limiter) allow(now time.Time, s ratelimit.Subject, class ratelimit.Class, n int) time.Duration {
	of, limited := l.Bucket(s, class)
	if !limited {
		return 0
	}
	n = min(max(n, 1), ratelimit.MaxWeight)
	l.mu.Lock()
	b := l.get(now, &of)
	for turn := 0; ; turn++ {
		now, t := l.advance(now)
		wait, decided := l.decide(b, now, t, n)
		switch {
		case decided:
			l.mu.Unlock()
			return wait
		case b.asking == nil:
			return l.transact(b, n) // which unlocks
		case turn == maxTurns || b.waiters == maxWaiters:
			l.mu.Unlock()
			return leastWait
		}
		l.await(b, n)
	}
}

// await waits for the transaction of b in progress, without the lock.
func (l *Limiter) await(b *bucket, n int) {
	asking := b.asking
	b.waiters++
	b.wanted += float64(n)
	l.mu.Unlock()
	<-asking // bounded as the transaction is
	l.mu.Lock()
	b.waiters--
	b.wanted -= float64(n)
}

// decide decides on a request without the store, if it can.
func (l *Limiter) decide(b *bucket, now time.Time, t int64, n int) (wait time.Duration, ok bool) {
	b.usedAt = now
	b.lapse(now, t, l.validSession(now))
	if b.spend(now, n) {
		return 0, true
	}
	if l.failed {
		return b.admitAlone(now, t, n, l.share), true
	}
	b.alone = nil
	return b.refusal(t, n, l.watch > 0 && b.known == l.watch)
}

// Owe takes n tokens of s, whether they are there or not, for work that is done already. If the
// replica does not hold them, the others hear of it a little later.
func (l *Limiter) Owe(now time.Time, s ratelimit.Subject, class ratelimit.Class, n int) {
	of, limited := l.Bucket(s, class)
	if !limited {
		return
	}
	n = min(n, ratelimit.MaxWeight)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.get(now, &of)
	now, t := l.advance(now)
	b.usedAt = now
	b.lapse(now, t, l.validSession(now))
	switch {
	case b.spend(now, n):
	case l.failed:
		b.oweAlone(now, t, n, l.share)
	default:
		b.owed += float64(n)
		l.tell(b)
	}
}

// State returns the bucket of s as this replica knows it, as that of ratelimit.Limiter does. What
// other replicas hold of it in advance does not count as there.
func (l *Limiter) State(now time.Time, s ratelimit.Subject, class ratelimit.Class) (ratelimit.State, bool) {
	of, limited := l.Bucket(s, class)
	if !limited {
		return ratelimit.State{}, false
	}
	state := ratelimit.State{Limit: of.Limit, PerUser: of.PerUser, Tokens: float64(of.Limit.Burst)}
	l.mu.Lock()
	defer l.mu.Unlock()
	state.Alone = l.failed
	b := l.buckets[of.Key]
	if b == nil {
		return state, true
	}
	b.setLimit(now, of.Limit)
	now, t := l.advance(now)
	b.lapse(now, t, l.validSession(now))
	if l.failed && b.alone != nil {
		state.Tokens = b.alone.TokensAt(now)
		return state, true
	}
	common := b.shared
	common.advance(t)
	state.Tokens = common.level() + b.left(now) + b.extra - b.owed
	return state, true
}

// advance returns the times that count for a call at now: neither goes back.
func (l *Limiter) advance(now time.Time) (time.Time, int64) {
	if now.After(l.latest) {
		l.latest = now
	}
	return l.latest, l.clock.at(l.latest)
}

// validSession returns the number of the registration, or 0 if the others may count this replica
// as dead.
func (l *Limiter) validSession(now time.Time) int {
	if !now.Before(l.sessionUntil) {
		return 0
	}
	return l.session
}

// get returns the bucket, which it creates if there is none. Without room for it, it returns the
// one of all newcomers.
func (l *Limiter) get(now time.Time, of *ratelimit.Bucket) *bucket {
	key := of.Key
	b := l.buckets[key]
	if b == nil && len(l.slots) >= l.max {
		key = of.Overflow
		b = l.buckets[key]
	}
	if b == nil {
		b = &bucket{key: key, name: bucketKey(key), slot: len(l.slots), limit: of.Limit, shared: stateOf{limit: of.Limit}}
		l.buckets[key], l.names[b.name] = b, b
		l.slots = append(l.slots, b)
	}
	b.setLimit(now, of.Limit)
	return b
}

// drop forgets a bucket of which the replica has nothing.
func (l *Limiter) drop(b *bucket) {
	last := len(l.slots) - 1
	moved := l.slots[last]
	l.slots[b.slot], moved.slot = moved, b.slot
	l.slots[last] = nil
	l.slots = l.slots[:last]
	delete(l.buckets, b.key)
	delete(l.names, b.name)
}

// tell has Run tell the store what the bucket has.
func (l *Limiter) tell(b *bucket) {
	if b.queued {
		return
	}
	b.queued = true
	l.returns = append(l.returns, b)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
