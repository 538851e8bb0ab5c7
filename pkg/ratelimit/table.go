package ratelimit

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// key names a bucket. In the table of addresses token holds the address and the rest
// is empty.
type key struct {
	token [32]byte // zero where a user's tokens share a bucket
	user  string
	class Class
	// overflow is 0, or tells the rule whose newcomers share this bucket: 1 for the last
	// one, the defaults, and so on backwards.
	overflow int
}

// bucket is a token bucket in a table. What it holds it owes to its limit: setLimit
// keeps the two together.
type bucket struct {
	key    key
	groups []string // of the latest request, to find the limit of a new policy
	limit  Limit
	rate   *rate.Limiter
	slot   int // in table.slots
}

// setLimit changes how fast and how far b fills up from t on. What it holds stays, or
// becomes the new burst if that is less.
func (b *bucket) setLimit(t time.Time, l Limit) {
	if b.limit == l {
		return
	}
	b.limit = l
	b.rate.SetLimitAt(t, rate.Limit(l.QPS))
	b.rate.SetBurstAt(t, l.Burst)
}

// take takes one token, or takes nothing and returns how long there will be none.
func (b *bucket) take(t time.Time) time.Duration {
	if b.rate.AllowN(t, 1) {
		return 0
	}
	return b.wait(t)
}

// wait returns how long after t there will be a token, and 0 if there is one. A token
// that is less than a nanosecond away is there, for rate.Limiter too: so rounding to
// the nearest nanosecond is never too early, nor a nanosecond too late because of a
// floating-point error, which would make a client wait a whole second more.
func (b *bucket) wait(t time.Time) time.Duration {
	missing := 1 - b.rate.TokensAt(t)
	ns := missing / b.limit.QPS * float64(time.Second)
	if ns < 1 {
		return 0
	}
	return time.Duration(math.Round(ns))
}

func (b *bucket) full(t time.Time) bool { return b.rate.TokensAt(t) >= float64(b.limit.Burst) }

// table is a bounded set of buckets. A full bucket says no more than one that does
// not exist, and leaves.
type table struct {
	max     int
	buckets map[key]*bucket
	slots   []*bucket // the same ones, in the order of the sweep
	hand    int       // the slot that is looked at next
}

func newTable(limit int) table { return table{max: limit, buckets: map[key]*bucket{}} }

// find returns k's bucket. While max buckets are in use, a k that has none is sent to
// the one of overflow. It returns nil where a new bucket would be made.
func (tb *table) find(t time.Time, k, overflow key) *bucket {
	tb.sweep(t)
	b, ok := tb.buckets[k]
	if !ok && len(tb.slots) >= tb.max {
		b = tb.buckets[overflow]
	}
	return b
}

// get is find, but makes the bucket. Those of overflow come on top of max.
func (tb *table) get(t time.Time, k, overflow key, l Limit) *bucket {
	b := tb.find(t, k, overflow)
	if b == nil {
		tb.sweep(t)
		if len(tb.slots) >= tb.max {
			k = overflow
		}
		b = &bucket{key: k, limit: l, rate: rate.NewLimiter(rate.Limit(l.QPS), l.Burst), slot: len(tb.slots)}
		tb.buckets[k] = b
		tb.slots = append(tb.slots, b)
	}
	b.setLimit(t, l)
	return b
}

// sweep looks at the next bucket in turn and drops it if it is full. Every access does
// so once and one that makes a bucket twice, which is enough to keep up: even if every
// access makes one, those that have become full stay for half a round at most, and the
// table holds a third more than the ones in use.
func (tb *table) sweep(t time.Time) {
	if tb.hand >= len(tb.slots) {
		tb.hand = 0
	}
	if tb.hand == len(tb.slots) {
		return
	}
	if b := tb.slots[tb.hand]; b.full(t) {
		tb.remove(b) // which puts another one under the hand
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
