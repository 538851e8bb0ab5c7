package cache

import (
	"sort"
	"strings"

	"github.com/tidwall/btree"

	"github.com/berth-project/berth/pkg/storage"
)

// Get returns the entry of a key, nil where there is none, and the revision as of which
// that is so. ErrUnavailable: the cache is not filled yet.
func (c *Cache[T]) Get(key string) (*Entry[T], int64, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.tree == nil {
		return nil, 0, storage.ErrUnavailable
	}
	entry, _ := c.tree.Get(key)
	return entry, c.revision, nil
}

// Revision returns the revision that the cache has reached. ErrUnavailable: it is not
// filled yet.
func (c *Cache[T]) Revision() (int64, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.tree == nil {
		return 0, storage.ErrUnavailable
	}
	return c.revision, nil
}

// Snapshot is the cache as of one revision.
type Snapshot[T any] struct {
	Revision int64
	tree     *btree.Map[string, *Entry[T]]
}

// Snapshot returns the cache as it is now, at no cost but that later writes copy what they
// change. ErrUnavailable: the cache is not filled yet.
func (c *Cache[T]) Snapshot() (Snapshot[T], error) {
	c.mu.Lock() // Copy marks the tree as shared
	defer c.mu.Unlock()
	return c.snapshot()
}

func (c *Cache[T]) snapshot() (Snapshot[T], error) {
	if c.tree == nil {
		return Snapshot[T]{}, storage.ErrUnavailable
	}
	return Snapshot[T]{Revision: c.revision, tree: c.tree.Copy()}, nil
}

// Ascend calls visit for the entries whose keys begin with prefix, from the key from on
// (empty: from the first), in the order of the keys, until visit returns false.
func (s Snapshot[T]) Ascend(prefix, from string, visit func(*Entry[T]) bool) {
	s.tree.Ascend(max(prefix, from), func(key string, entry *Entry[T]) bool {
		return strings.HasPrefix(key, prefix) && visit(entry)
	})
}

// Count returns how many keys begin with prefix, from the key from on. It takes no longer
// for many than for few.
func (s Snapshot[T]) Count(prefix, from string) int {
	return max(0, s.position(prefixEnd(prefix))-s.position(max(prefix, from)))
}

// position is how many keys come before the key.
func (s Snapshot[T]) position(key string) int {
	return sort.Search(s.tree.Len(), func(i int) bool {
		at, _, _ := s.tree.GetAt(i)
		return at >= key
	})
}

// prefixEnd is what comes right behind all keys that begin with prefix, which does not end
// with the highest byte.
func prefixEnd(prefix string) string {
	last := len(prefix) - 1
	return prefix[:last] + string([]byte{prefix[last] + 1})
}
