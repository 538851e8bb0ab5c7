package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/storage"
)

// maxPendingBytes bounds what one watch holds for a slow reader, counting events with their
// values. A live reader never falls that far behind, and it is little enough for one watch
// per resource.
const maxPendingBytes = 64 << 20

// eventBytes is the assumed size of an event without its key and value.
const eventBytes = 256

var errSlowReader = errors.New("the reader of the watch is too slow")

// Watch implements storage.Interface. Up to 64 MiB of events wait for a slow reader; beyond
// that the watch ends with ErrUnavailable after the pending events have been read, and may
// be resumed from there. Values are shared with other watches of an in-process etcd and
// must not be modified.
func (s *Store) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) <-chan storage.WatchResponse {
	out := make(chan storage.WatchResponse, 1)
	begun := s.lineage.now()
	w := &watcher{last: opts.Revision, delivered: opts.Revision, max: maxPendingBytes}
	w.see = func(resp *clientv3.WatchResponse) bool { return s.lineage.seeEvents(resp, begun) }
	go func() {
		defer close(out)
		// The watch has its own watcher, and so a stream of its own: a progress request
		// concerns all watches of a stream, and is not answered while one of them is behind.
		watches := s.newWatcher()
		closeWatches := sync.OnceFunc(func() { _ = watches.Close() }) // its error is the stream's
		defer closeWatches()
		defer context.AfterFunc(s.client.Ctx(), closeWatches)()
		var asking sync.WaitGroup
		defer asking.Wait()
		streamCtx, cancel := context.WithCancel(requireLeader(ctx))
		defer cancel()
		asking.Go(func() { askProgress(streamCtx, watches, opts.Progress) })
		in := watches.Watch(streamCtx, prefix, clientv3.WithPrefix(), clientv3.WithProgressNotify(), clientv3.WithRev(w.last+1))
		w.run(ctx, in, cancel, out)
	}()
	return out
}

// newWatcher returns a watcher that shares no stream with others. An in-process client has
// no connection to create one from, and creates it itself.
func (s *Store) newWatcher() clientv3.Watcher {
	if inProcess, ok := s.client.Watcher.(interface{ NewWatcher() clientv3.Watcher }); ok {
		return inProcess.NewWatcher()
	}
	return clientv3.NewWatcher(s.client)
}

// askProgress passes on the reader's requests until ctx ends. They wait while there is no
// stream; the watch itself reports why one ended.
func askProgress(ctx context.Context, watches clientv3.Watcher, requests <-chan struct{}) {
	for {
		select {
		case <-requests:
			_ = watches.RequestProgress(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// watcher passes the responses of one watch from clientv3 to its reader. It always takes
// what clientv3 has, which would otherwise buffer it without a bound.
type watcher struct {
	last      int64 // revision up to which all events were received, or were reported to be
	delivered int64 // revision of the last event received, or that of the start
	pending   []pendingResponse
	bytes     int                                // of pending
	max       int                                // of bytes
	see       func(*clientv3.WatchResponse) bool // reports whether it is of the etcd with which the watch began; nil: it is
}

type pendingResponse struct {
	storage.WatchResponse
	bytes int
}

func (w *watcher) push(r storage.WatchResponse, bytes int) {
	w.pending = append(w.pending, pendingResponse{r, bytes})
	w.bytes += bytes
}

// run returns when ctx ends, or once the response that ends the watch has been read. It
// calls end when it needs nothing more from in.
func (w *watcher) run(ctx context.Context, in clientv3.WatchChan, end func(), out chan<- storage.WatchResponse) {
	for {
		var next storage.WatchResponse
		var send chan<- storage.WatchResponse
		if len(w.pending) > 0 {
			next, send = w.pending[0].WatchResponse, out
		}
		select {
		case <-ctx.Done():
			return
		case send <- next:
			if next.Err != nil {
				return
			}
			w.bytes -= w.pending[0].bytes
			w.pending[0] = pendingResponse{}
			w.pending = w.pending[1:]
		case resp, ok := <-in:
			if ctx.Err() != nil {
				return
			}
			if err := w.take(resp, ok); err != nil {
				w.push(storage.WatchResponse{Revision: w.last, Err: err}, 0)
				in = nil
				end() // otherwise clientv3 would keep receiving events
			}
		}
	}
}

// take adds a response of clientv3 to the pending ones; an error ends the watch. etcd
// sends all events of a revision in one response unless fragments were requested.
func (w *watcher) take(resp clientv3.WatchResponse, ok bool) error {
	if !ok {
		return fmt.Errorf("%w: etcd's client closed the watch", storage.ErrUnavailable)
	}
	if err := resp.Err(); err != nil {
		if errors.Is(err, rpctypes.ErrCompacted) {
			return fmt.Errorf("%w: %w", storage.ErrCompacted, err)
		}
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	if w.see != nil && !w.see(&resp) {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, storage.ErrReplaced)
	}
	if resp.IsProgressNotify() {
		if rev := resp.Header.GetRevision(); rev > w.last {
			w.last = rev
			w.push(storage.WatchResponse{Revision: rev}, 0)
		}
		return nil
	}
	events, bytes := make([]storage.Event, 0, len(resp.Events)), 0
	for _, e := range resp.Events {
		if e.Kv.ModRevision <= w.delivered {
			continue // deliver each event once, even if a resumed stream repeats it
		}
		if e.Kv.ModRevision <= w.last {
			err := fmt.Errorf("%w: %w: etcd sent the event of revision %d after it had reported revision %d", storage.ErrUnavailable, storage.ErrMissedEvents, e.Kv.ModRevision, w.last)
			w.last = w.delivered
			return err
		}
		events = append(events, storage.Event{KV: keyValue(e.Kv), Deleted: e.Type == clientv3.EventTypeDelete})
		bytes += eventBytes + len(e.Kv.Key) + len(e.Kv.Value)
	}
	if len(events) == 0 {
		return nil
	}
	if len(w.pending) > 0 && w.bytes+bytes > w.max {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, errSlowReader)
	}
	w.last = events[len(events)-1].KV.ModRevision
	w.delivered = w.last
	w.push(storage.WatchResponse{Events: events, Revision: w.last}, bytes)
	return nil
}
