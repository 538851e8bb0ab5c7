package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
)

const (
	// maxKind and maxMessage are how much of a server's words is kept, in bytes.
	maxKind    = 60
	maxMessage = 300
)

// Fault is why a request failed. It has no token in it and is safe to print, whatever the
// server has sent.
type Fault struct {
	Code    int    // status code of the answer; 0: there is no complete one
	Kind    string // one of few: the code with its reason, or what broke
	Message string
}

func (f *Fault) Error() string { return f.Kind + ": " + f.Message }

func hasCode(err error, code int) bool {
	fault, ok := errors.AsType[*Fault](err)
	return ok && fault.Code == code
}

// Refused returns the fault of an answer whose status code is a failure. It reads the start
// of the body.
func (c *Client) Refused(resp *http.Response) *Fault {
	// If the body cannot be read, the code says the most.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, MaxFailure))
	return c.Answered(resp.StatusCode, body)
}

// Answered returns the fault of a status code and the body that came with it, which may be
// incomplete.
func (c *Client) Answered(code int, body []byte) *Fault {
	var status struct{ Reason, Message string }
	reason, message := http.StatusText(code), string(body)
	if json.Unmarshal(body, &status) == nil && status.Message != "" {
		message = status.Message
		if status.Reason != "" {
			reason = status.Reason
		}
	}
	return &Fault{code, c.quote(strconv.Itoa(code)+" "+reason, maxKind), c.quote(message, maxMessage)}
}

// Broken returns the fault of an exchange that ended with err instead of a complete answer.
func (c *Client) Broken(err error) *Fault {
	return &Fault{Kind: brokenKind(err), Message: c.quote(err.Error(), maxMessage)}
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
	case IsTimeout(err):
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
	return "other"
}
