package server

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/berth-project/berth/pkg/server/share"
)

var (
	// writeTimeout is how long an answer waits for a client that does not read it.
	writeTimeout = time.Minute
	// bodyGrace is how long a body may take at any pace.
	bodyGrace = 10 * time.Second
)

const (
	// minBodyRate and minAnswerRate are in bytes per second: on average a body must come so fast
	// after bodyGrace, and an answer be taken so fast after writeTimeout.
	minBodyRate   = 1 << 10
	minAnswerRate = 4 << 10
	// smallAnswer is the size in bytes up to which an answer over HTTP/2 has no deadline of its
	// own, which would cost two turns of the connection's goroutine: the http.Server's bounds it,
	// and leaves smallAnswerTimeout at least.
	smallAnswer        = 3 << 10
	smallAnswerTimeout = 10 * time.Second
	// unreadBodyTimeout is how long an answer waits for the rest of a body that is not read.
	unreadBodyTimeout = 5 * time.Second
	// revokedTimeout is how long a watch waits for its client once its token is no longer valid.
	revokedTimeout = time.Second / 2
)

// WriteTimeout returns what the WriteTimeout of an http.Server must be: the longest time from the
// beginning of a request to its answer, and the time to read a small one. Watches and larger
// answers set deadlines of their own; what net/http answers by itself has no other.
func (s *Server) WriteTimeout() time.Duration { return s.cfg.RequestTimeout + smallAnswerTimeout }

// answerPace is how fast a client reads. It is about bytes that were written without a pause.
type answerPace struct {
	begun    time.Time // when the first of them was written; zero: in a pause
	bytes    int64
	deadline time.Time // that is set; zero: none

	// hold takes a share for the objects that are being written, which may be old versions by
	// now; nil: there are none.
	hold func() (share.Taken, error)
	held bool // whether it was called for these bytes
	old  share.Taken
}

// next returns the time until which n bytes more must have been taken.
func (a *answerPace) next(now time.Time, n int) time.Time {
	if a.begun.IsZero() {
		a.begun, a.bytes, a.held = now, 0, false
	}
	a.bytes += int64(n)
	slowest := a.begun.Add(writeTimeout + time.Duration(a.bytes)*(time.Second/minAnswerRate))
	if latest := now.Add(writeTimeout); latest.Before(slowest) {
		return latest
	}
	return slowest
}

// holdOld calls hold once the bytes have taken longer than writeTimeout.
func (a *answerPace) holdOld(now time.Time) (err error) {
	if a.hold == nil || a.held || now.Sub(a.begun) <= writeTimeout {
		return nil
	}
	a.held = true
	a.old, err = a.hold()
	return err
}

// startTimeout gives the client time to read n bytes, of which a sixth of writeTimeout may be
// missing: it is not set for each write. net/http ends it with the answer. Not every connection
// has deadlines. An error says that the answer is cut off.
func (r *record) startTimeout(n int) error {
	now := time.Now()
	deadline := r.answer.next(now, n)
	if err := r.answer.holdOld(now); err != nil {
		r.setWriteDeadline(longAgo)
		return err
	}
	if r.pauses != nil {
		r.pauses.end(deadline)
		return nil
	}
	if deadline.Sub(r.answer.deadline) > writeTimeout/6 {
		r.setWriteDeadline(deadline)
	}
	return nil
}

// longAgo is a deadline that ends the connection of HTTP/1 or the stream at once.
var longAgo = time.Unix(1, 0)

func (r *record) setWriteDeadline(deadline time.Time) {
	_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(deadline)
	r.answer.deadline = deadline
}

// pauses are those between the events of a watch, which has no other deadline while it goes on:
// one of net/http ends a stream of HTTP/2 even where there is nothing to write, and takes two
// turns of the connection's goroutine for each event, if it is set for that alone.
type pauses struct {
	response http.ResponseWriter
	timer    *time.Timer

	mu      sync.Mutex
	writing bool          // no pause: then the handler has not returned
	most    time.Duration // that one write may take
}

// startPauses has the answer's time run only while something is written.
func (r *record) startPauses() {
	p := &pauses{response: r.ResponseWriter, most: writeTimeout}
	p.timer = time.AfterFunc(writeTimeout, p.giveUp)
	p.timer.Stop()
	r.setWriteDeadline(time.Time{})
	r.pauses = p
}

// pause ends the time once everything is written.
func (r *record) pause() {
	r.answer.begun = time.Time{}
	r.answer.old.GiveBack()
	r.pauses.begin()
}

// endPauses gives the client time for the end of the answer, which net/http writes.
func (r *record) endPauses() {
	r.setWriteDeadline(time.Now().Add(r.pauses.begin()))
	r.pauses = nil
}

func (p *pauses) end(deadline time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing = true
	p.timer.Reset(min(time.Until(deadline), p.most))
}

// begin returns how long one write may take.
func (p *pauses) begin() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing = false
	p.timer.Stop()
	return p.most
}

// hurry leaves no write more than that time, not even one in progress.
func (p *pauses) hurry(most time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = most
	if p.writing {
		p.timer.Reset(most)
	}
}

// giveUp has the write that the client keeps waiting fail.
func (p *pauses) giveUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writing {
		_ = http.NewResponseController(p.response).SetWriteDeadline(longAgo) // every connection of net/http has one
	}
}

// uploadPace is how fast a request's body comes.
type uploadPace struct {
	ended    bool // whether it has been read to its end
	begun    time.Time
	bytes    int64
	latest   time.Time // until which it must have come, however fast; zero: its pace does not count
	deadline time.Time // that is set, at or before latest
}

// tooSlow reports whether it is its pace that a body must end for when its time is over.
func (u *uploadPace) tooSlow() bool { return u.deadline.Before(u.latest) }

// keepPace has reads of the body fail once it comes too slowly, and after latest, so that a
// client which stops sending holds nothing for longer.
func (r *record) keepPace(latest time.Time) {
	r.body.begun, r.body.latest = time.Now(), latest
	r.renewPace()
}

// renewPace sets the deadline that the bytes so far have earned. Half of the grace may be
// missing: it is not set for each read.
func (r *record) renewPace() {
	b := &r.body
	earned := b.begun.Add(bodyGrace + time.Duration(b.bytes)*(time.Second/minBodyRate))
	step := bodyGrace / 2
	if !earned.Before(b.latest) {
		earned, step = b.latest, 0
	}
	if earned.Sub(b.deadline) > step {
		b.deadline = earned
		r.limitReading(earned)
	}
}

// limitReading has reads of the body fail from the deadline on. Nothing is set where there is no
// body or it has been read: net/http then reads on from a connection of HTTP/1, to notice that
// the client goes. It takes the deadline away when it finds the body's end, and before the next
// request.
func (r *record) limitReading(deadline time.Time) {
	if r.req.ContentLength != 0 && !r.body.ended {
		_ = http.NewResponseController(r.ResponseWriter).SetReadDeadline(deadline) // every connection of net/http has one
	}
}

// limitUnreadBody bounds the wait for a body that nobody reads: net/http looks for its end
// before it sends the answer over HTTP/1, and closes the connection where it finds none.
func (r *record) limitUnreadBody() {
	if r.req.ProtoMajor == 1 {
		r.limitReading(time.Now().Add(unreadBodyTimeout))
	}
}

// Read reads the request's body.
func (r *record) Read(p []byte) (int, error) {
	if !r.body.latest.IsZero() {
		r.renewPace()
	}
	n, err := r.req.Body.Read(p)
	r.body.bytes += int64(n)
	r.body.ended = r.body.ended || errors.Is(err, io.EOF)
	return n, err
}
