package server

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/auth"
)

// finish ends every request: a panic, of which cause is the value, becomes a 500 and a log
// line with its stack, and the request is logged and counted. aborted: the answer is not
// whole.
func (s *Server) finish(rec *record, cause any) (aborted bool) {
	aborted = cause == http.ErrAbortHandler //nolint:errorlint // a panic's value, compared as net/http does
	if cause != nil && !aborted {
		s.cfg.Logger.Error().Str("auditID", rec.auditID).Interface("panic", fmt.Sprint(cause)).
			Bytes("stack", debug.Stack()).Msg("a handler panicked")
		// Once part of an answer is out, only cutting the connection tells that it is not whole.
		if aborted = rec.code != 0; !aborted {
			s.renderError(rec, errors.New("a handler panicked"))
		}
	}
	switch {
	case aborted:
		rec.limitUnreadBody() // for which net/http looks before it closes the connection
	case rec.code == 0:
		rec.WriteHeader(http.StatusOK)
	}
	s.log(rec)
	s.metrics.observe(rec, aborted || errors.Is(rec.writeErr, os.ErrDeadlineExceeded))
	return aborted
}

// log writes the one line of a request. Neither tokens nor bodies are in it.
func (s *Server) log(rec *record) {
	event := s.cfg.Logger.Info()
	if rec.cause != nil {
		event = s.cfg.Logger.Error().AnErr("cause", rec.cause)
	}
	event.Str("user", rec.user()).
		Str("verb", rec.attrs.Verb).
		Str("path", rec.req.URL.Path).
		Int("code", rec.code).
		Int64("bytes", rec.bytes).
		Dur("latency", time.Since(rec.start)).
		Str("auditID", rec.auditID).
		Msg("request")
}

// refuseImpersonation refuses to act as another user, which is not supported: acting as the
// real one instead would do what the client has not asked for.
func refuseImpersonation(header http.Header) error {
	for name, values := range header {
		if strings.HasPrefix(name, "Impersonate-") && slices.ContainsFunc(values, func(value string) bool { return value != "" }) {
			return apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("this server does not support impersonation: send the request without Impersonate-* headers"))
		}
	}
	return nil
}

// authenticate finds out whose request it is. Whoever sends wrong tokens from one address
// spends that address's small budget; once it is spent, a token is not even looked at,
// unless it is the one that was last used from there: guessing is slow, and a client that
// works beside a guesser goes on working.
func (s *Server) authenticate(rec *record) error {
	token := requestToken(rec.req)
	identity, ok := s.cfg.Tokens.Authenticate(token)
	wait := s.cfg.Limiter.AnonymousWait(rec.start, rec.client)
	if ok && (wait == 0 || identity.SeenFrom(rec.client)) {
		identity.Saw(rec.client)
		rec.identity = identity
		rec.attrs.User = &identity.User
		return nil
	}
	if wait == 0 {
		wait = s.cfg.Limiter.AllowAnonymous(rec.start, rec.client)
	}
	if wait > 0 {
		s.metrics.reject("anonymous")
		return tooManyRequests("too many requests without a valid token from this address", wait)
	}
	rec.Header().Set("WWW-Authenticate", `Bearer realm="berth"`)
	return apierrors.NewUnauthorized("Unauthorized")
}

// requestToken returns the token of X-Auth-Token, or else of Authorization: Bearer, or "".
func requestToken(req *http.Request) string {
	if token := req.Header.Get("X-Auth-Token"); token != "" {
		return token
	}
	scheme, token, _ := strings.Cut(strings.TrimSpace(req.Header.Get("Authorization")), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func isReadOnly(req *http.Request) bool {
	return req.Method == http.MethodGet || req.Method == http.MethodHead || req.Method == http.MethodOptions
}

// authorise refuses what the user may not do.
func (s *Server) authorise(rec *record, attrs auth.Attributes) error {
	allowed, reason, err := s.cfg.Authorizer.Authorize(rec.req.Context(), attrs)
	if err != nil {
		return err
	}
	if allowed {
		return nil
	}
	refusal := errors.New(auth.ForbiddenMessage(attrs, reason))
	return apierrors.NewForbidden(groupResource(attrs), attrs.Name, refusal)
}
