package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/storage"
)

// maxPendingBytes bounds what one watch holds for a reader that does not read: events are
// counted with their values. It is far more than a reader that is alive falls behind by,
// and little enough for one watch per resource.
const maxPendingBytes = 64 << 20

// eventBytes is what an event is taken to cost beside its key and value.
const eventBytes = 256

var errSlowReader = errors.New("the reader of the watch is too slow")

// Watch implements storage.Interface. With Revision 0 it first reads the store's revision,
// and the first response reports it. Events wait for a slow reader up to a bound of 64 MiB
// each watch; beyond it the watch ends with ErrUnavailable after all that was held has been
// read, and may be taken up again from there. Values are shared with other watches of an
// etcd in this process: they are not to be changed.
func (s *Store) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) <-chan storage.WatchResponse {
	w := &watcher{last: opts.Revision, max: maxPendingBytes}
	out := make(chan storage.WatchResponse, 1)
	if opts.Revision == 0 {
		// Were etcd asked to begin at “now”, its client would begin at another “now” after
		// a connection that broke before the first event.
		resp, err := s.read(ctx, "get", &etcdserverpb.RangeRequest{Key: []byte(prefix + "\x00"), CountOnly: true})
		if err != nil {
			if ctx.Err() == nil {
				out <- storage.WatchResponse{Err: err}
			}
			close(out)
			return out
		}
		w.last = resp.Header.GetRevision()
		w.push(storage.WatchResponse{Revision: w.last}, 0)
	}
	go func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ctx, leave := s.streams.enter(ctx)
		defer leave()
		w.created = func() { s.streams.begin(ctx) }
		w.run(ctx, s.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithProgressNotify(), clientv3.WithCreatedNotify(), clientv3.WithRev(w.last+1)), out)
	}()
	return out
}

// watcher carries the responses of one watch from clientv3 to its reader. It always takes
// what clientv3 has, which would hold it back without a bound.
type watcher struct {
	last    int64 // every event up to this revision has been taken in
	created func()
	pending []pendingResponse
	bytes   int // of pending
	max     int // of bytes
}

type pendingResponse struct {
	storage.WatchResponse
	bytes int
}

func (w *watcher) push(r storage.WatchResponse, bytes int) {
	w.pending = append(w.pending, pendingResponse{r, bytes})
	w.bytes += bytes
}

// run returns when ctx ends, or once the response that ends the watch has been read.
func (w *watcher) run(ctx context.Context, in clientv3.WatchChan, out chan<- storage.WatchResponse) {
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
			}
		}
	}
}

// take adds a response of clientv3 to the pending ones; an error ends the watch. etcd
// sends all events of a revision in one response, unless it is asked for fragments.
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
	if resp.Created {
		w.created()
		return nil
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
		if e.Kv.ModRevision <= w.last {
			continue // each event once, whatever a reconnection repeats
		}
		events = append(events, newEvent(e))
		bytes += eventBytes + len(e.Kv.Key) + len(e.Kv.Value)
	}
	if len(events) == 0 {
		return nil
	}
	if len(w.pending) > 0 && w.bytes+bytes > w.max {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, errSlowReader)
	}
	w.last = events[len(events)-1].KV.ModRevision
	w.push(storage.WatchResponse{Events: events, Revision: w.last}, bytes)
	return nil
}

func newEvent(e *clientv3.Event) storage.Event {
	ev := storage.Event{KV: keyValue(e.Kv), Deleted: e.Type == clientv3.EventTypeDelete}
	if ev.Deleted {
		ev.KV.Value = nil
	}
	return ev
}
