package registry

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/storage"
)

const (
	// bookmarkPeriod is how often a watcher who wants bookmarks gets one.
	bookmarkPeriod = time.Minute
	// lastBookmark is how long before the end of its time a watcher gets one more, so that
	// it comes back with a version that is not old. It is kube-apiserver's.
	lastBookmark = 2 * time.Second
)

// watchStream is one watch: first what was there, if that was asked for, and then every change
// of what is selected, in order, each once. It is for one goroutine.
type watchStream struct {
	store     *Store
	selection *selection
	watcher   *cacheWatcher
	initial   []*object.Object // still to be delivered as ADDED
	examined  int              // how many objects were looked at to find them
	endDue    bool             // whether a bookmark that ends the initial events is due
	bookmarks *time.Timer      // nil: none are wanted
	after     int64            // events up to it are not wanted
	revision  int64            // everything up to it has been delivered
	changes   []*cacheEvent
}

// Watch begins a watch, whose events come from the sequence that it returns, a few at a
// time as they happen; they must be read, and end with ctx: with a bookmark, if bookmarks are
// wanted and the cause is object.ErrStopping. Without a resourceVersion, or
// with "0", it begins with what is there, and otherwise after that version.
//
// Errors: those of List for bad options. Everything else comes from the sequence, as its
// last element: Expired for a version that is too old or a reader that was too slow,
// Timeout for a version that a streaming list waits for in vain.
func (s *Store) Watch(ctx context.Context, namespace string, opts *metav1.ListOptions) (events iter.Seq2[[]object.Event, error], cost object.WatchCost, err error) {
	selection, err := s.selection(namespace, opts, false)
	if err != nil {
		return nil, cost, err
	}
	revision, err := parseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, cost, err
	}
	st := &watchStream{store: s, selection: selection}
	list := revision == 0
	if selection.initialEvents != nil {
		list = *selection.initialEvents
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
	for _, o := range st.initial {
		cost.Bytes += o.Size()
	}
	cost.Requirements, cost.Comparisons = selection.requirements, st.examined*selection.requirements
	return func(yield func([]object.Event, error) bool) {
		defer st.close()
		if failure != nil {
			yield(nil, failure)
			return
		}
		var events []object.Event
		for {
			var err error
			events, err = st.next(ctx, events[:0])
			if len(events) > 0 && !yield(events, nil) {
				return
			}
			clear(events)
			if err != nil {
				yield(nil, err)
				return
			}
			if ctx.Err() != nil {
				st.takeLeave(ctx, yield)
				return
			}
		}
	}, cost, nil
}

func (st *watchStream) beginWithList(ctx context.Context, opts *metav1.ListOptions) error {
	s := st.store
	if err := s.waitFor(ctx, opts.ResourceVersion); err != nil {
		return err
	}
	snapshot, watcher, err := s.cache.List(st.selection.scope)
	if err != nil {
		return apierr.FromStorage(err)
	}
	snapshot.Ascend(st.selection.scope, "", func(entry *cacheEntry) bool {
		st.examined++
		if o := entry.Value.object; o != nil && st.selection.matches(o) {
			st.initial = append(st.initial, o)
		}
		return true
	})
	st.watcher, st.revision = watcher, snapshot.Revision
	st.endDue = st.selection.initialEvents != nil && opts.AllowWatchBookmarks
	return nil
}

// beginAfter begins with the first change after the revision. One that is not there yet is
// waited for by delivering nothing.
func (st *watchStream) beginAfter(ctx context.Context, revision int64) error {
	s := st.store
	if revision == 0 {
		if err := s.waitFor(ctx, ""); err != nil {
			return err
		}
	} else if err := apierr.FromStorage(s.cache.WaitFor(ctx, 0)); err != nil {
		return err
	}
	current, err := s.cache.Revision()
	if err != nil {
		return apierr.FromStorage(err)
	}
	if revision == 0 {
		revision = current
	}
	if s.cache.IsFormer(revision) {
		return s.tooOld(revision)
	}
	st.after, st.revision = revision, revision
	st.watcher, err = s.cache.Watch(st.selection.scope, min(revision, current))
	if errors.Is(err, storage.ErrCompacted) {
		return s.tooOld(revision)
	}
	return apierr.FromStorage(err)
}

// tooOld is the 410 for a watch that asks for, or has fallen behind to, a version whose
// events are gone.
func (s *Store) tooOld(revision int64) error {
	current, err := s.cache.Revision()
	if err != nil { // the cache is being filled again
		return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d", revision))
	}
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", revision, current))
}

func (st *watchStream) close() {
	if st.watcher != nil {
		st.watcher.Close()
	}
	if st.bookmarks != nil {
		st.bookmarks.Stop()
	}
}

// next waits for the next events and appends them to events. It returns without any when
// ctx ends. An error ends the stream.
func (st *watchStream) next(ctx context.Context, events []object.Event) ([]object.Event, error) {
	if len(st.initial) > 0 {
		n := min(len(st.initial), 128)
		st.store.initEvents.Add(float64(n))
		shown, err := st.store.showAll(st.initial[:n])
		if err != nil {
			return events, err
		}
		for _, o := range shown {
			events = append(events, object.Event{Type: watch.Added, Object: o})
		}
		st.initial = st.initial[n:]
		return events, nil
	}
	if st.endDue {
		st.initial, st.endDue = nil, false
		return st.bookmark(events, true)
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
		events, err := st.take(events)
		switch {
		case err != nil:
			return events, err
		case len(events) == 0 && due:
			return st.bookmark(events, false)
		case len(events) > 0:
			return events, nil
		}
	}
}

// take appends the events that have come.
func (st *watchStream) take(events []object.Event) ([]object.Event, error) {
	changes, revision, err := st.watcher.Next(st.changes[:0])
	if err != nil {
		return events, st.store.tooOld(st.revision)
	}
	for _, change := range changes {
		event, ok := st.translate(change)
		if !ok {
			continue
		}
		if event.Object, err = st.store.show(event.Object); err != nil {
			return events, err
		}
		events = append(events, event)
	}
	clear(changes)
	st.changes, st.revision = changes, max(st.revision, revision)
	return events, nil
}

// takeLeave ends a watch of a server that stops with what has come and a bookmark, if bookmarks
// are wanted and the initial events are through: whoever goes on from there at another server
// misses nothing and is sent nothing twice.
func (st *watchStream) takeLeave(ctx context.Context, yield func([]object.Event, error) bool) {
	//nolint:errorlint // it is never wrapped
	if st.bookmarks == nil || len(st.initial) > 0 || st.endDue || context.Cause(ctx) != object.ErrStopping {
		return
	}
	events, err := st.take(nil)
	if err == nil {
		events, err = st.bookmark(events, false)
	}
	if err == nil {
		yield(events, nil)
	}
}

// bookmark appends an event that tells how far the watch has come; the one that ends the
// initial events says so.
func (st *watchStream) bookmark(events []object.Event, endsInitial bool) ([]object.Event, error) {
	bookmark, err := object.Bookmark(st.store.objects, st.revision, endsInitial)
	if err != nil {
		return events, err
	}
	return append(events, object.Event{Type: watch.Bookmark, Object: bookmark}), nil
}

// scheduleBookmark sets the timer to the next bookmark, or to none where the time is up
// before there is one.
func (st *watchStream) scheduleBookmark(ctx context.Context) {
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
func (st *watchStream) translate(event *cacheEvent) (object.Event, bool) {
	if event.Revision <= st.after {
		return object.Event{}, false
	}
	is := event.Entry != nil && st.selects(event.Entry.Value)
	was := event.Prev != nil && st.selects(event.Prev.Value)
	switch {
	case is && was:
		return object.Event{Type: watch.Modified, Object: event.Entry.Value.object}, true
	case is:
		return object.Event{Type: watch.Added, Object: event.Entry.Value.object}, true
	case was:
		return object.Event{Type: watch.Deleted, Object: event.Last(stored.last).object}, true
	}
	return object.Event{}, false
}

// selects reports whether it is an object that the watch is about.
func (st *watchStream) selects(v stored) bool {
	return v.object != nil && st.selection.matches(v.object)
}
