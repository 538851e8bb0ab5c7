package cache

import (
	"sort"
	"strings"

	"github.com/tidwall/btree"

	"github.com/berth-project/berth/pkg/storage"
)

// Get returns the entry of a key, nil if it does not exist, and the revision of that state.
// It returns ErrUnavailable if the cache is not filled yet.
func (c *Cache[T]) Get(key string) (*Entry[T], int64, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.filled() {
		return nil, 0, storage.ErrUnavailable
	}
	entry, _ := c.tree.Get(key)
	return entry, c.revision, nil
}

// Revision returns the revision that the cache has reached. It returns ErrUnavailable if the
// cache is not filled yet.
func (c *Cache[T]) Revision() (int64, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.filled() {
		return 0, storage.ErrUnavailable
	}
	return c.revision, nil
}

// IsFormer reports whether a revision that the cache has not reached is like to be of a store that
// was replaced since.
func (c *Cache[T]) IsFormer(revision int64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.filled() && revision > c.revision && revision <= c.former
}

// Snapshot is the cache at one revision.
type Snapshot[T any] struct {
	Revision int64
	tree     *btree.Map[string, *Entry[T]]
}

// Snapshot returns the current state. It costs nothing except that later writes copy what
// they change. It returns ErrUnavailable if the cache is not filled yet.
func (c *Cache[T]) Snapshot() (Snapshot[T], error) {
	c.mu.Lock() // Copy marks the tree as shared
	defer c.mu.Unlock()
	return c.snapshot()
}

func (c *Cache[T]) snapshot() (Snapshot[T], error) {
	if !c.filled() {
		return Snapshot[T]{}, storage.ErrUnavailable
	}
	return Snapshot[T]{Revision: c.revision, tree: c.tree.Copy()}, nil
}

// Ascend calls visit for the entries with the prefix in the order of their keys, starting at
// the key from (empty means the first), until visit returns false.
func (s Snapshot[T]) Ascend(prefix, from string, visit func(*Entry[T]) bool) {
	s.tree.Ascend(max(prefix, from), func(key string, entry *Entry[T]) bool {
		return strings.HasPrefix(key, prefix) && visit(entry)
	})
}

// Count returns the number of keys with the prefix, starting at the key from. Its cost does
// not depend on that number.
func (s Snapshot[T]) Count(prefix, from string) int {
	return max(0, s.position(prefixEnd(prefix))-s.position(max(prefix, from)))
}

// position returns the number of keys before the key.
func (s Snapshot[T]) position(key string) int {
	return sort.Search(s.tree.Len(), func(i int) bool {
		at, _, _ := s.tree.GetAt(i)
		return at >= key
	})
}

// prefixEnd returns the first key after all keys with the prefix, which must not end with
// the highest byte.
func prefixEnd(prefix string) string {
	last := len(prefix) - 1
	return prefix[:last] + string([]byte{prefix[last] + 1})
}
