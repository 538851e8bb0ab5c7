package cache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/berth-project/berth/pkg/storage"
)

// patience is how long a read waits for the watch to catch up by itself before it asks
// for a progress report: while the prefix is written to, events come anyway.
const patience = time.Millisecond

// progressRetry is how often a progress report is asked for again.
const progressRetry = 50 * time.Millisecond

// freshness shares one look at the store's revision among all readers that wait for one.
// A reader is served only by a look that began after it came: that makes its read
// linearizable.
type freshness struct {
	turn chan struct{} // held by the look under way

	mu      sync.Mutex
	waiting *look // the next look, which newcomers join; nil: none is planned
}

type look struct {
	done     chan struct{}
	revision int64
	err      error
}

// Fresh waits until the cache is at least as new as the store was when Fresh was called.
func (c *Cache[T]) Fresh(ctx context.Context) error {
	revision, err := c.storeRevision(ctx)
	if err != nil {
		return err
	}
	return c.WaitFor(ctx, revision)
}

func (c *Cache[T]) storeRevision(ctx context.Context) (int64, error) {
	f := &c.fresh
	f.mu.Lock()
	next := f.waiting
	leads := next == nil
	if leads {
		next = &look{done: make(chan struct{})}
		f.waiting = next
	}
	f.mu.Unlock()
	if leads {
		f.turn <- struct{}{} // the look before ends within the storage's deadline
		f.mu.Lock()
		f.waiting = nil
		f.mu.Unlock()
		// The others depend on this look: it outlives the one who happens to lead it.
		next.revision, next.err = c.cfg.Storage.Revision(context.WithoutCancel(ctx))
		<-f.turn
		close(next.done)
	}
	select {
	case <-next.done:
		return next.revision, next.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", storage.ErrTimeout, ctx.Err())
	}
}

// WaitFor waits until the cache is filled and has reached the revision. ErrTimeout: ctx
// ended before.
func (c *Cache[T]) WaitFor(ctx context.Context, revision int64) error {
	reached, advance := c.reached(revision)
	if reached {
		return nil
	}
	ask := time.NewTimer(patience)
	defer ask.Stop()
	for {
		select {
		case <-advance:
			if reached, advance = c.reached(revision); reached {
				return nil
			}
		case <-ask.C:
			if err := c.cfg.Storage.RequestProgress(ctx); err != nil && ctx.Err() == nil {
				c.cfg.Report(err)
			}
			ask.Reset(progressRetry)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", storage.ErrTimeout, ctx.Err())
		}
	}
}

func (c *Cache[T]) reached(revision int64) (bool, <-chan struct{}) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.tree != nil && c.revision >= revision, c.advance
}
