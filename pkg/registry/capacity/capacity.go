// Package capacity bounds what the objects of all resources take in memory.
package capacity

import (
	"errors"
	"sync"
	"time"

	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/storage"
)

const (
	// VersionBytes is what a resourceVersion adds to an object once it is stored.
	VersionBytes = 40
	// unknownHold is how long a write of unknown outcome may still take effect; calls to
	// etcd end sooner.
	unknownHold = 15 * time.Second
)

// Cache holds the objects of a resource. It is a pointer.
type Cache interface {
	// Bytes returns what the objects take.
	Bytes() int64
	// Revision returns the revision of which it has everything, or an error if it is not filled.
	Revision() (int64, error)
}

// Capacity bounds what the objects of all resources take in the caches. A write that adds
// to it reserves the bytes before its transaction. They stay reserved until the cache has the
// write: in between, nobody else may have them.
type Capacity struct {
	limit  int64
	caches []Cache

	mu       sync.Mutex
	reserved int64 // by all writes in progress, and those in settling and unknown
	settling map[Cache]*[2]settled
	unknown  []unknownWrite // oldest first; those of unknownHold
}

// settled are writes that have taken effect, up to a revision. A cache has those that it does
// not have yet, and those that came since it waits for them.
type settled struct{ bytes, revision int64 }

type unknownWrite struct {
	bytes int64
	until time.Time
}

// New returns a Capacity of limit bytes; 0: there is no limit.
func New(limit int64) *Capacity {
	return &Capacity{limit: limit, settling: map[Cache]*[2]settled{}}
}

// Add counts a cache from now on. It must not be called after the first Reserve.
func (c *Capacity) Add(cache Cache) { c.caches = append(c.caches, cache) }

// Limit returns the limit in bytes; 0: there is none.
func (c *Capacity) Limit() int64 { return c.limit }

// Stored returns what the objects of all resources take, in bytes.
func (c *Capacity) Stored() int64 {
	total := int64(0)
	for _, cache := range c.caches {
		total += cache.Bytes()
	}
	return total
}

// Reserve sets aside the bytes by which a write makes caches grow, or returns ServiceUnavailable
// where the limit does not allow it. For those that it makes shrink, which are negative, it does
// nothing. release must be called with the outcome of the write.
func (c *Capacity) Reserve(grows map[Cache]int64) (release func(response storage.WriteResponse, dryRun bool, err error), err error) {
	total := int64(0)
	for _, bytes := range grows {
		total += max(bytes, 0)
	}
	if err := c.reserve(total); err != nil {
		return nil, err
	}
	return func(response storage.WriteResponse, dryRun bool, err error) {
		revision := int64(0)
		if err == nil && response.Succeeded && !dryRun {
			revision = response.Revision
		}
		for cache, bytes := range grows {
			if errors.Is(err, storage.ErrUnknownOutcome) {
				c.settleLater(bytes)
			} else {
				c.settle(cache, bytes, revision)
			}
		}
	}, nil
}

func (c *Capacity) reserve(bytes int64) error {
	if c.limit == 0 || bytes <= 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release() // before Stored is asked: what is released must be in it
	if stored := c.Stored(); stored+c.reserved+bytes > c.limit {
		return apierr.TooMuchStored(stored, bytes, c.limit)
	}
	c.reserved += bytes
	return nil
}

// release gives back the reservations of what the caches have by now.
func (c *Capacity) release() {
	for cache, waiting := range c.settling {
		current, err := cache.Revision()
		for range waiting {
			if err == nil && current >= waiting[0].revision {
				c.reserved -= waiting[0].bytes
				waiting[0], waiting[1] = waiting[1], settled{}
			}
		}
		if *waiting == [2]settled{} {
			delete(c.settling, cache)
		}
	}
	n := 0
	for ; n < len(c.unknown) && time.Now().After(c.unknown[n].until); n++ {
		c.reserved -= c.unknown[n].bytes
	}
	c.unknown = c.unknown[n:]
}

// settle ends a reservation of a write that took effect in the cache at the revision; 0: it did not.
func (c *Capacity) settle(cache Cache, bytes, revision int64) {
	if c.limit == 0 || bytes <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision == 0 {
		c.reserved -= bytes
		return
	}
	waiting := c.settling[cache]
	if waiting == nil {
		waiting = &[2]settled{}
		c.settling[cache] = waiting
	}
	latest := &waiting[1]
	latest.bytes, latest.revision = latest.bytes+bytes, max(latest.revision, revision)
}

// settleLater ends a reservation of a write that may still take effect.
func (c *Capacity) settleLater(bytes int64) {
	if c.limit == 0 || bytes <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unknown = append(c.unknown, unknownWrite{bytes, time.Now().Add(unknownHold)})
}
