package cluster

import (
	"math"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"

	"github.com/berth-project/berth/pkg/ratelimit"
)

// bucket is what this replica has and knows of a bucket. It is pure: times are passed in, now by
// this process's clock and t by the one in common, and nothing here asks the store.
type bucket struct {
	key    ratelimit.Key
	name   string // of its key in the store
	slot   int    // in Limiter.slots
	limit  ratelimit.Limit
	usedAt time.Time // when a request last came

	shared   stateOf
	revision int64 // of shared in the store; 0: there is none
	known    int   // the watch that keeps shared up to date; 0: none

	held
	// dry is until when requests are refused without asking. busyAt is when tokens were last taken,
	// or when others have taken those that the replica waited for. refusedAt is when the store was
	// last told what the replica gives back for a request that was refused nevertheless.
	dry, busyAt, refusedAt int64
	// owed is what was taken without asking, and unpaid what was admitted or taken so while the store
	// did not answer, both not told yet.
	owed, unpaid float64
	// alone admits requests while the store does not answer.
	alone *rate.Limiter

	asking  chan struct{} // closed when the transaction in progress has ended; nil: none is
	waiters int           // for it
	wanted  float64       // tokens that they want
	queued  bool          // whether it is in Limiter.returns
}

// held are the tokens that a replica has taken in advance.
type held struct {
	// block is nil without one.
	block      *rate.Limiter
	blockUnits int
	// blockUntil is when the store may have forgotten it, and session the registration that it belongs to.
	blockUntil time.Time
	session    int
	// extra tokens lapse one after the other as the bucket gains others for them, the last at
	// extraEnd, or as much earlier as the bucket will be full since others have given back.
	extra    float64
	extraEnd int64
}

// left returns the tokens of the block.
func (h *held) left(now time.Time) float64 {
	if h.block == nil {
		return 0
	}
	return max(0, h.block.TokensAt(now))
}

// lapse takes away what is no longer the replica's: a block that is not valid, and the tokens that
// the bucket has gained again.
func (b *bucket) lapse(now time.Time, t int64, session int) {
	if b.block != nil && (b.session != session || !now.Before(b.blockUntil)) {
		b.block, b.blockUnits = nil, 0
	}
	if b.extra > 0 {
		b.extra = max(0, min(b.extra, float64(b.extraEnd-t)/float64(time.Second)*b.limit.QPS))
	}
}

// spend takes n tokens of those that the replica has.
func (b *bucket) spend(now time.Time, n int) bool {
	switch {
	case b.owed > 0:
		return false
	case b.block != nil && b.block.AllowN(now, n):
		return true
	case b.extra >= float64(n):
		b.extra -= float64(n)
		return true
	}
	return false
}

// setLimit changes the limit. What the bucket has is kept up to the new size, and so is what the replica
// holds.
func (b *bucket) setLimit(now time.Time, l ratelimit.Limit) {
	if b.limit == l {
		return
	}
	old := b.limit
	b.limit, b.dry = l, 0
	b.shared.relimit(l)
	b.resize(now, old)
}

// resize has what the replica has taken by another limit follow the bucket's.
func (b *bucket) resize(now time.Time, old ratelimit.Limit) {
	if old == b.limit {
		return
	}
	b.extra = min(b.extra, float64(b.limit.Burst))
	lapsing := float64(b.extraEnd-b.shared.at) / float64(time.Second)
	b.extraEnd = b.shared.at + int64(duration(lapsing*old.QPS/b.limit.QPS))
	if b.block != nil {
		b.block.SetLimitAt(now, rate.Limit(b.limit.QPS*float64(b.blockUnits)/unit))
		b.block.SetBurstAt(now, int(tokens(b.limit, b.blockUnits)))
	}
}

// isEmpty reports whether the replica holds nothing of the bucket, and has told everything.
func (b *bucket) isEmpty() bool {
	return b.block == nil && b.extra < 1 && b.owed == 0 && b.unpaid == 0
}

// refusal returns how long a request that weighs n must wait if that is known without asking the
// store. current says that shared is up to date.
func (b *bucket) refusal(t int64, n int, current bool) (wait time.Duration, ok bool) {
	switch {
	case t < b.dry && n == 1:
		return time.Duration(b.dry - t), true
	case t >= b.dry && (!current || !b.isEmpty()):
		return 0, false
	}
	s := b.shared
	s.advance(t)
	if t < b.dry {
		return max(time.Duration(b.dry-t), s.wait(float64(b.limit.Whole(n)))), true
	}
	if len(s.blocks) > 0 && !s.wanted || s.wait(float64(b.limit.Whole(n))) == 0 && !b.mustWait(&s, n) {
		return 0, false
	}
	return b.dryFor(&s, n), true
}

// mustWait reports whether the replica has to wait for a batch: there is less now, and it has used up
// what it has taken within a second, or others were first.
func (b *bucket) mustWait(s *stateOf, n int) bool {
	some := batch(s.limit)
	return s.at < b.busyAt+int64(leastWait) && float64(n) <= some && s.wait(some) > 0
}

// dryFor returns how long a request that weighs n must wait, and has all be refused until then. If
// there is no batch by then, it is until there will be one, up to a second: of a bucket that many
// want to take from, one transaction takes a batch, rather than one for each token. Replicas that
// wait for the same wait for different times, so that one is the first and the others hear of it.
func (b *bucket) dryFor(s *stateOf, n int) time.Duration {
	wait, some := s.wait(float64(b.limit.Whole(n))), batch(s.limit)
	if float64(n) > some {
		return wait
	}
	spread := rand.Float64() / 4
	longest := float64(leastWait) * (1 - spread)
	wait = max(wait, time.Duration(min(float64(s.wait(some))*(1+spread), longest)))
	b.dry = s.at + int64(wait)
	return wait
}

// adjust follows a change of the bucket's state from what it was before. If others have taken what
// the replica waits for, it waits on. Else it refuses no longer than clients were told.
func (b *bucket) adjust(before *stateOf, t int64) {
	s := b.shared
	before.advance(t)
	s.advance(t)
	lost := s.level() < before.level()-s.epsilon()
	if lost && t < b.dry+int64(leastWait) {
		b.busyAt = t
	}
	if t >= b.dry {
		return
	}
	told := b.dry
	b.dryFor(&s, 1)
	if !lost {
		b.dry = min(b.dry, told)
	}
}

// asked is what a transaction tells the store: what the replica gives back of what it has held,
// and what it has not told yet.
type asked struct {
	held                      held
	left, extra, owed, unpaid float64
	extraEnd, given           int64 // when the last of extra lapses, by a state with that given
	units                     int   // of the block that it wants
	// began is when it was taken out of the bucket, and limit the one by which the replica held it.
	began time.Time
	limit ratelimit.Limit
}

// extraAt returns what is left of the extra tokens, by a state.
func (a *asked) extraAt(s *stateOf) float64 {
	end := a.extraEnd - max(0, s.given-a.given)
	return max(0, min(a.extra, float64(end-s.at)/float64(time.Second)*s.limit.QPS))
}

// begin takes everything out of the bucket that a transaction gives back, and returns it.
func (b *bucket) begin(now time.Time) asked {
	a := asked{
		held: b.held,
		left: b.left(now), extra: b.extra, extraEnd: b.extraEnd, given: b.shared.given,
		owed: b.owed, unpaid: b.unpaid, began: now, limit: b.limit, units: smallest(b.limit),
	}
	if b.block != nil {
		full := tokens(b.limit, b.blockUnits)
		a.left += full - math.Floor(full) // which nobody could use
		a.units = min(2*b.blockUnits, maxBlock)
	}
	b.held, b.owed, b.unpaid = held{}, 0, 0
	b.asking = make(chan struct{})
	return a
}

// next returns the state that follows, in which the replica has told what it must, and reports whether
// that makes a difference.
func (a *asked) next(s stateOf, replica string, t int64, dead func(replica string) bool) (stateOf, bool) {
	s.advance(t)
	changed := a.extra >= 1 || a.owed > 0 || a.unpaid > 0
	for _, other := range s.blocks {
		switch {
		case other.replica == replica:
			s.leave(replica, a.left)
			changed = true
		case dead(other.replica):
			s.leave(other.replica, 0)
		}
	}
	s.give(a.extraAt(&s))
	s.pay(a.unpaid)
	s.debt = min(s.debt+a.owed, s.maxDebt())
	s.settle()
	return s, changed
}

// undo ends a transaction that the store has certainly not taken: what the replica has held is its own
// again, and what it has not told is still to be told.
func (b *bucket) undo(a *asked) {
	b.owed, b.unpaid = b.owed+a.owed, b.unpaid+a.unpaid
	b.held = a.held
	b.extraEnd -= max(0, b.shared.given-a.given)
	b.resize(a.began, a.limit)
}

// plan is what a transaction is to do.
type plan struct {
	next     stateOf
	revision int64 // that the store must have
	grant    grant
	wait     time.Duration // if there is not enough
	write    bool          // whether the store has to know
}

// outcome names the transaction of a request for n tokens in the metrics.
func (p *plan) outcome(n int) string {
	if n == 0 || p.wait > 0 {
		return returned
	}
	return taken
}

// plan decides by what the replica knows of the store.
func (b *bucket) plan(a *asked, replica string, t int64, n int, dead func(replica string) bool) (p plan) {
	p.revision = b.revision
	p.next, p.write = a.next(b.shared, replica, t, dead)
	if n == 0 {
		return p
	}
	need := b.limit.Whole(n)
	if !b.mustWait(&p.next, n) {
		var ok bool
		if p.grant, ok = p.next.take(replica, need, n, a.units, b.wanted); ok {
			p.write = true
			return p
		}
	}
	p.wait = max(1, p.next.wait(float64(need)))
	switch {
	case len(p.next.blocks) > 0 && !p.next.wanted:
		p.next.wanted, p.write = true, true
	case p.write && a.owed == 0 && a.unpaid == 0 && p.next.at < b.refusedAt+int64(leastWait):
		p.write = false // what it would give back does not suffice, and it has within a second
		b.undo(a)
	case !p.write:
		b.shared = p.next
	}
	if !p.write {
		p.wait = b.dryFor(&p.next, n)
	}
	return p
}

// refuse is dryFor once the store knows what the refusal has given back.
func (b *bucket) refuse(s *stateOf, n int) time.Duration {
	b.refusedAt = s.at
	return b.dryFor(s, n)
}

// commit makes the state that was stored the bucket's, and the grant its own.
func (b *bucket) commit(now time.Time, s stateOf, revision int64, g grant, until time.Time, session int) {
	if revision > b.revision { // else another one followed, of which the replica has heard already
		b.learn(s, revision)
	}
	if g.units > 0 {
		b.block = rate.NewLimiter(rate.Limit(s.limit.QPS*float64(g.units)/unit), int(math.Floor(tokens(s.limit, g.units))))
		b.block.AllowN(now, 0) // its time begins
		b.blockUnits, b.blockUntil, b.session = g.units, until, session
	}
	if g.extra > 0 {
		b.extra, b.extraEnd = g.extra, s.lapseAt()-max(0, b.shared.given-s.given)
	}
	b.resize(now, s.limit) // which may have changed since
	if b.dry = 0; g.extra > 0 {
		b.busyAt = s.at
	}
}

// learn takes a newer state of the store.
func (b *bucket) learn(s stateOf, revision int64) {
	s.relimit(b.limit)
	if b.revision > 0 {
		b.extraEnd -= max(0, s.given-b.shared.given)
	}
	b.shared, b.revision = s, revision
}

// share returns the replica's share of the bucket without the store: one part of so many of the rate and
// of the size.
func (b *bucket) share(now time.Time, t int64, replicas int) *rate.Limiter {
	size, qps := max(1, b.limit.Burst/replicas), rate.Limit(b.limit.QPS/float64(replicas))
	if b.alone == nil {
		b.alone = rate.NewLimiter(qps, size)
		if b.known > 0 || b.revision > 0 {
			s := b.shared
			s.advance(t)
			// What the bucket lacks, the replica lacks as well; what it owes, it has to wait for.
			reserve(b.alone, now, int(math.Ceil(float64(size)-s.level()/float64(replicas))))
		}
	}
	b.alone.SetLimitAt(now, qps)
	b.alone.SetBurstAt(now, size)
	return b.alone
}

// reserve takes n tokens, whether they are there or not.
func reserve(l *rate.Limiter, now time.Time, n int) {
	for size := l.Burst(); n > 0; n -= size {
		l.ReserveN(now, min(n, size))
	}
}

// admitAlone admits a request without the store, of the replica's share.
func (b *bucket) admitAlone(now time.Time, t int64, n, replicas int) time.Duration {
	share := b.share(now, t, replicas)
	need := min(n, max(1, share.Burst()/2))
	if missing := float64(need) - share.TokensAt(now); missing > 1e-9 {
		return duration(missing / float64(share.Limit()))
	}
	b.oweAlone(now, t, n, replicas)
	return 0
}

// oweAlone takes n tokens of the replica's share, whether they are there or not.
func (b *bucket) oweAlone(now time.Time, t int64, n, replicas int) {
	reserve(b.share(now, t, replicas), now, n)
	b.unpaid += float64(n)
}
