package cache

import (
	"fmt"
	"strings"

	"github.com/berth-project/berth/pkg/storage"
)

// batch bounds how many events Next returns at a time.
const batch = 128

// Watcher reads the changes of a scope. It holds no events: it is a position in the history,
// which it reads at its own pace. A watcher that falls behind the history has lost its place
// and must start over. It must be used by one goroutine at a time.
type Watcher[T any] struct {
	cache *Cache[T]
	scope string // a key, or a prefix that ends with a slash
	wake  chan struct{}

	// Guarded by cache.mu: written with the write lock held, or by the watcher itself with
	// the read lock held.
	next uint64 // the first undelivered event of the scope; 0 if there is none
	lost bool
	slot int // its position among the watchers of its scope
}

// Watch returns a watcher of the events of scope after the revision, which the cache must
// have reached. scope is a key, or a prefix that ends with a slash and is the cache's or one
// level below it. It returns ErrCompacted if the events after the revision are no longer all
// available. The watcher must be closed.
func (c *Cache[T]) Watch(scope string, revision int64) (*Watcher[T], error) {
	w := &Watcher[T]{cache: c, scope: scope, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.filled() {
		return nil, storage.ErrUnavailable
	}
	next, ok := c.history.after(revision)
	if !ok {
		return nil, fmt.Errorf("%w: the history begins after it", storage.ErrCompacted)
	}
	if next != c.history.next {
		w.next = next
		w.wake <- struct{}{}
	}
	c.watchers.add(w)
	return w, nil
}

// List returns a snapshot and a watcher of everything in scope that comes after it.
func (c *Cache[T]) List(scope string) (Snapshot[T], *Watcher[T], error) {
	w := &Watcher[T]{cache: c, scope: scope, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	snapshot, err := c.snapshot()
	if err != nil {
		return Snapshot[T]{}, nil, err
	}
	c.watchers.add(w)
	return snapshot, w, nil
}

// Wake returns a channel that has an element when Next may have something to return.
func (w *Watcher[T]) Wake() <-chan struct{} { return w.wake }

// Next appends a bounded number of new events to events, and returns them with the revision
// up to which all have been delivered. It does not wait: no events means that there are none
// yet. It returns ErrCompacted if the watcher has fallen behind the history.
func (w *Watcher[T]) Next(events []*Event[T]) ([]*Event[T], int64, error) {
	before := len(events)
	events, revision, err := w.nextEvents(events)
	w.cache.taken(events[before:])
	return events, revision, err
}

func (w *Watcher[T]) nextEvents(events []*Event[T]) ([]*Event[T], int64, error) {
	c := w.cache
	c.mu.RLock()
	defer c.mu.RUnlock()
	if w.lost || isClosed(c.replaced) || w.next != 0 && w.next < c.history.first {
		return events, 0, fmt.Errorf("%w: the watch fell behind", storage.ErrCompacted)
	}
	if w.next == 0 {
		return events, c.revision, nil
	}
	revision := int64(0)
	for n := 0; w.next < c.history.next; w.next++ {
		event := c.history.at(w.next)
		if !w.wants(event.Key) {
			continue
		}
		// The events of one revision are never split.
		if n >= batch && event.Revision != revision {
			w.wakeUp()
			return events, revision, nil
		}
		events, revision = append(events, event), event.Revision
		n++
	}
	w.next = 0
	return events, c.revision, nil
}

// Close ends the watch.
func (w *Watcher[T]) Close() {
	w.cache.mu.Lock()
	defer w.cache.mu.Unlock()
	w.cache.watchers.remove(w)
}

func (w *Watcher[T]) wants(key string) bool {
	if strings.HasSuffix(w.scope, "/") {
		return strings.HasPrefix(key, w.scope)
	}
	return key == w.scope
}

func (w *Watcher[T]) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default: // it is awake
	}
}

// watchers are the watchers of each scope. A change looks only at those that it concerns, so
// many watchers of single keys cost it nothing.
type watchers[T any] map[string][]*Watcher[T]

func (ws watchers[T]) add(w *Watcher[T]) {
	w.slot = len(ws[w.scope])
	ws[w.scope] = append(ws[w.scope], w)
}

func (ws watchers[T]) remove(w *Watcher[T]) {
	peers := ws[w.scope]
	if w.slot >= len(peers) || peers[w.slot] != w {
		return
	}
	last := len(peers) - 1
	peers[w.slot] = peers[last]
	peers[w.slot].slot = w.slot
	peers[last] = nil
	if ws[w.scope] = peers[:last]; last == 0 {
		delete(ws, w.scope)
	}
}

// notify records an event for the watchers of the key and of each of its prefixes, and
// appends those that must be woken to woken.
func (ws watchers[T]) notify(key string, sequence uint64, woken []*Watcher[T]) []*Watcher[T] {
	for end := len(key); end > 0; end = strings.LastIndexByte(key[:end-1], '/') + 1 {
		for _, w := range ws[key[:end]] {
			if w.next == 0 {
				w.next = sequence
				woken = append(woken, w)
			}
		}
	}
	return woken
}

// loseAll tells all watchers that they have lost their place.
func (ws watchers[T]) loseAll() {
	for _, peers := range ws {
		for _, w := range peers {
			w.lost = true
			w.wakeUp()
		}
	}
}
