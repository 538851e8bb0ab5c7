package cache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/berth-project/berth/pkg/storage"
)

// flaky is a storage that counts calls and in which a test interferes.
type flaky struct {
	storage.Interface
	revisions, progress, histories, watches atomic.Int64

	revision func(ctx context.Context) (int64, error)                                                           // nil: let through
	history  func(ctx context.Context, prefix string, after, upTo int64, maxBytes int) ([]storage.Event, error) // nil: let through
	list     func(ctx context.Context, p string, o storage.ListOptions) (storage.ListResponse, error)           // nil: let through
	overtake chan int64                                                                                         // nil, or the watch reports what comes on it instead of its events

	mu   sync.Mutex
	down error         // not nil: watches end with it, at once
	cut  chan struct{} // closed and replaced when down is set
	gate chan struct{} // while it is not nil and open, watches deliver nothing
}

func newFlaky(store storage.Interface) *flaky {
	return &flaky{Interface: store, cut: make(chan struct{})}
}

// breakWatches ends all watches, and those that begin later, with the error; nil lets them
// live again.
func (f *flaky) breakWatches(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down = err; err != nil {
		close(f.cut)
		f.cut = make(chan struct{})
	}
}

// hold stops delivery; release goes on with it.
func (f *flaky) hold() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate := make(chan struct{})
	f.gate = gate
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.gate = nil
		close(gate)
	})
}

func (f *flaky) state() (cut, gate <-chan struct{}, down error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cut, f.gate, f.down
}

func (f *flaky) Revision(ctx context.Context) (int64, error) {
	f.revisions.Add(1)
	if f.revision != nil {
		return f.revision(ctx)
	}
	return f.Interface.Revision(ctx)
}

// countProgress returns a channel that forwards requests until ctx ends.
func (f *flaky) countProgress(ctx context.Context, requests <-chan struct{}) <-chan struct{} {
	counted := make(chan struct{})
	go func() {
		for {
			select {
			case request := <-requests:
				f.progress.Add(1)
				select {
				case counted <- request:
				case <-ctx.Done():
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return counted
}

func (f *flaky) History(ctx context.Context, prefix string, after, upTo int64, maxBytes int) ([]storage.Event, error) {
	f.histories.Add(1)
	if f.history != nil {
		return f.history(ctx, prefix, after, upTo, maxBytes)
	}
	return f.Interface.History(ctx, prefix, after, upTo, maxBytes)
}

func (f *flaky) List(ctx context.Context, prefix string, opts storage.ListOptions) (storage.ListResponse, error) {
	if f.list != nil {
		return f.list(ctx, prefix, opts)
	}
	return f.Interface.List(ctx, prefix, opts)
}

func (f *flaky) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) <-chan storage.WatchResponse {
	if f.watches.Add(1) == 1 && f.overtake != nil {
		return f.overtaken(ctx)
	}
	out := make(chan storage.WatchResponse)
	ctx, cancel := context.WithCancel(ctx)
	opts.Progress = f.countProgress(ctx, opts.Progress)
	cut, _, down := f.state()
	go func() {
		defer close(out)
		defer cancel()
		if down == nil {
			down = f.forward(ctx, cut, f.Interface.Watch(ctx, prefix, opts), out)
		}
		if down != nil {
			select {
			case out <- storage.WatchResponse{Err: down}:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// overtaken is a watch of a store that reports a revision before it sends the events.
func (f *flaky) overtaken(ctx context.Context) <-chan storage.WatchResponse {
	out := make(chan storage.WatchResponse)
	go func() {
		defer close(out)
		select {
		case revision := <-f.overtake:
			out <- storage.WatchResponse{Revision: revision}
			out <- storage.WatchResponse{Err: fmt.Errorf("%w: %w", storage.ErrUnavailable, storage.ErrMissedEvents)}
		case <-ctx.Done():
		}
	}()
	return out
}

// forward returns the error that ends the watch, nil where it has ended already.
func (f *flaky) forward(ctx context.Context, cut <-chan struct{}, in <-chan storage.WatchResponse, out chan<- storage.WatchResponse) error {
	for {
		select {
		case <-cut:
			_, _, down := f.state()
			return down
		case response, ok := <-in:
			if !ok {
				return nil
			}
			if _, gate, _ := f.state(); gate != nil {
				select {
				case <-gate:
				case <-ctx.Done():
					return nil
				}
			}
			select {
			case out <- response:
			case <-cut:
				_, _, down := f.state()
				return down
			case <-ctx.Done():
				return nil
			}
		}
	}
}
