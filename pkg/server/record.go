package server

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth"
)

// maxAuditID bounds an Audit-Id that a client sends, as kube-apiserver does.
const maxAuditID = 64

// writeTimeout is how long an answer waits for a client that does not read.
var writeTimeout = time.Minute

const (
	// smallAnswer is the size in bytes of an answer over HTTP/2 that needs no time to be read:
	// net/http and the kernel hold it.
	smallAnswer = 3 << 10
	// unreadBodyTimeout is how long an answer waits for the rest of a body that is not read.
	unreadBodyTimeout = 5 * time.Second
)

// record is what is known of one request. It fills as the request goes through the
// layers, and what the log and the metrics say of it comes from here. It is also the
// request's http.ResponseWriter, to learn what was answered.
type record struct {
	http.ResponseWriter
	req     *http.Request
	start   time.Time
	auditID string
	client  netip.Addr // zero where the connection has no IP address

	identity *auth.Identity // nil until authenticated
	attrs    auth.Attributes
	resource *metav1.APIResource // nil for what is no resource
	dryRun   bool
	apply    bool // a patch that is a server-side apply

	bodyEnded bool // whether the request's body has been read to its end

	code  int // 0 until the header is written
	bytes int64
	cause error // what the client was not told

	writeErr   error     // of writing to the client
	watch      bool      // whether the answer goes on, with pauses
	pauses     *pauses   // of a watch over HTTP/2; else nil
	timeoutSet time.Time // when the time to read was given last; zero: no time is running
}

func newRecord(w http.ResponseWriter, req *http.Request) *record {
	rec := &record{ResponseWriter: w, req: req, start: time.Now(), auditID: req.Header.Get("Audit-Id")}
	rec.attrs.Verb, rec.attrs.Path = strings.ToLower(req.Method), req.URL.Path
	if rec.auditID == "" {
		rec.auditID = uuid.NewString()
	} else if len(rec.auditID) > maxAuditID {
		rec.auditID = rec.auditID[:maxAuditID]
	}
	if addr, err := netip.ParseAddrPort(req.RemoteAddr); err == nil {
		rec.client = addr.Addr().Unmap()
	}
	return rec
}

// recordOf returns the request's record, which every handler has for its answer.
func recordOf(w http.ResponseWriter) *record { return w.(*record) }

// WriteHeader notes the status code, and sees to it that the connection is fit for the
// next request, or closed.
func (r *record) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
		r.limitUnreadBody()
		if r.req.ProtoMajor == 1 { // the answers before it may be unread, too
			r.startTimeout(time.Now())
		}
		// Once a read from a connection of HTTP/1 has failed, be it by a deadline, net/http ends
		// the context of the request in progress and of every one that comes after it.
		if r.req.ProtoMajor == 1 && r.req.Context().Err() != nil {
			r.Header().Set("Connection", "close")
		}
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write counts the bytes of the body. Whoever does not take them, except a small answer over
// HTTP/2, is given up.
func (r *record) Write(p []byte) (int, error) {
	if r.code == 0 {
		r.WriteHeader(http.StatusOK)
	}
	switch {
	case r.pauses != nil:
		r.pauses.end()
	case r.watch || r.bytes+int64(len(p)) > smallAnswer:
		r.startTimeout(time.Now())
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	if err != nil {
		r.writeErr = err
	}
	return n, err
}

// startTimeout gives the client time to read, of which a sixth may be missing: it is not set
// for each write. net/http ends it with the answer. Not every connection has deadlines.
func (r *record) startTimeout(now time.Time) {
	if now.Sub(r.timeoutSet) > writeTimeout/6 {
		_ = http.NewResponseController(r).SetWriteDeadline(now.Add(writeTimeout))
		r.timeoutSet = now
	}
}

// renewTimeout gives the client its full time to read again.
func (r *record) renewTimeout() {
	r.timeoutSet = time.Time{}
	r.startTimeout(time.Now())
}

// pauses are those between the events of a watch over HTTP/2. A deadline of net/http ends a
// stream of HTTP/2 even where there is nothing to write, and takes two turns of the
// connection's goroutine for each event, if it is set for that alone.
type pauses struct {
	response http.ResponseWriter
	timer    *time.Timer

	mu      sync.Mutex
	writing bool // no pause: then the handler has not returned
}

func newPauses(response http.ResponseWriter) *pauses {
	p := &pauses{response: response}
	p.timer = time.AfterFunc(writeTimeout, p.giveUp)
	p.timer.Stop()
	return p
}

// end gives the client time to read what is written next.
func (p *pauses) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing = true
	p.timer.Reset(writeTimeout)
}

// begin ends the time once everything is written.
func (p *pauses) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing = false
	p.timer.Stop()
}

// giveUp has the write that the client keeps waiting fail.
func (p *pauses) giveUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writing {
		_ = http.NewResponseController(p.response).SetWriteDeadline(time.Unix(1, 0)) // HTTP/2 always has one
	}
}

// limitReading has reads of the body fail from the deadline on, so that a client which stops
// sending holds nothing for longer. Nothing is set where there is no body or it has been
// read: net/http then reads on from a connection of HTTP/1, to notice that the client goes.
// It takes the deadline away when it finds the body's end, and before the next request.
func (r *record) limitReading(deadline time.Time) {
	if r.req.ContentLength != 0 && !r.bodyEnded {
		_ = http.NewResponseController(r).SetReadDeadline(deadline) // every connection of net/http has one
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
	n, err := r.req.Body.Read(p)
	r.bodyEnded = r.bodyEnded || errors.Is(err, io.EOF)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *record) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// user names the user, or nobody.
func (r *record) user() string {
	if r.identity == nil {
		return ""
	}
	return r.identity.User.Name
}

// scope is the metric label of that name.
func (r *record) scope() string {
	switch {
	case r.attrs.Name != "":
		return "resource"
	case r.attrs.Namespace != "":
		return "namespace"
	case r.resource != nil:
		return "cluster"
	}
	return ""
}
