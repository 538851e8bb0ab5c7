package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	// maxFaultKinds bounds what a server can make us remember; further kinds count as one.
	maxFaultKinds = 50
	otherFaults   = "other"
	// maxMessage is how much of a message is kept, in bytes.
	maxMessage = 300
)

// fault is why a request failed.
type fault struct {
	kind    string // few of them: a status with its reason, or what broke
	message string // an example, without tokens
}

// faultCount is how often a kind of fault happened, with the message of the first one.
type faultCount struct {
	count   uint64
	message string
}

// faults counts by kind.
type faults map[string]*faultCount

func (f faults) add(one fault) {
	if f[one.kind] == nil {
		if len(f) >= maxFaultKinds {
			one.kind = otherFaults
		}
		if f[one.kind] == nil {
			f[one.kind] = &faultCount{message: one.message}
		}
	}
	f[one.kind].count++
}

// kinds returns the kinds, the most frequent one first.
func (f faults) kinds() []string {
	var kinds []string
	for kind := range f {
		kinds = append(kinds, kind)
	}
	slices.SortFunc(kinds, func(a, b string) int {
		if f[a].count != f[b].count {
			return int(f[b].count) - int(f[a].count)
		}
		return strings.Compare(a, b)
	})
	return kinds
}

// answerFault tells a status code and the body that came with it in words. The body need not
// be whole.
func answerFault(code int, body []byte, tokens *tokenPool) fault {
	var status struct{ Reason, Message string }
	kind, message := strconv.Itoa(code)+" "+http.StatusText(code), string(body)
	if json.Unmarshal(body, &status) == nil && status.Message != "" {
		message = status.Message
		if status.Reason != "" {
			kind = strconv.Itoa(code) + " " + clip(status.Reason, 40)
		}
	}
	return fault{tokens.redact(kind), clip(tokens.redact(message), maxMessage)}
}

// brokenFault tells why there was no whole answer.
func brokenFault(err error, tokens *tokenPool) fault {
	return fault{brokenKind(err), clip(tokens.redact(err.Error()), maxMessage)}
}

func brokenKind(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "certificate"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "certificate"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "unknown host"
	}
	switch {
	case isTimeout(err):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.EADDRNOTAVAIL):
		return "no more connections on this machine"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	}
	return otherFaults
}

// clip is text on one line, of at most limit bytes.
func clip(text string, limit int) string {
	text = strings.ToValidUTF8(strings.Join(strings.Fields(text), " "), "")
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
