package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

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
	out := make(chan storage.WatchResponse, 1)
	last := opts.Revision
	if last == 0 {
		// Were etcd asked to begin at “now”, a stream that broke before the first event
		// would leave open when that was.
		resp, err := s.read(ctx, "get", &etcdserverpb.RangeRequest{Key: []byte(prefix + "\x00"), CountOnly: true})
		if err != nil {
			if ctx.Err() == nil {
				out <- storage.WatchResponse{Err: err}
			}
			close(out)
			return out
		}
		last = resp.Header.GetRevision()
		out <- storage.WatchResponse{Revision: last}
	}
	w := &watcher{store: s, prefix: prefix, last: last, delivered: last, pause: resumePause}
	w.reader = queue{out: out, done: ctx.Done(), max: maxPendingBytes}
	go w.run(ctx)
	return out
}

// watcher is one watch. Its fields belong to the goroutine of run.
type watcher struct {
	store  *Store
	prefix string
	last   int64         // every event up to this revision has been taken in, or so etcd reported
	pause  time.Duration // before the next stream
	reader queue

	// delivered is the revision of the last event that was taken in, or that of the start.
	delivered int64
}

// run returns when ctx ends, or once the response that ends the watch can be read.
func (w *watcher) run(ctx context.Context) {
	defer close(w.reader.out)
	err := w.follow(ctx)
	w.reader.delivering.Wait()
	if ctx.Err() != nil {
		return
	}
	select {
	case w.reader.out <- storage.WatchResponse{Revision: w.last, Err: err}:
	case <-ctx.Done():
	}
}

// take takes in a response of etcd's after the one that confirmed the watch; an error ends
// the watch. etcd sends all events of a revision in one response, unless it is asked for
// fragments.
func (w *watcher) take(resp *etcdserverpb.WatchResponse) error {
	next, bytes := storage.WatchResponse{}, 0
	if len(resp.Events) == 0 {
		next.Revision = resp.Header.GetRevision() // a report of progress
	} else {
		next.Events = make([]storage.Event, 0, len(resp.Events))
	}
	for _, e := range resp.Events {
		if e.Kv.ModRevision <= w.delivered {
			continue // each event once, whatever a stream that resumes repeats
		}
		if e.Kv.ModRevision <= w.last {
			err := fmt.Errorf("%w: %w: etcd sent the event of revision %d after it had reported revision %d", storage.ErrUnavailable, storage.ErrMissedEvents, e.Kv.ModRevision, w.last)
			w.last = w.delivered
			return err
		}
		next.Events, next.Revision = append(next.Events, newEvent(e)), e.Kv.ModRevision
		bytes += eventBytes + len(e.Kv.Key) + len(e.Kv.Value)
	}
	if next.Revision <= w.last {
		return nil
	}
	if !w.reader.push(next, bytes) {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, errSlowReader)
	}
	w.last = next.Revision
	if len(next.Events) > 0 {
		w.delivered = next.Revision
	}
	return nil
}

func newEvent(e *mvccpb.Event) storage.Event {
	ev := storage.Event{KV: keyValue(e.Kv), Deleted: e.Type == mvccpb.Event_DELETE}
	if ev.Deleted {
		ev.KV.Value = nil
	}
	return ev
}

// queue carries responses to a reader without ever waiting for it. What a reader that is
// busy has not taken becomes one response.
type queue struct {
	out        chan storage.WatchResponse
	done       <-chan struct{} // closed when nobody reads any more
	max        int             // of bytes
	delivering sync.WaitGroup

	mu    sync.Mutex
	busy  bool                  // deliver is running: everything goes through held
	held  storage.WatchResponse // Revision 0: nothing
	bytes int                   // of held, and of what deliver offers
}

// push hands on a response whose events take so many bytes; false: too much is held.
func (q *queue) push(r storage.WatchResponse, bytes int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.busy {
		select {
		case q.out <- r:
			return true
		default:
		}
		q.busy = true
		q.delivering.Go(q.deliver)
	}
	if q.bytes > 0 && q.bytes+bytes > q.max {
		return false
	}
	q.held.Events = append(q.held.Events, r.Events...)
	q.held.Revision = r.Revision
	q.bytes += bytes
	return true
}

// deliver waits for the reader until nothing is held any more.
func (q *queue) deliver() {
	for next, bytes := q.next(0); next.Revision > 0; next, bytes = q.next(bytes) {
		select {
		case q.out <- next:
		case <-q.done:
			return
		}
	}
}

// next returns all that is held and how many bytes it takes. delivered is what the response
// before it took, which the reader now has.
func (q *queue) next(delivered int) (storage.WatchResponse, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= delivered
	r := q.held
	q.held = storage.WatchResponse{}
	q.busy = r.Revision > 0
	return r, q.bytes
}
