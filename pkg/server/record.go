package server

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth"
)

// maxAuditID bounds an Audit-Id that a client sends, in bytes.
const maxAuditID = 64

// record is what is known of one request. It fills as the request goes through the
// layers, and what the log and the metrics say of it comes from here. It is also the
// request's http.ResponseWriter, to learn what was answered.
type record struct {
	http.ResponseWriter
	req     *http.Request
	start   time.Time
	auditID string
	client  netip.Addr // or the zero Addr

	identity *auth.Identity // nil until authenticated
	attrs    auth.Attributes
	resource *metav1.APIResource // nil for what is no resource
	dryRun   bool
	apply    bool // a patch that is a server-side apply

	body uploadPace

	code  int // 0 until the header is written
	bytes int64
	cause error // what the client was not told

	writeErr error // of writing to the client
	answer   answerPace
	pauses   *pauses // of a watch; else nil
}

func newRecord(w http.ResponseWriter, req *http.Request) *record {
	rec := &record{ResponseWriter: w, req: req, start: time.Now(), auditID: auditID(req)}
	rec.attrs.Verb, rec.attrs.Path = strings.ToLower(req.Method), req.URL.Path
	return rec
}

// auditID returns the Audit-Id of the request, or a new one where the client sends none or one
// that is no plain word: it stands in the answer and in logs. kube-apiserver takes any.
func auditID(req *http.Request) string {
	id := req.Header.Get("Audit-Id")
	if id == "" || len(id) > maxAuditID || strings.ContainsFunc(id, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._~:/+=@", r))
	}) {
		return uuid.NewString()
	}
	return id
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
			_ = r.startTimeout(0) // nothing has lasted yet
		}
		// Once a read from a connection of HTTP/1 has failed, be it by a deadline, net/http ends
		// the context of the request in progress and of every one that comes after it.
		if r.req.ProtoMajor == 1 && r.req.Context().Err() != nil {
			r.Header().Set("Connection", "close")
		}
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write counts the bytes of the body. Whoever does not take them, or too slowly, is given up.
func (r *record) Write(p []byte) (int, error) {
	if r.code == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if r.pauses != nil || r.bytes+int64(len(p)) > smallAnswer {
		if err := r.startTimeout(len(p)); err != nil {
			r.writeErr = err
			return 0, err
		}
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	if err != nil {
		r.writeErr = err
	}
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

// Bounds of the fields of a request's line that clients make, in bytes.
const (
	maxLoggedPath  = 1 << 10
	maxLoggedField = 256
)

// log writes the one line of a request, unless it is sampled out. Neither tokens nor bodies
// are in it.
func (s *Server) log(rec *record) {
	omitted, ok := s.sample(rec)
	if !ok {
		s.metrics.unlogged.Inc()
		return
	}
	event := s.cfg.Logger.Info()
	if rec.cause != nil {
		event = s.cfg.Logger.Error().AnErr("cause", rec.cause)
	}
	if omitted > 0 {
		event = event.Int("omitted", omitted)
	}
	event.Str("user", loggable(rec.user(), maxLoggedField)).
		Str("verb", loggable(rec.attrs.Verb, maxLoggedField)).
		Str("path", loggable(rec.req.URL.Path, maxLoggedPath)).
		Int("code", rec.code).
		Int64("bytes", rec.bytes).
		Dur("latency", time.Since(rec.start)).
		Stringer("client", rec.client).
		Str("auditID", rec.auditID).
		Msg("request")
}

// sample reports whether a request has a line. What can be sent at any rate is sampled:
// requests without a user by their address, refused ones with a user by their token. omitted is
// how many had no line since the last one that has.
func (s *Server) sample(rec *record) (omitted int, ok bool) {
	var token [32]byte
	if rec.identity != nil {
		if rec.code != http.StatusTooManyRequests {
			return 0, true
		}
		token = rec.identity.ID
	}
	return s.cfg.Limiter.AllowLine(rec.start, token, rec.client)
}

// loggable returns text as it may stand in a line: at most limit bytes of it, with a mark if
// it was cut, and without what a line would hold as six bytes for each.
func loggable(text string, limit int) string {
	size := len(text)
	text = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text[:min(size, limit)])
	if size > limit {
		text += fmt.Sprintf("… (%d bytes)", size)
	}
	return text
}
