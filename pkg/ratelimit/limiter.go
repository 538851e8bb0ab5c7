// Package ratelimit gives each token, or each user, a token bucket for reads and one
// for writes, and each client address one for requests without a valid token and one for
// those that need none. Another one samples what is logged of an address or a token.
//
// A bucket holds at most burst requests and gains qps of them per second. A request
// takes one; if there is none, the request is rejected with the exact time until there
// is, and takes nothing. Buckets start full.
//
// The caller passes the time in, and there are no goroutines. Memory is bounded: see
// maxSubjects, maxAddresses and maxSources.
package ratelimit

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of the tables. A bucket takes up to 400 bytes: 112 for itself, 80 for its
// rate.Limiter, and the rest for its share of the map and of the slots. So the tables
// take at most 26 MB, twice 6.5 MB, and 0.1 MB. Only buckets that are not full count: with
// the default limits a fully drained write bucket takes 5 s to refill, a read bucket 2 s, an
// address's bucket 10 s.
const (
	// maxSubjects bounds the buckets of tokens and users, at most two for each. It
	// takes more than 32,768 tokens active within the same seconds to reach it.
	maxSubjects = 1 << 16
	// maxAddresses bounds the buckets of client addresses, in each of the two tables of
	// addresses. With probeLimit it takes three million requests per second to fill one.
	maxAddresses = 1 << 14
	// maxSources bounds the buckets of AllowLine, and with them the lines of all sources
	// together: some 500 a second.
	maxSources = 1 << 8
)

// Limits that no configuration changes.
var (
	// probeLimit is what an address may ask without a token of each path: more than any number
	// of kubelets and load balancers behind one address do. An answer takes some 30 µs.
	probeLimit = Limit{QPS: 200, Burst: 400}
	// lineLimit is how many lines a source may cause that are sampled.
	lineLimit = Limit{QPS: 2, Burst: 10}
)

// Subject identifies who makes a request.
type Subject struct {
	Token  [32]byte // the token's hash
	User   string
	Groups []string
}

// Limiter decides which requests are admitted. Its methods are safe for concurrent use.
//
// Time never runs backwards for it: a now earlier than a previous one counts as that
// later one, while returned waits still count from the caller's now.
type Limiter struct {
	mu        sync.Mutex // guards everything below; held for 100 to 300 ns per request
	policy    *policy
	latest    time.Time // the latest now of all calls
	subjects  table
	addresses table // of requests without a valid token
	probes    table // of requests that need no token, by address and path
	sources   table // of lines, by token or address
}

// New returns a Limiter with full buckets. A nil cfg means DefaultConfig. It panics if
// cfg is invalid; configurations from files are validated by ParseConfig.
func New(cfg *Config) *Limiter {
	return &Limiter{
		policy: newPolicy(cfg), subjects: newTable(maxSubjects),
		addresses: newTable(maxAddresses), probes: newTable(maxAddresses), sources: newTable(maxSources),
	}
}

// SetConfig replaces the configuration with cfg, which may be nil and must be valid as
// for New. From its next request on, a bucket has the new rate and keeps its tokens, up
// to the new burst. A change between PerToken and PerUser starts new, full buckets.
func (l *Limiter) SetConfig(cfg *Config) {
	p := newPolicy(cfg)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.policy = p
}

// Allow admits a request of s that weighs n, at least 1, and takes as many tokens for it,
// returning 0, or takes nothing and returns how long after now such a request will be
// admitted, unless others take tokens first. One that weighs more than half of a bucket is
// admitted once that half is there, and the bucket owes the rest.
//
// While the table is full, subjects without a bucket share one for each override and
// class, with the limit that each would have alone: nobody gets more than that, and
// existing buckets are not affected.
func (l *Limiter) Allow(now time.Time, s Subject, class Class, n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.advance(now)
	b := l.bucketOf(t, s, class)
	if b == nil {
		return 0
	}
	return fromNow(now, t, b.take(t, n))
}

// Owe takes n tokens of s, whether they are there or not, for work that is done already.
func (l *Limiter) Owe(now time.Time, s Subject, class Class, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.advance(now)
	if b := l.bucketOf(t, s, class); b != nil {
		b.owe(t, min(n, maxWeight))
	}
}

// bucketOf returns the bucket of s, nil if s is exempt. l.mu must be held.
func (l *Limiter) bucketOf(t time.Time, s Subject, class Class) *bucket {
	i := l.policy.match(s.User, s.Groups)
	r := &l.policy.rules[i]
	if r.exempt {
		return nil
	}
	return l.subjects.get(t, r.key(s, class), key{class: class, overflow: len(l.policy.rules) - i}, r.limits[class])
}

// key returns the key of the bucket of s, whose rule r is.
func (r *rule) key(s Subject, class Class) key {
	if r.perUser {
		return key{user: s.User, class: class}
	}
	return key{token: s.Token, user: s.User, class: class}
}

// addressOverflow is the bucket shared by addresses that do not fit into a table.
var addressOverflow = key{overflow: 1}

// AllowAnonymous is Allow for a request from addr without a valid token. The addresses
// of an IPv6 /64 network share a bucket, since one host may have all of them; an
// IPv4-mapped address counts as the IPv4 address; all calls with the zero Addr share a
// bucket. While the table is full, all addresses without a bucket share one.
func (l *Limiter) AllowAnonymous(now time.Time, addr netip.Addr) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.advance(now)
	return fromNow(now, t, l.addresses.get(t, addressKey(addr), addressOverflow, l.policy.anonymous).take(t, 1))
}

// AnonymousWait returns what AllowAnonymous would, and takes nothing: for requests that are only
// known to have failed after work that is not done for nothing.
func (l *Limiter) AnonymousWait(now time.Time, addr netip.Addr) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.advance(now)
	return fromNow(now, t, l.addresses.get(t, addressKey(addr), addressOverflow, l.policy.anonymous).wait(t, 1))
}

// AllowProbe is AllowAnonymous for a request that needs no token, such as a health check: 200 per
// second with a burst of 400, whatever the configuration. Each path has a bucket of its own, so
// that who floods one leaves the others alone; the caller says which paths there are. Requests
// that fail to authenticate take nothing from it.
func (l *Limiter) AllowProbe(now time.Time, addr netip.Addr, path string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.advance(now)
	k, overflow := addressKey(addr), addressOverflow
	k.user, overflow.user = path, path
	return fromNow(now, t, l.probes.get(t, k, overflow, probeLimit).take(t, 1))
}

// AllowLine reports whether to log one more line about its source, which is a token by its
// hash, or addr if token is zero: 2 per second with a burst of 10. omitted is how many lines
// it has refused that source since the last one that it allowed. It forgets them with the
// bucket, which a source that has been silent for some seconds loses. Addresses count as in
// AllowAnonymous; sources beyond the first 256 share a bucket.
func (l *Limiter) AllowLine(now time.Time, token [32]byte, addr netip.Addr) (omitted int, ok bool) {
	k := key{token: token}
	if token == [32]byte{} {
		k = addressKey(addr)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.advance(now)
	b := l.sources.get(t, k, addressOverflow, lineLimit)
	if b.take(t, 1) > 0 {
		b.omitted++
		return 0, false
	}
	omitted, b.omitted = b.omitted, 0
	return omitted, true
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
	k.token[0] = 1 // distinguishes ::/64 from the zero Addr
	return k
}

// advance returns the time that counts for a call at now.
func (l *Limiter) advance(now time.Time) time.Time {
	if now.After(l.latest) {
		l.latest = now
	}
	return l.latest
}

// fromNow converts a wait from t into one from now, which is not after t.
func fromNow(now, t time.Time, wait time.Duration) time.Duration {
	if wait == 0 {
		return 0
	}
	return t.Sub(now) + wait
}

// RetryAfterSeconds returns wait in whole seconds, rounded up and at least 1, for a
// Retry-After header and the details of a Status.
func RetryAfterSeconds(wait time.Duration) int {
	return max(1, int((wait+time.Second-1)/time.Second))
}
