package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/server/identity"
	"github.com/berth-project/berth/pkg/server/metrics"
	"github.com/berth-project/berth/pkg/server/requestinfo"
	"github.com/berth-project/berth/pkg/server/websocket"
)

// finish ends every request: a panic, of which cause is the value, becomes a 500 and a log
// line with its stack, and the request is logged and counted. aborted: the answer is not
// whole.
func (s *Server) finish(rec *record, cause any) (aborted bool) {
	aborted = cause == http.ErrAbortHandler //nolint:errorlint // a panic's value, compared as net/http does
	panicked := cause != nil && !aborted
	if panicked {
		s.cfg.Logger.Error().Str("auditID", rec.auditID).Interface("panic", fmt.Sprint(cause)).
			Bytes("stack", debug.Stack()).Msg("a handler panicked")
		// Once part of an answer is out, only cutting the connection tells that it is not whole.
		if aborted = rec.code != 0; !aborted {
			s.renderError(rec, errors.New("a handler panicked"))
		}
	}
	code := rec.code
	switch {
	case aborted:
		rec.limitUnreadBody() // for which net/http looks before it closes the connection
	case rec.code == 0:
		rec.WriteHeader(http.StatusOK)
	}
	s.log(rec)
	if panicked {
		rec.audit.EndPanic(cause)
	} else {
		rec.audit.End(code)
	}
	if rec.counted {
		s.metrics.Observe(&metrics.Ended{
			Request: rec.labels(), Code: rec.code, Duration: time.Since(rec.start), Answer: rec.bytes, Body: rec.bodySize,
			Cut: aborted || rec.cut || errors.Is(rec.writeErr, os.ErrDeadlineExceeded), TimedOut: rec.timedOut,
		})
	}
	return aborted
}

// anonymousLimit is the limit of an address for requests without a valid token.
const anonymousLimit = "anonymous-rate"

// filter lets a request through to the router if its token is good, within its limits, and what it
// asks for is allowed. It reads nothing of the body: a rejected request costs next to nothing.
func (s *Server) filter(rec *record) error {
	probe := s.probeOf(rec.req)
	if err := s.authenticate(rec, probe != ""); err != nil {
		if !apierrors.IsTooManyRequests(err) { // of which there may be any number
			rec.beginAudit(s.cfg.Audit)
		}
		return err
	}
	if err := s.limitRate(rec, probe); err != nil {
		return err
	}
	rec.beginAudit(s.cfg.Audit)
	if err := s.impersonate(rec); err != nil {
		return err
	}
	if probe == pageProbe {
		return nil // it is the same for all, and has no data
	}
	return s.authorise(rec, rec.attrs)
}

// authenticate finds out whose request it is. A valid token always passes. Only failures are
// charged to the client's address, and refused with 429 once it has none left.
func (s *Server) authenticate(rec *record, isProbe bool) error {
	began, token := time.Now(), requestToken(rec.req)
	identity, ok, err := s.identify(rec, token, isProbe)
	switch {
	case err != nil:
		s.metrics.Authenticated(metrics.Error, began)
		return err
	case ok:
		rec.identity, rec.attrs.User = identity, &identity.User
		s.metrics.Authenticated(metrics.Success, began)
		return nil
	}
	if rec.refusedToken = token != ""; rec.refusedToken || rec.refusedCertificate != nil {
		s.metrics.Authenticated(metrics.Error, began)
	} else {
		s.metrics.Authenticated(metrics.Failure, began)
	}
	if err := s.limitAddress(rec); err != nil {
		return err
	}
	const challenge = `Bearer realm="berth"`
	if !rec.refusedToken && rec.refusedCertificate != nil {
		rec.Header().Set("WWW-Authenticate", challenge)
		return apierrors.NewUnauthorized("Unauthorized: the client certificate is not valid: " + loggable(rec.refusedCertificate.Error(), maxLoggedField))
	}
	if !rec.refusedToken {
		rec.Header().Set("WWW-Authenticate", challenge)
		return apierrors.NewUnauthorized("Unauthorized: no token was sent, in X-Auth-Token or Authorization: Bearer")
	}
	// kube-apiserver's message for this says no more.
	rec.Header().Set("WWW-Authenticate", challenge+`, error="invalid_token", error_description="the token is not known"`)
	return apierrors.NewUnauthorized("Unauthorized")
}

// identify returns who makes the request, and reports whether that may be anybody at all. As in
// kube-apiserver, a valid client certificate takes precedence over a token, and an invalid one
// does no harm beside a valid token.
func (s *Server) identify(rec *record, token string, isProbe bool) (identity *auth.Identity, ok bool, err error) {
	if rec.req.TLS != nil && len(rec.req.TLS.PeerCertificates) > 0 {
		identity, rec.refusedCertificate = s.cfg.Certificates.Authenticate(rec.req.TLS.PeerCertificates)
		if identity != nil {
			s.metrics.CertificateLeft(time.Until(identity.Expires))
			return identity, true, nil
		}
	}
	if token != "" {
		return s.cfg.Authenticator.Authenticate(rec.req.Context(), token)
	}
	ok = s.cfg.Anonymous == AnonymousAll || isProbe && s.cfg.Anonymous == AnonymousProbes
	return s.anonymous, ok && rec.refusedCertificate == nil, nil
}

// limitRate charges the request to its token, or to its address. A probe may take what its address
// has for that path first.
func (s *Server) limitRate(rec *record, probe string) error {
	isAnonymous := rec.identity == s.anonymous
	if probe != "" {
		wait := s.cfg.Limiter.AllowProbe(rec.start, rec.client, probe)
		if wait == 0 {
			return nil
		}
		if isAnonymous {
			return tooManyRequests("the limit for /"+probe+" from this address is reached; a valid token passes it", wait, s.reject(rec, "probe-rate", "address"))
		}
	}
	if isAnonymous {
		return s.limitAddress(rec)
	}
	return s.charge(rec, 1, "")
}

// limitAddress charges a request without a valid token to its address.
func (s *Server) limitAddress(rec *record) error {
	wait := s.cfg.Limiter.AllowAnonymous(rec.start, rec.client)
	if wait == 0 {
		return nil
	}
	return tooManyRequests("the limit for requests without a valid token from this address is reached", wait, s.reject(rec, anonymousLimit, "address"))
}

// serveIdentity answers requests for the token service, and reports whether it was one. They come
// before the filter: who logs in has no token yet, and the service's errors have a form of their
// own.
func (s *Server) serveIdentity(rec *record) bool {
	path := rec.req.URL.Path
	if s.cfg.Identity == nil || path != identity.Prefix && !strings.HasPrefix(path, identity.Prefix+"/") || len(path) > requestinfo.MaxPathBytes {
		return false
	}
	rec.count(identity.Prefix)
	rec.keepPace(rec.start.Add(maxMutationTimeout))
	req := rec.req.WithContext(rec.req.Context())
	req.Body = io.NopCloser(rec) // whose reads keep the pace
	outcome := s.cfg.Identity.Serve(rec, req, rec.client)
	rec.identity, rec.refusedToken, rec.cause = outcome.Identity, outcome.Refused, outcome.Cause
	rec.refusedLogin = outcome.Refusal
	rec.outage = outcome.Cause != nil
	if outcome.Identity != nil {
		rec.attrs.User = &outcome.Identity.User
	}
	// Only now it is known who has logged in. Of refusals by the limit of an address there may be
	// any number.
	if outcome.Identity != nil || outcome.Refused && outcome.Limit == "" {
		rec.beginAudit(s.cfg.Audit)
	}
	switch outcome.Limit {
	case "":
	case identity.AnonymousLimit, identity.ProbeLimit:
		s.reject(rec, outcome.Limit, "address")
	default:
		s.reject(rec, outcome.Limit, "user")
	}
	return true
}

// requestToken returns the token of X-Auth-Token, or else of Authorization: Bearer, or else of a
// WebSocket's subprotocol, or "".
func requestToken(req *http.Request) string {
	if token := req.Header.Get("X-Auth-Token"); token != "" {
		return token
	}
	scheme, token, _ := strings.Cut(strings.TrimSpace(req.Header.Get("Authorization")), " ")
	switch {
	case strings.EqualFold(scheme, "bearer"):
		return strings.TrimSpace(token)
	case websocket.Requested(req):
		return websocket.Token(req)
	}
	return ""
}

// pageProbe is the name of the page for browsers among the paths that need no token.
const pageProbe = "page"

// probeOf returns the name of the path that a request asks for which needs no token, "" where it
// needs one. Each of those paths is limited by itself.
func (s *Server) probeOf(req *http.Request) string {
	if !isReadOnly(req) || len(req.URL.Path) > requestinfo.MaxPathBytes {
		return ""
	}
	// Clients of the token service find it by the index, before they have a token.
	if asksForPage(req) || req.URL.Path == "/" && s.cfg.Identity != nil {
		return pageProbe
	}
	path, check, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	switch {
	case path == "livez", path == "readyz", path == "healthz":
		return path
	case path == "version" && strings.Trim(check, "/") == "":
		return path
	}
	return ""
}

// isHealth reports whether a request asks for a health path, which is answered to the end.
func isHealth(req *http.Request) bool {
	path, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	return path == "livez" || path == "readyz" || path == "healthz"
}

func isReadOnly(req *http.Request) bool {
	return req.Method == http.MethodGet || req.Method == http.MethodHead || req.Method == http.MethodOptions
}
