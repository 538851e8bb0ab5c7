// Package cache serves the read side of the storage contract from memory. It follows one
// prefix of the store with a single watch, keeps the result of Config.Make for every key,
// and shares each change among all watchers.
package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidwall/btree"

	"github.com/berth-project/berth/pkg/storage"
)

// Config configures a Cache. Fields without a comment are required.
type Config[T any] struct {
	Storage storage.Interface
	// Prefix is the part of the store to follow; it ends with a slash.
	Prefix string
	// Make converts a stored key to what is served. Several goroutines may call it at once, and
	// again for a version that is read from the store's history. It must not modify the key.
	Make func(*storage.KeyValue) T
	// Size returns the memory of a T in bytes, which counts towards HistoryBytes and Bytes.
	Size func(T) int
	// Index returns what Indexed finds a value by; "": by nothing. nil: there is no index.
	Index func(T) string
	// HistoryEvents and HistoryBytes bound the recent events kept for watchers that are
	// behind. 0 means 8,192 events and 32 MiB.
	HistoryEvents, HistoryBytes int
	// Observer follows what the cache holds; nil: nobody does.
	Observer Observer[T]
	// Registerer registers the metrics; if nil they are not registered.
	Registerer prometheus.Registerer
	// Report receives the errors of following the store, which is then retried. It may be
	// nil.
	Report func(error)
}

// Observer follows what a cache holds. Its methods are called one after the other, each before
// the cache has the revision in question: whoever reads the cache at a revision, or waits for
// one, finds its observer at least as new.
type Observer[T any] interface {
	// Filled is told of all entries that there are: at first, and where changes were missed.
	Filled(entries []*Entry[T])
	// Changed is told of the new entry of a key; nil: it was deleted.
	Changed(key string, entry *Entry[T])
}

const (
	defaultHistoryEvents = 8192
	defaultHistoryBytes  = 32 << 20
	// retryPause is the wait after a failure before the store is followed again.
	retryPause = 200 * time.Millisecond
)

// startHistory is how many revisions back the history reaches when the cache is filled, so
// that watchers can resume after a restart. It is read in steps: etcd reads all that a watch
// begins with into memory, and the size of a step tells whether there is room for the next.
var startHistory = []int64{32, 256, 2000}

// Entry is one key of the cache. It is immutable.
type Entry[T any] struct {
	Key      string
	Value    T
	Revision int64 // ModRevision of the key
	stored   int   // bytes of key and value in the store
}

// Event is one change, shared by all watchers. Its exported fields are immutable.
type Event[T any] struct {
	Key      string
	Revision int64     // of the change
	Entry    *Entry[T] // after the change; nil if the key was deleted
	Prev     *Entry[T] // before the change; nil if the key did not exist

	// When the event came from the store, and when the cache had it; since Cache.begun.
	came, cached time.Duration

	leave sync.Once
	last  T // see Last
}

// Last returns what at makes of the value before the change and the revision of the change:
// the state in which a deletion, or a change that leaves a selection, shows it. It is made
// once and shared by all who ask, who must ask with the same at. Prev is not nil.
func (e *Event[T]) Last(at func(prev T, revision int64) T) T {
	e.leave.Do(func() { e.last = at(e.Prev.Value, e.Revision) })
	return e.last
}

// Cache holds one prefix of the store in memory. Run fills it and keeps it up to date.
type Cache[T any] struct {
	cfg   Config[T]
	fresh freshness
	// bytes is what Bytes returns, and storedBytes what the keys and values take in the store;
	// changed with mu held.
	bytes, storedBytes atomic.Int64
	metrics            metrics
	begun              time.Time

	mu       sync.RWMutex
	tree     *btree.Map[string, *Entry[T]] // nil until it is first filled
	indexed  *btree.Map[string, *Entry[T]] // the entries of the tree that Config.Index names
	revision int64                         // the tree is the prefix at this revision
	history  ring[T]
	watchers watchers[T]
	advance  chan struct{}   // closed and replaced when revision grows or the tree is filled
	former   int64           // the newest revision of a store that was replaced since
	replaced <-chan struct{} // closed when the store is no longer the one that the tree was read from

	progress chan struct{} // requests a progress report from the store's watch
}

// New returns an empty cache, or an error if cfg is incomplete.
func New[T any](cfg Config[T]) (*Cache[T], error) {
	if cfg.Storage == nil || cfg.Prefix == "" || cfg.Make == nil || cfg.Size == nil {
		return nil, errors.New("cache: Storage, Prefix, Make and Size are required")
	}
	if cfg.HistoryEvents < 0 || cfg.HistoryBytes < 0 {
		return nil, errors.New("cache: the bounds of the history must not be negative")
	}
	cfg.HistoryEvents = cmp.Or(cfg.HistoryEvents, defaultHistoryEvents)
	cfg.HistoryBytes = cmp.Or(cfg.HistoryBytes, defaultHistoryBytes)
	if cfg.Report == nil {
		cfg.Report = func(error) {}
	}
	c := &Cache[T]{
		cfg:      cfg,
		watchers: watchers[T]{},
		advance:  make(chan struct{}),
		progress: make(chan struct{}, 1),
		fresh:    freshness{turn: make(chan struct{}, 1)},
	}
	c.history.init(cfg.HistoryEvents, cfg.HistoryBytes)
	c.begun, c.metrics = time.Now(), newMetrics(c, cfg.Registerer)
	return c, nil
}

// Run fills the cache and follows the store until ctx ends. After a failure it retries, and
// the cache goes on serving what it has.
func (c *Cache[T]) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := c.follow(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Report(fmt.Errorf("following %s: %w", c.cfg.Prefix, err))
			select {
			case <-ctx.Done():
			case <-time.After(retryPause):
			}
		}
	}
}

// follow fills the cache if it is empty, and applies changes until the watch ends.
func (c *Cache[T]) follow(ctx context.Context) error {
	c.mu.RLock()
	empty, revision, replaced := c.tree == nil, c.revision, c.replaced
	c.mu.RUnlock()
	if empty {
		var err error
		if revision, replaced, err = c.fill(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	responses := c.cfg.Storage.Watch(ctx, c.cfg.Prefix, storage.WatchOptions{Revision: revision, Progress: c.progress})
	for {
		var response storage.WatchResponse
		open := true
		select {
		case <-replaced:
		case response, open = <-responses:
		}
		switch {
		case isClosed(replaced): // the response may be of another store
			c.clear()
			c.leaveBehind(revision)
			return storage.ErrReplaced
		case !open:
			return nil
		}
		c.apply(response)
		if errors.Is(response.Err, storage.ErrCompacted) || errors.Is(response.Err, storage.ErrMissedEvents) {
			// Changes are missing: start over, and make all watchers do so too.
			c.clear()
		}
		if response.Err != nil {
			return response.Err
		}
	}
}

// isClosed reports whether nothing more comes from the channel; nil is not closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// filled reports whether there is a tree, of the store that there is; c.mu must be held.
func (c *Cache[T]) filled() bool { return c.tree != nil && !isClosed(c.replaced) }

// fill reads the prefix at one revision, and the history before it.
func (c *Cache[T]) fill(ctx context.Context) (filledAt int64, replaced <-chan struct{}, err error) {
	began := time.Now()
	replaced = c.cfg.Storage.Replaced()
	tree, revision, bytes, stored := new(btree.Map[string, *Entry[T]]), int64(0), 0, 0
	for page, err := range storage.Pages(ctx, c.cfg.Storage, c.cfg.Prefix, storage.ListOptions{}) {
		if err != nil {
			return 0, nil, err
		}
		for _, kv := range page.KVs {
			entry := c.entry(kv)
			tree.Load(kv.Key, entry)
			bytes += c.cfg.Size(entry.Value)
			stored += entry.stored
		}
		revision = page.Revision
	}
	if isClosed(replaced) {
		return 0, nil, storage.ErrReplaced
	}
	if c.cfg.Observer != nil {
		c.cfg.Observer.Filled(tree.Values())
	}
	past, since := c.readHistory(ctx, revision)
	events := make([]*Event[T], 0, len(past))
	size := 0
	for _, change := range slices.Backward(past) {
		now, _ := tree.Get(change.KV.Key)
		event := c.pastEvent(&change, now)
		if size += c.eventSize(event); size > c.cfg.HistoryBytes {
			since = event.Revision
			break
		}
		events = append(events, event)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tree, c.revision, c.replaced = tree, revision, replaced
	c.indexAll()
	c.bytes.Store(int64(bytes))
	c.storedBytes.Store(int64(stored))
	c.metrics.fills.Inc()
	c.metrics.fillDuration.Observe(time.Since(began).Seconds())
	c.history.reset(since)
	for _, event := range slices.Backward(events) {
		if event.Revision > since { // a revision is kept whole
			c.history.append(event, c.eventSize(event))
		}
	}
	c.signal()
	return c.revision, replaced, nil
}

// readHistory returns the last changes up to the revision, and the revision after which it
// has all of them. Where they are compacted, too large or slow to come, watchers that are
// behind list again.
func (c *Cache[T]) readHistory(ctx context.Context, revision int64) (past []storage.Event, since int64) {
	since = revision
	c.mu.RLock()
	replaced := c.former > 0
	c.mu.RUnlock()
	if replaced {
		return nil, since // who comes with an older version may have it from the store that there was
	}
	for _, back := range startHistory {
		from := max(revision-back, 0)
		events, err := c.cfg.Storage.History(ctx, c.cfg.Prefix, from, revision, c.cfg.HistoryBytes)
		if err != nil {
			break
		}
		bytes := 0
		for _, event := range events {
			bytes += len(event.KV.Value)
		}
		past, since = events, from
		if from == 0 || bytes > c.cfg.HistoryBytes/8 {
			break
		}
	}
	return past, since
}

// Bytes returns the memory of all values, in bytes; 0 before the cache is filled. Once the
// cache has reached a revision it counts that of the changes up to it.
func (c *Cache[T]) Bytes() int64 { return c.bytes.Load() }

func (c *Cache[T]) entry(kv *storage.KeyValue) *Entry[T] {
	return &Entry[T]{Key: kv.Key, Value: c.cfg.Make(kv), Revision: kv.ModRevision, stored: len(kv.Key) + len(kv.Value)}
}

// pastEvent returns an event from before the history. It reuses now, the key's entry in the
// tree or nil, if the event led to that.
func (c *Cache[T]) pastEvent(past *storage.Event, now *Entry[T]) *Event[T] {
	event := &Event[T]{Key: past.KV.Key, Revision: past.KV.ModRevision}
	if past.Prev != nil {
		event.Prev = c.entry(past.Prev)
	}
	switch {
	case past.Deleted:
	case now != nil && now.Revision == event.Revision:
		event.Entry = now
	default:
		event.Entry = c.entry(past.KV)
	}
	return event
}

// eventSize returns the memory that an event keeps alive: the state before it. The state
// after it counts only until the next change.
func (c *Cache[T]) eventSize(event *Event[T]) int {
	const overhead = 200
	if event.Prev == nil {
		return overhead
	}
	size := c.cfg.Size(event.Prev.Value)
	if event.Entry == nil {
		size *= 2 // who watches is shown it in its last state
	}
	return overhead + size
}

// count adds an entry, nil or not, to the bytes that are there, or with a sign of -1 takes it
// away.
func (c *Cache[T]) count(entry *Entry[T], sign int) {
	if entry != nil {
		c.bytes.Add(int64(sign * c.cfg.Size(entry.Value)))
		c.storedBytes.Add(int64(sign * entry.stored))
	}
}

// apply processes a response of the watch and wakes the goroutines that wait for it. Slow
// work is done before taking the lock, and watchers are woken after releasing it, since
// they begin by taking it.
func (c *Cache[T]) apply(response storage.WatchResponse) {
	came := time.Since(c.begun)
	c.metrics.stored.Add(float64(len(response.Events)))
	entries := make([]*Entry[T], len(response.Events))
	for i := range response.Events {
		if change := &response.Events[i]; !change.Deleted {
			entries[i] = c.entry(change.KV)
		}
		if c.cfg.Observer != nil {
			c.cfg.Observer.Changed(response.Events[i].KV.Key, entries[i])
		}
	}
	for _, w := range c.take(response, entries, came) {
		w.wakeUp()
	}
}

// take applies a response with its entries, which came at that time, and returns the watchers to
// wake.
func (c *Cache[T]) take(response storage.WatchResponse, entries []*Entry[T], came time.Duration) []*Watcher[T] {
	c.mu.Lock()
	defer c.mu.Unlock()
	var woken []*Watcher[T]
	cached := time.Since(c.begun)
	for i := range response.Events {
		kv := response.Events[i].KV
		event := &Event[T]{Key: kv.Key, Revision: kv.ModRevision, Entry: entries[i], came: came, cached: cached}
		if event.Entry != nil {
			event.Prev, _ = c.tree.Set(event.Key, event.Entry)
		} else {
			event.Prev, _ = c.tree.Delete(event.Key)
		}
		c.count(event.Entry, 1)
		c.count(event.Prev, -1)
		c.reindex(event.Prev, event.Entry)
		c.metrics.received.Inc()
		c.metrics.toCache.Observe((cached - came).Seconds())
		sequence := c.history.append(event, c.eventSize(event))
		woken = c.watchers.notify(event.Key, sequence, woken)
	}
	if response.Revision > c.revision {
		c.revision = response.Revision
		c.signal()
	}
	return woken
}

// clear empties the cache. Watchers learn that they have lost their place.
func (c *Cache[T]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tree = nil
	c.watchers.loseAll()
}

// leaveBehind takes note that the store is another one than that which had the revision.
func (c *Cache[T]) leaveBehind(revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.former = max(c.former, revision, c.revision)
}

// signal wakes the goroutines that wait for the revision to grow; c.mu must be held.
func (c *Cache[T]) signal() {
	close(c.advance)
	c.advance = make(chan struct{})
}
