package server

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/media"
	"github.com/berth-project/berth/pkg/server/metrics"
	"github.com/berth-project/berth/pkg/server/share"
	"github.com/berth-project/berth/pkg/server/stream"
	"github.com/berth-project/berth/pkg/server/websocket"
)

// minWatchTime is the shortest life of a watch whose client names none; each lives up to
// twice as long, at random, so that they do not all come back at once.
const minWatchTime = 30 * time.Minute

// maxWatchTime is the longest life that a client may name: whoever watches comes back in time,
// as after the end of any watch.
const maxWatchTime = time.Hour

// lifeOf is how long a watch lasts at most.
func lifeOf(opts *metav1.ListOptions) time.Duration {
	if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds > 0 {
		return time.Duration(min(*opts.TimeoutSeconds, int64(maxWatchTime/time.Second))) * time.Second
	}
	return minWatchTime + rand.N(minWatchTime)
}

// watch streams the changes of a collection until the time is up, the client goes, or the
// server ends its streams.
func (s *Server) watch(c *call) (result, error) {
	opts, err := listOptions(c)
	if err != nil {
		return result{}, err
	}
	if err := c.tableOptions(); err != nil {
		return result{}, err
	}
	events, err := s.codecs.Events(c.output, c.include)
	if err != nil {
		return result{}, err
	}
	if c.name != "" {
		if opts.FieldSelector, err = selectNamed(opts.FieldSelector, c.name); err != nil {
			return result{}, err
		}
	}
	if c.watching, err = s.enter(c.rec, s.pools.watches, 1); err != nil {
		return result{}, err
	}
	c.output.MediaType = events.MediaType
	stoppable, stopWatch := context.WithCancelCause(auth.WithUser(c.req.Context(), c.rec.attrs.User))
	ctx, cancel := context.WithTimeout(stoppable, lifeOf(opts))
	takeLeave := func() { stopWatch(object.ErrStopping) }
	stop := context.AfterFunc(s.streams, takeLeave)
	end := func() {
		stop()
		cancel()
		stopWatch(nil)
	}
	changes, cost, err := c.resource.Watch(ctx, c.namespace, opts)
	if err != nil {
		end()
		return result{}, err
	}
	endSocket, gone := func() {}, new(atomic.Bool)
	if err = s.beginWatch(c, cost); err == nil {
		endSocket, err = s.upgrade(c, func() {
			gone.Store(true)
			cancel()
		})
	}
	if err != nil {
		end()
		return abandon(changes, err)
	}
	one := &watching{
		s: s, rec: c.rec, ctx: ctx, cancel: cancel, takeLeave: takeLeave, events: events,
		open:    s.metrics.OpenWatch(c.rec.labels(), isOfOne(opts.FieldSelector)),
		listing: ptr.Deref(opts.SendInitialEvents, false) && opts.AllowWatchBookmarks,
		initial: cost.Bytes, holds: cost.Bytes, gone: gone,
	}
	c.rec.answer.hold = func() (share.Taken, error) { return s.holdOld(c, one.holds) }
	return result{code: http.StatusOK, events: func(w *stream.Writer) {
		defer endSocket()
		defer end()
		one.run(w, changes)
	}}, nil
}

// abandon ends a watch that did not begin because of err; its context has ended.
func abandon(changes iter.Seq2[[]object.Event, error], err error) (result, error) {
	for _, end := range changes { // they must be read
		_ = end
	}
	if err == errNoSocket { //nolint:errorlint // it is never wrapped
		panic(http.ErrAbortHandler)
	}
	return result{}, err
}

// errNoSocket says that the client has gone before its WebSocket began, and the connection with it.
var errNoSocket = errors.New("the client has gone")

// upgrade goes on with the watch over a WebSocket, where the client asks for one: the record then
// writes to that, until end is called. gone ends the watch.
func (s *Server) upgrade(c *call, gone func()) (end func(), err error) {
	if !websocket.Requested(c.req) {
		return func() {}, nil
	}
	rec, framed := c.rec, c.output.MediaType != runtime.ContentTypeJSON
	conn, err := websocket.Upgrade(rec.ResponseWriter, c.req, framed, writeTimeout, gone)
	switch {
	case apierrors.ReasonForError(err) != metav1.StatusReasonUnknown:
		return nil, err
	case err != nil:
		return nil, errNoSocket
	}
	rec.ResponseWriter, rec.code = conn, http.StatusSwitchingProtocols
	c.req.Header.Del("Accept-Encoding") // which is about the answers of HTTP
	s.background.Add(1)
	return func() {
		_ = conn.Close() // who has gone misses nothing
		s.background.Done()
	}, nil
}

// isOfOne reports whether a field selector names one object.
func isOfOne(selector string) bool {
	parsed, err := fields.ParseSelector(selector)
	if err != nil {
		return false
	}
	_, named := parsed.RequiresExactMatch(nameField)
	return named
}

const nameField = "metadata.name"

// selectNamed is the field selector of a watch whose path names one object. As in
// kube-apiserver the client's own must require that name. One that cannot be parsed is left
// for the resource to refuse.
func selectNamed(selector, name string) (string, error) {
	given, err := fields.ParseSelector(selector)
	switch {
	case err != nil:
		return selector, nil //nolint:nilerr // the resource answers with it
	case given.Empty():
		return fields.OneTermEqualSelector(nameField, name).String(), nil
	}
	if required, ok := given.RequiresExactMatch(nameField); !ok || required != name {
		return "", apierrors.NewBadRequest("fieldSelector metadata.name doesn't match requested name")
	}
	return selector, nil
}

// sizeOf is how many bytes of JSON the objects of events have.
func sizeOf(events []object.Event) int {
	size := 0
	for _, event := range events {
		size += event.Object.Size()
	}
	return size
}

// errRevoked ends a watch whose token or certificate is no longer valid, or no longer for that user.
var errRevoked = apierrors.NewUnauthorized("Unauthorized: the token or the certificate has expired or was revoked, or its user has changed")

// watching is a watch while it goes on.
type watching struct {
	s         *Server
	rec       *record
	pauses    *pauses         // those of rec, which forgets them when the watch has ended
	ctx       context.Context // of the changes
	cancel    func()          // ends the changes
	takeLeave func()          // ends them after a bookmark, if its client wants those
	events    *media.Events
	open      *metrics.Watch
	// listing says that a bookmark is due that ends a streamed list.
	listing bool
	gone    *atomic.Bool          // whether the client has closed its WebSocket
	refused atomic.Pointer[error] // why its user may no longer watch; nil: it may
	initial int                   // how many bytes the objects have with which the changes begin
	holds   int                   // bytes of objects, until the next pause
}

// run writes the events as they come, and flushes when there are no more for now.
func (o *watching) run(w *stream.Writer, changes iter.Seq2[[]object.Event, error]) {
	rec := o.rec
	var failure error
	defer func() {
		rec.ended = o.reason(failure)
		o.open.End(rec.ended)
	}()
	o.s.logWatch(rec)
	rec.audit.Start(cmp.Or(rec.code, http.StatusOK))
	rec.startPauses()
	o.pauses = rec.pauses
	defer o.pauses.begin()
	stop := context.AfterFunc(rec.identity.Valid, o.hurryAway)
	defer stop()
	defer o.followRight()()
	if rec.code == http.StatusSwitchingProtocols { // no http.Server knows of the connection
		stop := context.AfterFunc(o.s.streams, func() { o.pauses.hurry(revokedTimeout) })
		defer stop()
	}
	_ = w.Flush() // the changes must be read even if the client has gone: that ends them
	rec.pause()
	for batch, err := range changes {
		size := sizeOf(batch)
		if o.initial <= 0 {
			o.holds = size
		}
		if err == nil {
			err = o.write(w, batch)
		}
		if failure = err; err != nil || o.withdrawn() != nil {
			break
		}
		if rec.writeErr = w.Flush(); rec.writeErr != nil {
			return
		}
		if o.initial -= size; o.initial <= 0 { // the initial events are one part
			o.initial = 0
			rec.pause()
		}
	}
	if err := o.withdrawn(); err != nil {
		failure = err
	}
	if failure != nil {
		_ = o.events.WriteError(w, o.s.statusOf(rec, failure)) // a buffer takes it
	}
	_ = w.Close() // who has gone misses nothing
	rec.endPauses()
}

// write writes events until the watch is withdrawn.
func (o *watching) write(w *stream.Writer, batch []object.Event) error {
	for _, event := range batch {
		before := w.Size()
		if err := o.events.Write(w, event); err != nil || o.withdrawn() != nil {
			return err
		}
		o.open.EventSizes.Observe(float64(w.Size() - before))
		if o.listing && event.Type == watch.Bookmark {
			o.listing = false
			o.open.Listed(time.Since(o.rec.start).Seconds())
		}
	}
	o.open.Events.Add(float64(len(batch)))
	return nil
}

// reason tells why the watch has ended; failure is what its client was told.
func (o *watching) reason(failure error) string {
	switch {
	case o.withdrawn() != nil:
		return metrics.Revoked
	case errors.Is(o.rec.writeErr, os.ErrDeadlineExceeded):
		return metrics.TooSlow
	case o.rec.writeErr != nil, o.gone.Load(), o.rec.req.Context().Err() != nil:
		return metrics.ClientGone
	case apierrors.IsResourceExpired(failure):
		return metrics.TooOld
	case failure != nil:
		return metrics.Failed
	case context.Cause(o.ctx) == object.ErrStopping: //nolint:errorlint // it is never wrapped
		return metrics.Shutdown
	}
	return metrics.Timeout
}
