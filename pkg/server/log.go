package server

import (
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
)

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
