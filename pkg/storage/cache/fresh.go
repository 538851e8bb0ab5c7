package cache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/berth-project/berth/pkg/storage"
)

// patience is how long a read waits for the watch to catch up by itself before it requests
// a progress report: while the prefix is being written, events arrive anyway.
const patience = time.Millisecond

// progressRetry is how often a progress report is requested again.
const progressRetry = 50 * time.Millisecond

// freshness shares one read of the store's revision among all readers that wait for one.
// A reader is served only by a read that began after it arrived, which makes its own read
// linearizable.
type freshness struct {
	turn chan struct{} // held by the reader that reads the revision

	mu      sync.Mutex
	waiting *revisionRead // the next read, which new readers join; nil if none is planned
	// asked is the revision up to which progress was last requested, and when.
	asked   int64
	askedAt time.Time
}

type revisionRead struct {
	done      chan struct{} // closed before the turn is given back
	revision  int64
	err       error
	abandoned bool // its reader gave up: the others read again
}

// Fresh waits until the cache is at least as new as the store was when Fresh was called.
// It returns ErrTimeout if ctx ends first, and ErrUnavailable with ctx's error if ctx had
// already ended.
func (c *Cache[T]) Fresh(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	revision, err := c.storeRevision(ctx)
	if err != nil {
		return err
	}
	return c.WaitFor(ctx, revision)
}

// storeRevision returns what the store's revision was at some time after the call. Of the
// readers that wait for the same read, the one that gets the turn reads for all of them.
func (c *Cache[T]) storeRevision(ctx context.Context) (int64, error) {
	f := &c.fresh
	for {
		next := f.join()
		select {
		case <-next.done:
		case f.turn <- struct{}{}:
			if f.begin(next) {
				next.revision, next.err = c.cfg.Storage.Revision(ctx)
				next.abandoned = next.err != nil && ctx.Err() != nil
				close(next.done)
			}
			<-f.turn
		case <-ctx.Done():
		}
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("%w: %w", storage.ErrTimeout, err)
		}
		if !next.abandoned {
			return next.revision, next.err
		}
	}
}

// join returns the next read, which has not begun.
func (f *freshness) join() *revisionRead {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting == nil {
		f.waiting = &revisionRead{done: make(chan struct{})}
	}
	return f.waiting
}

// begin closes a read to new readers, and reports whether the caller is to do it: another
// reader may already have. The turn must be held.
func (f *freshness) begin(next *revisionRead) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting != next {
		return false
	}
	f.waiting = nil
	return true
}

// WaitFor waits until the cache is filled and has reached the revision. It returns
// ErrTimeout if ctx ends first.
func (c *Cache[T]) WaitFor(ctx context.Context, revision int64) error {
	reached, advance := c.reached(revision)
	if reached {
		c.metrics.readWait.Observe(0)
		return nil
	}
	began := time.Now()
	defer func() { c.metrics.readWait.Observe(time.Since(began).Seconds()) }()
	ask := time.NewTimer(patience)
	defer ask.Stop()
	for {
		select {
		case <-advance:
			if reached, advance = c.reached(revision); reached {
				return nil
			}
		case <-ask.C:
			c.askProgress(revision)
			ask.Reset(progressRetry)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", storage.ErrTimeout, ctx.Err())
		}
	}
}

// askProgress makes the watch report the revision, unless another reader that waits for the
// same one has just requested it.
func (c *Cache[T]) askProgress(revision int64) {
	f, now := &c.fresh, time.Now()
	f.mu.Lock()
	repeated := revision == f.asked && now.Sub(f.askedAt) < progressRetry/2
	if !repeated {
		f.asked, f.askedAt = revision, now
	}
	f.mu.Unlock()
	if repeated {
		return
	}
	select {
	case c.progress <- struct{}{}:
	default: // a pending request serves this one, too
	}
}

func (c *Cache[T]) reached(revision int64) (bool, <-chan struct{}) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.filled() && c.revision >= revision, c.advance
}
