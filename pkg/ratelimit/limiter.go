package ratelimit

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of the tables. A bucket takes up to 400 bytes: 128 for itself, 80 for its
// rate.Limiter, and the rest for its share of the map and of the slots. The tables so
// take 26 MB and 6.5 MB at the very most. Only buckets that are not full count: with
// the default limits one full write bucket stays for the 5 s that it takes to fill up
// again, a read bucket for 2 s, an address's for 10 s.
const (
	// maxSubjects bounds the buckets of tokens and users, two for each at most. Only
	// more than 32,768 tokens that are all busy within the same seconds reach it.
	maxSubjects = 1 << 16
	// maxAddresses bounds the buckets of client addresses.
	maxAddresses = 1 << 14
)

// Subject is who makes a request.
type Subject struct {
	Token  [32]byte // the token's hash
	User   string
	Groups []string // kept: not to be changed afterwards
}

// Limiter decides which requests are admitted. Its methods may be called at the same
// time.
//
// Time never runs backwards for it: a now that is before one that it has already been
// given counts as that later one, and the waits it returns are still meant from the
// caller's now.
type Limiter struct {
	mu        sync.Mutex // held for everything below, for 100 to 300 ns a request
	policy    *policy
	latest    time.Time // the latest now of all calls
	subjects  table
	addresses table
}

// New returns a Limiter whose buckets are all full. A nil cfg is DefaultConfig. It
// panics if cfg is not valid: what comes from a file comes through ParseConfig.
func New(cfg *Config) *Limiter {
	return &Limiter{policy: newPolicy(cfg), subjects: newTable(maxSubjects), addresses: newTable(maxAddresses)}
}

// SetConfig puts cfg, valid or nil as for New, in the place of the configuration so
// far. A bucket keeps what it holds, or the new burst if that is less, and fills up at
// the new rate from the latest now on. Where PerToken becomes PerUser or the other way
// round, the buckets are others, and new ones begin full.
func (l *Limiter) SetConfig(cfg *Config) {
	p := newPolicy(cfg)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.policy = p
	for _, b := range l.addresses.slots {
		b.setLimit(l.latest, p.anonymous)
	}
	for _, b := range l.subjects.slots {
		i := len(p.rules) - b.key.overflow
		if b.key.overflow == 0 {
			i = p.match(b.key.user, b.groups)
		}
		// What is now exempt, or shared by a rule that is gone, is not asked again and
		// leaves when it is full.
		if i >= 0 && !p.rules[i].exempt {
			b.setLimit(l.latest, p.rules[i].limits[b.key.class])
		}
	}
}

// Allow admits a request of s and takes a token for it, or returns how long after now
// the next request will be admitted, provided that nobody else takes that token; then
// nothing is taken. 0 means admitted.
//
// While the table has no room, subjects without a bucket share one for each override
// and class, with the limit that each of them would have alone: nobody gets more than
// that, and whoever has a bucket does not notice.
func (l *Limiter) Allow(now time.Time, s Subject, class Class) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.policy.match(s.User, s.Groups)
	r := &l.policy.rules[i]
	if r.exempt {
		return 0
	}
	k := key{token: s.Token, user: s.User, class: class}
	if r.perUser {
		k.token = [32]byte{}
	}
	t := l.advance(now)
	b := l.subjects.get(t, k, key{class: class, overflow: len(l.policy.rules) - i}, r.limits[class])
	b.groups = s.Groups
	return fromNow(now, t, b.take(t))
}

// addressOverflow is the one bucket of the addresses that find no room.
var addressOverflow = key{overflow: 1}

// AnonymousWait returns what AllowAnonymous would, but takes nothing.
func (l *Limiter) AnonymousWait(now time.Time, addr netip.Addr) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.advance(now)
	b := l.addresses.find(t, addressKey(addr), addressOverflow)
	if b == nil {
		return 0
	}
	return fromNow(now, t, b.wait(t))
}

// AllowAnonymous is Allow for a request from addr without a valid token. The
// addresses of an IPv6 network of 64 bits share a bucket, since one host has them
// all; an IPv4-mapped address is the IPv4 address; all calls with the zero Addr share
// a bucket. While the table has no room, all addresses without a bucket share one.
func (l *Limiter) AllowAnonymous(now time.Time, addr netip.Addr) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.advance(now)
	return fromNow(now, t, l.addresses.get(t, addressKey(addr), addressOverflow, l.policy.anonymous).take(t))
}

func addressKey(addr netip.Addr) (k key) {
	if !addr.IsValid() {
		return k
	}
	b := addr.As16()
	if !addr.Unmap().Is4() {
		clear(b[8:])
	}
	copy(k.token[1:], b[:])
	k.token[0] = 1 // sets ::/64 apart from the zero Addr
	return k
}

// advance returns the time that counts for a call at now.
func (l *Limiter) advance(now time.Time) time.Time {
	if now.After(l.latest) {
		l.latest = now
	}
	return l.latest
}

// fromNow turns a wait from t into one from now, which is not after t.
func fromNow(now, t time.Time, wait time.Duration) time.Duration {
	if wait == 0 {
		return 0
	}
	return t.Sub(now) + wait
}

// RetryAfterSeconds returns wait in whole seconds, rounded up and at least 1, as a
// Retry-After header and a Status's details have it.
func RetryAfterSeconds(wait time.Duration) int {
	seconds := int(wait / time.Second)
	if wait%time.Second > 0 {
		seconds++
	}
	return max(1, seconds)
}
