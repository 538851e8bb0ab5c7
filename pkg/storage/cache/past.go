package cache

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/berth-project/berth/pkg/storage"
)

const (
	// catchUps bounds how many watchers read the store's history at the same time, since
	// each result is held in memory as a whole.
	catchUps = 8
	// catchUpTime bounds the time to read the store's history.
	catchUpTime = 10 * time.Second
)

// past bounds the cost of watchers that begin before the cache's history.
type past struct {
	turns chan struct{} // held while a watcher reads the store's history
	bytes atomic.Int64  // of undelivered past events of all watchers
}

// catchUp attaches a watcher that begins before the history, and gives it the events in
// between from the store's history. It returns ErrCompacted if they are no longer all
// available, or are more than all watchers together may hold.
func (c *Cache[T]) catchUp(ctx context.Context, w *Watcher[T], revision int64) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpTime)
	defer cancel()
	select {
	case c.past.turns <- struct{}{}:
		defer func() { <-c.past.turns }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", storage.ErrTimeout, ctx.Err())
	}
	upTo, err := c.middle()
	if err != nil {
		return err
	}
	changes, err := c.cfg.Storage.History(ctx, w.scope, revision, upTo)
	if err != nil {
		return err
	}
	for i := range changes {
		if !w.wants(changes[i].KV.Key) {
			continue
		}
		event := c.pastEvent(&changes[i], nil)
		if !w.hold(event, c.eventSize(event)) {
			w.release()
			return fmt.Errorf("%w: too much has happened since", storage.ErrCompacted)
		}
	}
	if !c.attach(w, upTo) {
		w.release()
		return fmt.Errorf("%w: the history moved on", storage.ErrCompacted)
	}
	if len(w.past) > 0 {
		w.wakeUp()
	}
	return nil
}

// middle returns a revision after which the history is complete, and stays so until half of
// the history has been replaced.
func (c *Cache[T]) middle() (int64, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.tree == nil {
		return 0, storage.ErrUnavailable
	}
	return c.history.middle(), nil
}

// hold adds an event to the watcher's past, and reports whether that is within the bound.
func (w *Watcher[T]) hold(event *Event[T], bytes int) bool {
	if event.Entry != nil {
		bytes += w.cache.cfg.Size(event.Entry.Value)
	}
	w.past = append(w.past, event)
	w.pastBytes += int64(bytes)
	return w.cache.past.bytes.Add(int64(bytes)) <= int64(w.cache.cfg.HistoryBytes)
}

// release drops the watcher's past.
func (w *Watcher[T]) release() {
	w.cache.past.bytes.Add(-w.pastBytes)
	w.past, w.pastBytes = nil, 0
}

// nextPast appends the next events of the past to events. Events of one revision are never
// split.
func (w *Watcher[T]) nextPast(events []*Event[T]) ([]*Event[T], int64) {
	n := min(len(w.past), batch)
	revision := w.past[n-1].Revision
	for n < len(w.past) && w.past[n].Revision == revision {
		n++
	}
	events = append(events, w.past[:n]...)
	clear(w.past[:n])
	if w.past = w.past[n:]; len(w.past) == 0 {
		w.release()
	}
	w.wakeUp()
	return events, revision
}
