package server

import (
	"context"
	"iter"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/media"
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

// isWatch reports whether the query makes a watch of a list.
func isWatch(req *http.Request) bool {
	if req.Method != http.MethodGet || !strings.Contains(req.URL.RawQuery, "watch") {
		return false
	}
	opts := &metav1.ListOptions{}
	query := req.URL.Query()
	return metav1.Convert_url_Values_To_v1_ListOptions(&query, opts, nil) == nil && opts.Watch
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
	life := minWatchTime + rand.N(minWatchTime)
	if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds > 0 {
		life = time.Duration(min(*opts.TimeoutSeconds, int64(maxWatchTime/time.Second))) * time.Second
	}
	if c.name != "" {
		if opts.FieldSelector, err = selectNamed(opts.FieldSelector, c.name); err != nil {
			return result{}, err
		}
	}
	if c.watching, err = s.enter(c.rec, s.pools.watches, 1, "open watches"); err != nil {
		return result{}, err
	}
	c.output.MediaType = events.MediaType
	ctx, cancel := context.WithTimeout(c.req.Context(), life)
	stop := context.AfterFunc(s.streams, cancel)
	end := func() {
		stop()
		cancel()
	}
	changes, cost, err := c.resource.Watch(ctx, c.namespace, opts)
	if err != nil {
		end()
		return result{}, err
	}
	endSocket := func() {}
	if err = s.beginWatch(c, cost); err == nil {
		endSocket, err = s.upgrade(c, cancel)
	}
	if err != nil {
		end()
		for _, err := range changes { // they must be read, and end with the context
			_ = err
		}
		return result{}, err
	}
	return result{code: http.StatusOK, events: func(w *stream.Writer) {
		defer endSocket()
		defer end()
		s.stream(c, w, events, changes, cost.Bytes, cancel)
	}}, nil
}

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
		panic(http.ErrAbortHandler) // the client has gone, and the connection with it
	}
	rec.ResponseWriter, rec.code = conn, http.StatusSwitchingProtocols
	c.req.Header.Del("Accept-Encoding") // which is about the answers of HTTP
	s.sockets.Add(1)
	return func() {
		_ = conn.Close() // who has gone misses nothing
		s.sockets.Done()
	}, nil
}

// selectNamed is the field selector of a watch whose path names one object. As in
// kube-apiserver the client's own must require that name. One that cannot be parsed is left
// for the resource to refuse.
func selectNamed(selector, name string) (string, error) {
	const nameField = "metadata.name"
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

// errRevoked ends a watch whose token is no longer valid, or no longer for that user.
var errRevoked = apierrors.NewUnauthorized("Unauthorized: the token was removed, or its user has changed")

// stream writes the events as they come, and flushes when there are no more for now. initial is
// how many bytes the objects have with which the changes begin; cancel ends the changes.
func (s *Server) stream(c *call, w *stream.Writer, events *media.Events, changes iter.Seq2[[]object.Event, error], initial int, cancel func()) {
	rec := c.rec
	sent, valid := s.metrics.watched(rec), rec.identity.Valid
	holds := initial // bytes of objects, until the next pause
	rec.answer.hold = func() (share.Taken, error) { return s.holdOld(c, holds) }
	rec.startPauses()
	pauses := rec.pauses
	defer pauses.begin()
	stop := context.AfterFunc(valid, func() {
		pauses.hurry(revokedTimeout)
		cancel()
	})
	defer stop()
	if rec.code == http.StatusSwitchingProtocols { // no http.Server knows of the connection
		stop := context.AfterFunc(s.streams, func() { pauses.hurry(revokedTimeout) })
		defer stop()
	}
	_ = w.Flush() // the changes must be read even if the client has gone: that ends them
	rec.pause()
	var failure error
	for batch, err := range changes {
		size := sizeOf(batch)
		if initial <= 0 {
			holds = size
		}
		for _, event := range batch {
			if err == nil {
				err = events.Write(w, event)
			}
			if valid.Err() != nil {
				break
			}
		}
		if failure = err; err != nil || valid.Err() != nil {
			break
		}
		sent.Add(float64(len(batch)))
		if rec.writeErr = w.Flush(); rec.writeErr != nil {
			return
		}
		if initial -= size; initial <= 0 { // the initial events are one part
			initial = 0
			rec.pause()
		}
	}
	if valid.Err() != nil {
		failure = errRevoked
	}
	if failure != nil {
		_ = events.WriteError(w, s.statusOf(rec, failure)) // a buffer takes it
	}
	_ = w.Close() // who has gone misses nothing
	rec.endPauses()
}
