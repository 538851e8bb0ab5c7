package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
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

// HasCode reports whether err is the fault of an answer with a code, or with 0, of one that
// did not come.
func HasCode(err error, code int) bool {
	fault, ok := errors.AsType[*Fault](err)
	return ok && fault.Code == code
}

// Refused returns the fault of an answer to a token whose status code is a failure. It reads
// the start of the body.
func (c *Client) Refused(resp *http.Response, token int) *Fault {
	// If the body cannot be read, the code says the most.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, MaxFailure))
	return c.Answered(resp.StatusCode, body, token)
}

// Answered returns the fault of a status code and the body that came with it, which may be
// incomplete. A 401 or 403 names the token if there are several.
func (c *Client) Answered(code int, body []byte, token int) *Fault {
	reason, message := http.StatusText(code), string(body)
	if status := decodeStatus(body); status.Message != "" {
		message = status.Message
		if status.Reason != "" {
			reason = string(status.Reason)
		}
	}
	f := &Fault{code, c.quote(strconv.Itoa(code)+" "+reason, maxKind), c.quote(message, maxMessage)}
	if name := c.Tokens.describe(token); name != "" && (code == http.StatusUnauthorized || code == http.StatusForbidden) {
		f.Message = name + ": " + f.Message
	}
	return f
}

// decodeStatus returns a Status in JSON or protobuf, an empty one if body is none.
func decodeStatus(body []byte) metav1.Status {
	var status metav1.Status
	packed, isProtobuf := bytes.CutPrefix(body, protobufMagic)
	if !isProtobuf {
		var plain struct{ Reason, Message string }
		_ = json.Unmarshal(body, &plain) // what is no Status is quoted as it is
		status.Reason, status.Message = metav1.StatusReason(plain.Reason), plain.Message
		return status
	}
	var envelope runtime.Unknown
	if envelope.Unmarshal(packed) != nil || status.Unmarshal(envelope.Raw) != nil {
		return metav1.Status{}
	}
	return status
}

// protobufMagic is what Kubernetes' objects in protobuf begin with, before a runtime.Unknown.
var protobufMagic = []byte("k8s\x00")

// Broken returns the fault of an exchange that ended with err instead of a complete answer.
func (c *Client) Broken(err error) *Fault {
	f := &Fault{Kind: brokenKind(err), Message: c.quote(err.Error(), maxMessage)}
	// These errors have no type.
	if m := err.Error(); strings.Contains(m, "no application protocol") || strings.Contains(m, "unexpected ALPN protocol") {
		f.Kind, f.Message = "no HTTP/2", "the server speaks HTTP/1.1 alone: use --http2=false"
	}
	return f
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
