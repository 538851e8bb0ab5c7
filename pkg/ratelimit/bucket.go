package ratelimit

import (
	"crypto/sha256"
	"encoding/binary"
)

// MaxWeight is the most that one request may weigh: what is beyond it counts as that.
const MaxWeight = maxWeight

// Key identifies a bucket among all of them. It is comparable.
type Key struct{ key key }

// Hash returns what names the bucket outside of the process: from it neither the user nor the
// token can be told, and all servers with the same configuration have the same.
func (k Key) Hash() [32]byte {
	data := append([]byte("berth ratelimit\x00"), k.key.token[:]...)
	data = binary.BigEndian.AppendUint64(data, uint64(k.key.overflow))
	data = append(append(data, byte(k.key.class)), k.key.user...)
	return sha256.Sum256(data)
}

// Bucket says which bucket requests are charged to, for those who keep buckets elsewhere.
type Bucket struct {
	Key Key
	// Overflow is the bucket of those who find no room for one of their own.
	Overflow Key
	Limit    Limit
	PerUser  bool // as in State
}

// Bucket returns the bucket of s for requests of a class, by the configuration; false: s has no
// limit. It creates nothing.
func (l *Limiter) Bucket(s Subject, class Class) (Bucket, bool) {
	l.mu.Lock()
	p := l.policy
	l.mu.Unlock()
	i := p.match(s.User, s.Groups)
	r := &p.rules[i]
	if r.exempt {
		return Bucket{}, false
	}
	return Bucket{
		Key: Key{r.key(s, class)}, Overflow: Key{key{class: class, overflow: len(p.rules) - i}},
		Limit: r.limits[class], PerUser: r.perUser,
	}, true
}

// Whole returns how many tokens must be there for a request that weighs n: as many, but at most
// half of a bucket.
func (l Limit) Whole(n int) int { return min(n, max(1, l.Burst/2)) }
