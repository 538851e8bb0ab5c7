package cache

import (
	"strings"

	"github.com/tidwall/btree"

	"github.com/berth-project/berth/pkg/storage"
)

// Indexed returns the entries of which Config.Index returns the value, in the order of their keys,
// and the revision of that state. It returns ErrUnavailable if the cache is not filled yet.
func (c *Cache[T]) Indexed(value string) ([]*Entry[T], int64, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.filled() {
		return nil, 0, storage.ErrUnavailable
	}
	var found []*Entry[T]
	prefix := value + "\x00"
	c.indexed.Ascend(prefix, func(key string, entry *Entry[T]) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		found = append(found, entry)
		return true
	})
	return found, c.revision, nil
}

// indexAll makes the index of the tree; c.mu must be held.
func (c *Cache[T]) indexAll() {
	if c.cfg.Index == nil {
		return
	}
	c.indexed = new(btree.Map[string, *Entry[T]])
	c.tree.Scan(func(_ string, entry *Entry[T]) bool {
		c.reindex(nil, entry)
		return true
	})
}

// reindex replaces an entry of the index by another of the same key; each may be nil. c.mu must be
// held.
func (c *Cache[T]) reindex(prev, next *Entry[T]) {
	if c.cfg.Index == nil {
		return
	}
	if prev != nil {
		if value := c.cfg.Index(prev.Value); value != "" {
			c.indexed.Delete(value + "\x00" + prev.Key)
		}
	}
	if next != nil {
		if value := c.cfg.Index(next.Value); value != "" {
			c.indexed.Set(value+"\x00"+next.Key, next)
		}
	}
}
