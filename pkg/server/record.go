package server

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/audit"
	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/server/metrics"
	"github.com/berth-project/berth/pkg/server/requestinfo"
)

// maxAuditID bounds an Audit-Id that a client sends, in bytes.
const maxAuditID = 256

// record is what is known of one request. It fills as the request goes through the
// layers, and what the log and the metrics say of it comes from here. It is also the
// request's http.ResponseWriter, to learn what was answered.
type record struct {
	http.ResponseWriter
	req     *http.Request
	start   time.Time
	auditID string
	client  netip.Addr // or the zero Addr

	identity     *auth.Identity // nil until authenticated; that of system:anonymous without a token
	refusedToken bool           // whether there was a token, which is not valid
	refusedLogin error          // why a log-in was refused; nil: it was not one
	// refusedCertificate is why the client's certificate is not valid, if it has one.
	refusedCertificate error
	attrs              auth.Attributes
	as                 *auth.User          // as whom the client wants the request made; nil: as its own user
	impersonated       *auth.Impersonated  // nil until that was allowed
	resource           *metav1.APIResource // nil for what is no resource
	apply              bool                // a patch that is a server-side apply
	created            string              // the name of the object that a request to a collection made
	audit              *audit.Entry        // nil where the audit log has nothing of the request

	// What the metrics tell beside.
	counted  bool   // whether the request is one of those that kube-apiserver counts
	cut      bool   // whether the body was cut off
	handler  string // the path of what is no resource, as the metrics name it
	dryRun   string
	timedOut bool // whether the request's time has ended

	body     uploadPace
	bodySize int // of a body that was read whole; -1: it was not

	code  int // 0 until the header is written
	bytes int64
	cause error // what the client was not told
	// outage says that the cause may be that of many requests, of which not each has a line.
	outage bool

	writeErr error // of writing to the client
	answer   answerPace
	pauses   *pauses // of a watch; else nil
	ended    string  // why a watch has ended; else empty
}

func newRecord(w http.ResponseWriter, req *http.Request) *record {
	rec := &record{ResponseWriter: w, req: req, start: time.Now(), auditID: auditID(req), bodySize: -1}
	rec.attrs = requestinfo.Attributes(req)
	return rec
}

// auditID returns the Audit-Id of the request, or a new one where the client sends none or one
// that is long or has other characters than printable ASCII: it stands in the answer and in logs.
// kube-apiserver takes any.
func auditID(req *http.Request) string {
	id := req.Header.Get("Audit-Id")
	if id == "" || len(id) > maxAuditID || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' }) {
		return uuid.NewString()
	}
	return id
}

// beginAudit has the audit log record what becomes of the request.
func (r *record) beginAudit(log *audit.Log) { r.audit = log.Begin(r.req, r.auditID, r.start, &r.attrs) }

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

// count has a request counted that is for no resource. Its path must not be one that a client
// has made up.
func (r *record) count(path string) { r.counted, r.handler = true, path }

// labels are the request's in the metrics: what clients make up is not among them.
func (r *record) labels() metrics.Request {
	if r.resource == nil {
		return metrics.Request{Verb: r.metricVerb(), Subresource: r.handler}
	}
	return metrics.Request{
		Verb: r.metricVerb(), DryRun: r.dryRun, Scope: r.scope(), Component: "apiserver",
		Group: r.resource.Group, Version: r.resource.Version, Resource: r.resource.Name, Subresource: r.attrs.Subresource,
	}
}

// scope is kube-apiserver's word for what a request for a resource is about.
func (r *record) scope() string {
	switch verb := r.attrs.Verb; {
	case verb == "create", r.attrs.Name != "" && verb != "watch":
		return "resource"
	case r.attrs.Namespace != "":
		return "namespace"
	}
	return "cluster"
}

// metricVerb is the verb as kube-apiserver's metrics write it.
func (r *record) metricVerb() string {
	if r.apply {
		return "APPLY"
	}
	switch verb := r.attrs.Verb; verb {
	case "create":
		return "POST"
	case "update":
		return "PUT"
	case "deletecollection":
		return "DELETE"
	case "get", "list", "watch", "patch", "delete", "post", "put":
		return strings.ToUpper(verb)
	}
	return "other"
}

// noteDryRun notes what the options of a request ask for.
func (r *record) noteDryRun(dryRun []string) {
	switch {
	case len(dryRun) == 0:
	case slices.ContainsFunc(dryRun, func(value string) bool { return value != metav1.DryRunAll }):
		r.dryRun = "invalid"
	default:
		r.dryRun = metav1.DryRunAll
	}
}

// Bounds of the fields of a request's line that clients make, in bytes.
const (
	maxLoggedPath  = 1 << 10
	maxLoggedField = 256
)

// log writes the line of a request that has ended, unless it is sampled out. Neither tokens nor
// bodies are in it.
func (s *Server) log(rec *record) {
	omitted, ok := s.sample(rec)
	if !ok {
		s.metrics.UnloggedRequests.Inc()
		return
	}
	event := s.cfg.Logger.Info()
	switch {
	case rec.outage:
		if like, ok := s.outages.allow(); ok {
			event = s.cfg.Logger.Error().AnErr("cause", rec.cause)
			if like > 0 {
				event = event.Int("omittedErrors", like)
			}
		}
	case rec.cause != nil:
		event = s.cfg.Logger.Error().AnErr("cause", rec.cause)
	case rec.refusedLogin != nil:
		event = s.cfg.Logger.Warn().Str("login", loggable(rec.refusedLogin.Error(), maxLoggedField))
	case rec.refusedToken:
		event = s.cfg.Logger.Warn().Str("token", "not valid")
	case rec.refusedCertificate != nil && rec.identity == nil:
		event = s.cfg.Logger.Warn().Str("certificate", loggable(rec.refusedCertificate.Error(), maxLoggedField))
	}
	if omitted > 0 {
		event = event.Int("omitted", omitted)
	}
	rec.describe(event, func(event *zerolog.Event) {
		if rec.created != "" {
			event.Str("name", loggable(rec.created, maxLoggedField))
		}
		event.Int("code", rec.code).Int64("bytes", rec.bytes).Dur("latency", time.Since(rec.start))
		if rec.ended != "" {
			event.Str("ended", rec.ended)
		}
	}).Msg("request")
}

// logWatch writes the line of a watch that begins; log writes that of its end.
func (s *Server) logWatch(rec *record) {
	rec.describe(s.cfg.Logger.Info(), func(*zerolog.Event) {}).Msg("watch begins")
}

// describe adds what was asked for, what answer adds, and who has asked.
func (r *record) describe(event *zerolog.Event, answer func(*zerolog.Event)) *zerolog.Event {
	event.Str("user", loggable(r.user(), maxLoggedField))
	if r.impersonated != nil {
		event.Str("as", loggable(r.impersonated.User.Name, maxLoggedField))
	}
	return event.Str("verb", loggable(r.attrs.Verb, maxLoggedField)).
		Str("path", loggable(r.req.URL.Path, maxLoggedPath)).
		Func(answer).
		Stringer("client", r.client).
		Str("userAgent", loggable(r.req.UserAgent(), maxLoggedField)).
		Str("auditID", r.auditID)
}

// outageLines samples the errors that an outage causes: each request meets the same.
type outageLines struct {
	sampler zerolog.BurstSampler
	omitted atomic.Int64
}

// allow reports whether there may be one more, and how many there were not since the last one.
func (l *outageLines) allow() (omitted int, ok bool) {
	if !l.sampler.Sample(zerolog.ErrorLevel) {
		l.omitted.Add(1)
		return 0, false
	}
	return int(l.omitted.Swap(0)), true
}

// sample reports whether a request has a line. What can be sent at any rate is sampled:
// requests without a user by their address, refused ones with a user by their token. omitted is
// how many had no line since the last one that has.
func (s *Server) sample(rec *record) (omitted int, ok bool) {
	var token [32]byte
	if rec.identity != nil && rec.identity != s.anonymous {
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
