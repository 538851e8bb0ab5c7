package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// renderError answers with the Status of err, in the form that the client accepts.
func (s *Server) renderError(rec *record, err error) {
	status := s.statusOf(rec, err)
	if status.Code != http.StatusNotAcceptable { // as kube-apiserver has it
		rec.audit.Answer(status)
	}
	out := s.codecs.ForError(rec.req)
	header := rec.Header()
	header.Set("Content-Type", out.MediaType)
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		header.Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	rec.WriteHeader(int(status.Code))
	if err := out.Any(rec, status); err != nil && rec.cause == nil && rec.req.Context().Err() == nil {
		rec.cause = err
	}
}

// patience is how long etcd may take until it is to blame for a request whose client had no
// more time.
const patience = time.Second

// noteFailure keeps the cause of a failure for the log, if known has one and it is not that the
// client has gone or gave the server hardly any time.
func (r *record) noteFailure(known apierrors.APIStatus) {
	failure, ok := known.(interface{ Unwrap() error })
	if !ok || failure.Unwrap() == nil {
		return
	}
	cause := failure.Unwrap()
	outOfTime := errors.Is(cause, context.DeadlineExceeded) || errors.Is(cause, context.Canceled)
	if outOfTime && (r.req.Context().Err() != nil || time.Since(r.start) < patience) {
		return
	}
	r.cause, r.outage = cause, true
}

// statusOf is what a client is told of err. An internal error is kept for the log; the
// audit id leads there.
func (s *Server) statusOf(rec *record, err error) *metav1.Status {
	var known apierrors.APIStatus
	switch {
	case errors.As(err, &known):
		rec.noteFailure(known)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		known = apierrors.NewTimeoutError("request did not complete within the allotted timeout", 1)
	default:
		rec.cause = err
		known = apierrors.NewInternalError(fmt.Errorf("the server's log has the cause under audit id %s", rec.auditID))
	}
	status := known.Status()
	status.Kind, status.APIVersion = "Status", "v1"
	if status.Status == "" {
		status.Status = metav1.StatusFailure
	}
	if status.Code < 100 || status.Code > 999 {
		status.Code = http.StatusInternalServerError
	}
	return &status
}

const (
	maxWarningRunes  = 256
	maxWarningsBytes = 4 << 10
)

// addWarnings adds the warnings to the header, each once, as far as kube-apiserver's
// bounds allow: 256 characters each, 4 KiB in all.
func addWarnings(header http.Header, warnings []string) {
	total := 0
	for i, text := range warnings {
		if slices.Contains(warnings[:i], text) {
			continue
		}
		text = printable(text)
		if total += len(text); total > maxWarningsBytes {
			return
		}
		if value, err := utilnet.NewWarningHeader(299, "-", text); err == nil {
			header.Add("Warning", value)
		}
	}
}

// printable makes text fit for a header: no control characters, not too long.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if runes := []rune(text); len(runes) > maxWarningRunes {
		return string(runes[:maxWarningRunes])
	}
	return text
}
