package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/cache"
)

type (
	cacheEntry   = cache.Entry[*object]
	cacheEvent   = cache.Event[*object]
	cacheWatcher = cache.Watcher[*object]
)

const (
	// bookmarkPeriod is how often a watcher who wants bookmarks gets one.
	bookmarkPeriod = time.Minute
	// lastBookmark is how long before the end of its time a watcher gets one more, so that
	// it comes back with a version that is not old. It is kube-apiserver's.
	lastBookmark = 2 * time.Second
)

// stream is one watch: first what was there, if that was asked for, and then every change
// of what is selected, in order, each once. It is for one goroutine.
type stream struct {
	store     *Store
	selection *selection
	watcher   *cacheWatcher
	initial   []*object // still to be delivered as ADDED
	// closing is the revision of the bookmark that ends the initial events; 0: none is due.
	closing   int64
	bookmarks *time.Timer // nil: none are wanted
	after     int64       // events up to it are not wanted
	revision  int64       // everything up to it has been delivered
	changes   []*cacheEvent
}

// Watch begins a watch, whose events come from the sequence that it returns, a few at a
// time as they happen; they must be read, and end with ctx. Without a resourceVersion, or
// with "0", it begins with what is there, and otherwise after that version.
//
// Errors: those of List for bad options. Everything else comes from the sequence, as its
// last element: Expired for a version that is too old or a reader that was too slow,
// Timeout for a version that a streaming list waits for in vain.
func (s *Store) Watch(ctx context.Context, namespace string, opts *metav1.ListOptions) (iter.Seq2[[]watch.Event, error], error) {
	selection, err := s.selection(namespace, opts, false)
	if err != nil {
		return nil, err
	}
	revision, err := parseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	st := &stream{store: s, selection: selection}
	list := revision == 0
	if opts.SendInitialEvents != nil {
		list = *opts.SendInitialEvents
	}
	var failure error
	if list {
		failure = st.beginWithList(ctx, opts)
	} else {
		failure = st.beginAfter(ctx, revision)
	}
	if opts.AllowWatchBookmarks {
		st.bookmarks = time.NewTimer(bookmarkPeriod)
		st.scheduleBookmark(ctx)
	}
	return func(yield func([]watch.Event, error) bool) {
		defer st.close()
		if failure != nil {
			yield(nil, failure)
			return
		}
		var events []watch.Event
		for {
			var err error
			events, err = st.next(ctx, events[:0])
			if len(events) > 0 && !yield(events, nil) {
				return
			}
			clear(events)
			if err != nil {
				yield(nil, err)
			}
			if err != nil || ctx.Err() != nil {
				return
			}
		}
	}, nil
}

func (st *stream) beginWithList(ctx context.Context, opts *metav1.ListOptions) error {
	s := st.store
	if err := s.waitFor(ctx, opts.ResourceVersion); err != nil {
		return err
	}
	snapshot, watcher, err := s.cache.List(st.selection.scope)
	if err != nil {
		return apiError(err)
	}
	snapshot.Ascend(st.selection.scope, "", func(entry *cacheEntry) bool {
		if st.selection.matches(entry.Value) {
			st.initial = append(st.initial, entry.Value)
		}
		return true
	})
	st.watcher, st.revision = watcher, snapshot.Revision
	if opts.SendInitialEvents != nil && opts.AllowWatchBookmarks {
		st.closing = snapshot.Revision
	}
	return nil
}

// beginAfter begins with the first change after the revision. One that is not there yet is
// waited for by delivering nothing.
func (st *stream) beginAfter(ctx context.Context, revision int64) error {
	s := st.store
	if revision == 0 {
		if err := s.waitFor(ctx, ""); err != nil {
			return err
		}
	} else if err := apiError(s.cache.WaitFor(ctx, 0)); err != nil {
		return err
	}
	current, err := s.cache.Revision()
	if err != nil {
		return apiError(err)
	}
	if revision == 0 {
		revision = current
	}
	st.after, st.revision = revision, revision
	st.watcher, err = s.cache.Watch(ctx, st.selection.scope, min(revision, current))
	if errors.Is(err, storage.ErrCompacted) {
		return s.tooOld(revision)
	}
	return apiError(err)
}

// tooOld is the 410 for a watch that asks for, or has fallen behind to, a version whose
// events are gone.
func (s *Store) tooOld(revision int64) error {
	current, err := s.cache.Revision()
	if err != nil {
		return apiError(err)
	}
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", revision, current))
}

func (st *stream) close() {
	if st.watcher != nil {
		st.watcher.Close()
	}
	if st.bookmarks != nil {
		st.bookmarks.Stop()
	}
}

// next waits for the next events and appends them to events. It returns without any when
// ctx ends. An error ends the stream.
func (st *stream) next(ctx context.Context, events []watch.Event) ([]watch.Event, error) {
	if len(st.initial) > 0 {
		n := min(len(st.initial), 128)
		for _, o := range st.initial[:n] {
			events = append(events, watch.Event{Type: watch.Added, Object: o})
		}
		st.initial = st.initial[n:]
		return events, nil
	}
	if st.closing != 0 {
		st.initial, st.closing = nil, 0
		return append(events, st.bookmark(st.revision, true)), nil
	}
	var bookmarks <-chan time.Time
	if st.bookmarks != nil {
		bookmarks = st.bookmarks.C
	}
	for {
		due := false // a bookmark
		select {
		case <-ctx.Done():
			return events, nil
		case <-bookmarks:
			due = true
			st.scheduleBookmark(ctx)
		case <-st.watcher.Wake():
		}
		changes, revision, err := st.watcher.Next(st.changes[:0])
		if err != nil {
			return events, st.store.tooOld(st.revision)
		}
		for _, change := range changes {
			if event, ok := st.translate(change); ok {
				events = append(events, event)
			}
		}
		clear(changes)
		st.changes, st.revision = changes, max(st.revision, revision)
		if len(events) == 0 && due {
			events = append(events, st.bookmark(st.revision, false))
		}
		if len(events) > 0 {
			return events, nil
		}
	}
}

// scheduleBookmark sets the timer to the next bookmark, or to none where the time is up
// before there is one.
func (st *stream) scheduleBookmark(ctx context.Context) {
	wait := bookmarkPeriod
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)-lastBookmark)
	}
	if wait <= 0 {
		st.bookmarks.Stop()
		return
	}
	st.bookmarks.Reset(wait)
}

// translate is a change as it looks through the selection: an object that comes into it is
// ADDED, one that leaves it is DELETED.
func (st *stream) translate(event *cacheEvent) (watch.Event, bool) {
	if event.Revision <= st.after {
		return watch.Event{}, false
	}
	is := event.Entry != nil && st.selection.matches(event.Entry.Value)
	was := event.Prev != nil && st.selection.matches(event.Prev.Value)
	switch {
	case is && was:
		return watch.Event{Type: watch.Modified, Object: &eventObject{event.Entry.Value, event, ""}}, true
	case is:
		return watch.Event{Type: watch.Added, Object: &eventObject{event.Entry.Value, event, ""}}, true
	case was:
		return watch.Event{Type: watch.Deleted, Object: &eventObject{event.Prev.Value.at(event.Revision), event, "before/"}}, true
	}
	return watch.Event{}, false
}

// bookmark tells how far the watch has come; the one that ends the initial events says so.
func (st *stream) bookmark(revision int64, endsInitial bool) watch.Event {
	obj := st.store.New()
	obj.GetObjectKind().SetGroupVersionKind(st.store.GroupVersionKind())
	if accessor, err := meta.Accessor(obj); err == nil {
		accessor.SetResourceVersion(formatRevision(revision))
		if endsInitial {
			accessor.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		}
	}
	return watch.Event{Type: watch.Bookmark, Object: obj}
}

// eventObject is an object as an event shows it. What is encoded of it is kept with the
// event, for all who watch.
type eventObject struct {
	*object
	event *cacheEvent
	form  string // tells its encodings from those of the event's other object
}

// CacheEncode writes what was encoded under the identifier before, or encodes it.
func (o *eventObject) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	data, err := o.event.Encoded(o.form+string(id), func(w io.Writer) error { return o.object.CacheEncode(id, encode, w) })
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}
