package registry

import (
	"sync"
	"time"

	"github.com/berth-project/berth/pkg/registry/apierr"
)

const (
	// versionBytes is what a resourceVersion adds to an object once it is stored.
	versionBytes = 40
	// unknownHold is how long a write of unknown outcome may still take effect; calls to
	// etcd end sooner.
	unknownHold = 15 * time.Second
)

// capacity bounds what the objects of all resources take in the caches. A write that adds
// to it reserves the bytes before its transaction. They stay reserved until the cache has the
// write: in between, nobody else may have them.
type capacity struct {
	limit  int64 // bytes; 0: none
	stores []*Store

	mu       sync.Mutex
	reserved int64 // by all writes in progress, and those in settling and unknown
	settling map[*Store]*[2]settled
	unknown  []unknownWrite // oldest first; those of unknownHold
}

// settled are writes that have taken effect, up to a revision. A store has those that its
// cache does not have yet, and those that came since it waits for them.
type settled struct{ bytes, revision int64 }

type unknownWrite struct {
	bytes int64
	until time.Time
}

func newCapacity(limit int64) *capacity {
	return &capacity{limit: limit, settling: map[*Store]*[2]settled{}}
}

// stored returns what the objects of all resources take, in bytes.
func (c *capacity) stored() int64 {
	total := int64(0)
	for _, s := range c.stores {
		total += s.cache.Bytes()
	}
	return total
}

// reserve sets bytes aside, or returns ServiceUnavailable where the limit does not allow it.
// settle must be called with the same bytes.
func (c *capacity) reserve(bytes int64) error {
	if c.limit == 0 || bytes <= 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release() // before stored is asked: what is released must be in it
	if stored := c.stored(); stored+c.reserved+bytes > c.limit {
		return apierr.TooMuchStored(stored, bytes, c.limit)
	}
	c.reserved += bytes
	return nil
}

// release gives back the reservations of what the caches have by now.
func (c *capacity) release() {
	for s, waiting := range c.settling {
		current, err := s.cache.Revision()
		for range waiting {
			if err == nil && current >= waiting[0].revision {
				c.reserved -= waiting[0].bytes
				waiting[0], waiting[1] = waiting[1], settled{}
			}
		}
		if *waiting == [2]settled{} {
			delete(c.settling, s)
		}
	}
	n := 0
	for ; n < len(c.unknown) && time.Now().After(c.unknown[n].until); n++ {
		c.reserved -= c.unknown[n].bytes
	}
	c.unknown = c.unknown[n:]
}

// settle ends a reservation of a write of the store's, which took effect at the revision; 0:
// it did not.
func (c *capacity) settle(s *Store, bytes, revision int64) {
	if c.limit == 0 || bytes <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision == 0 {
		c.reserved -= bytes
		return
	}
	waiting := c.settling[s]
	if waiting == nil {
		waiting = &[2]settled{}
		c.settling[s] = waiting
	}
	latest := &waiting[1]
	latest.bytes, latest.revision = latest.bytes+bytes, max(latest.revision, revision)
}

// settleLater ends a reservation of a write that may still take effect.
func (c *capacity) settleLater(bytes int64) {
	if c.limit == 0 || bytes <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unknown = append(c.unknown, unknownWrite{bytes, time.Now().Add(unknownHold)})
}

// ofShare is the part of a resource's share that one namespace may take once half of the share is
// taken, as its reciprocal: whoever fills a namespace does not keep the others from theirs.
const ofShare = 4

// checkShare returns ServiceUnavailable for a write that adds bytes beyond what the objects of the
// resource may take, in all or in the namespace. Writes in progress are not counted, of which
// there are not many.
func (s *Store) checkShare(namespace string, adds int64) error {
	if s.resource.Share == 0 || s.capacity.limit == 0 || adds <= 0 {
		return nil
	}
	share, taken := s.capacity.limit/int64(s.resource.Share), s.cache.Bytes()
	if taken+adds > share {
		return apierr.ShareStored(s.resource.API.Name, "", taken, adds, share)
	}
	if taken <= share/2 || !s.resource.API.Namespaced {
		return nil
	}
	snapshot, err := s.cache.Snapshot()
	if err != nil {
		return apierr.FromStorage(err)
	}
	inNamespace, most := int64(0), share/ofShare
	snapshot.Ascend(s.resource.prefix(namespace), "", func(entry *cacheEntry) bool {
		inNamespace += int64(entry.Value.size())
		return inNamespace+adds <= most
	})
	if inNamespace+adds > most {
		return apierr.ShareStored(s.resource.API.Name, namespace, inNamespace, adds, most)
	}
	return nil
}
