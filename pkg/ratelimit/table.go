package ratelimit

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// key identifies a bucket. In the tables of addresses, token holds the address, user the path
// of a probe, and the rest is empty.
type key struct {
	token [32]byte // zero if a user's tokens share a bucket
	user  string
	class Class
	// overflow is 0, or identifies the rule whose newcomers share this bucket: 1 is the
	// last rule, the defaults, 2 the one before it, and so on.
	overflow int
}

// bucket is a token bucket in a table.
type bucket struct {
	key   key
	limit Limit
	rate  *rate.Limiter
	slot  int // in table.slots
	// omitted is how often the bucket had nothing since it last had, for AllowLine.
	omitted int
}

// setLimit changes the rate and size of b from t on. Its tokens are kept, up to the new
// burst.
func (b *bucket) setLimit(t time.Time, l Limit) {
	if b.limit == l {
		return
	}
	b.limit = l
	b.rate.SetLimitAt(t, rate.Limit(l.QPS))
	b.rate.SetBurstAt(t, l.Burst)
}

// maxWeight bounds what one request may weigh, so that a wait fits into a Duration.
const maxWeight = 10_000

// take takes n tokens, or takes nothing and returns the time until it would. The bucket may
// come to owe tokens: see Allow.
func (b *bucket) take(t time.Time, n int) time.Duration {
	n = min(n, maxWeight)
	if n <= b.whole() {
		if b.rate.AllowN(t, n) {
			return 0
		}
		return b.wait(t, n)
	}
	if wait := b.wait(t, b.whole()); wait > 0 {
		return wait
	}
	b.owe(t, n)
	return 0
}

// owe takes n tokens, more than there are if need be.
func (b *bucket) owe(t time.Time, n int) {
	for ; n > 0; n -= b.limit.Burst {
		b.rate.ReserveN(t, min(n, b.limit.Burst))
	}
}

// whole is the largest number of tokens that must be there for a request of that weight.
func (b *bucket) whole() int { return max(1, b.limit.Burst/2) }

// wait returns the time from t until n tokens are available, 0 if they already are. A token
// less than a nanosecond away counts as available, for rate.Limiter too. So rounding to
// the nearest nanosecond is never too early, nor a nanosecond too late because of a
// floating-point error, which would make a client wait a whole second longer.
func (b *bucket) wait(t time.Time, n int) time.Duration {
	missing := float64(n) - b.rate.TokensAt(t)
	ns := missing / b.limit.QPS * float64(time.Second)
	if ns < 1 {
		return 0
	}
	return time.Duration(math.Round(ns))
}

// table is a bounded set of buckets. A full bucket is equivalent to none, and is
// dropped.
type table struct {
	max     int
	buckets map[key]*bucket
	slots   []*bucket // the same buckets, in the order of the sweep
	hand    int       // the slot to sweep next
}

func newTable(limit int) table { return table{max: limit, buckets: map[key]*bucket{}} }

// get returns k's bucket, which it creates if there is none, with the limit l. While max
// buckets are in use, a k without one gets overflow's. Overflow buckets are in addition to
// max.
func (tb *table) get(t time.Time, k, overflow key, l Limit) *bucket {
	tb.sweep(t)
	b := tb.buckets[k]
	if b == nil {
		tb.sweep(t)
		if len(tb.slots) >= tb.max {
			k = overflow
			b = tb.buckets[k]
		}
	}
	if b != nil {
		b.setLimit(t, l)
		return b
	}
	b = &bucket{key: k, limit: l, rate: rate.NewLimiter(rate.Limit(l.QPS), l.Burst), slot: len(tb.slots)}
	tb.buckets[k] = b
	tb.slots = append(tb.slots, b)
	return b
}

// sweep checks the next bucket in turn and drops it if it is full. Every access sweeps
// once, and one that finds no bucket twice, which is enough to keep up: even if every
// access creates one, full buckets stay for at most half a round, and the table holds a
// third more than the buckets in use.
func (tb *table) sweep(t time.Time) {
	if tb.hand >= len(tb.slots) {
		tb.hand = 0
	}
	if tb.hand == len(tb.slots) {
		return
	}
	if b := tb.slots[tb.hand]; b.rate.TokensAt(t) >= float64(b.limit.Burst) {
		tb.remove(b) // moves another bucket under the hand
	} else {
		tb.hand++
	}
}

func (tb *table) remove(b *bucket) {
	last := len(tb.slots) - 1
	moved := tb.slots[last]
	tb.slots[b.slot], moved.slot = moved, b.slot
	tb.slots[last] = nil
	tb.slots = tb.slots[:last]
	delete(tb.buckets, b.key)
}
