// Package client connects to an API server as one or more users, and puts its failures into
// words. It also makes the calls before and after a load, which are not measured.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

const (
	// dialTimeout bounds how long a connection and its TLS handshake may each take.
	dialTimeout = 10 * time.Second
	// callTimeout bounds one call, including its retries.
	callTimeout = 30 * time.Second
	// namespaceTimeout bounds the wait for a namespace that is being deleted.
	namespaceTimeout = time.Minute
	// retryPause is the least time between two tries of a call.
	retryPause = 100 * time.Millisecond
	// maxAnswer is how much of an answer is read, in bytes.
	maxAnswer = 1 << 20
	// MaxFailure is how much of a failed request's body is read, in bytes: enough for a Status.
	MaxFailure = 4 << 10
)

// Parallel is how many calls can be in flight at the same time; others wait.
const Parallel = 16

// Client reaches one server. It is safe for concurrent use.
type Client struct {
	Server    string // scheme://host:port, and a path if the server is behind one
	Tokens    *Tokens
	HTTP2     bool // instead of HTTP/1.1
	userAgent string
	tls       *tls.Config
	calls     *http.Client
	turn      atomic.Uint64
}

// New returns a client for what the flags in c name. It reads files, but does not connect.
func New(c *Config, userAgent string) (*Client, error) {
	a, err := c.access()
	if err != nil {
		return nil, err
	}
	cl := &Client{
		Server: a.server, Tokens: NewTokens(a.tokens), HTTP2: c.HTTP2 && strings.HasPrefix(a.server, "https:"),
		userAgent: userAgent, tls: a.tls,
	}
	cl.calls = &http.Client{Transport: cl.Transport(Parallel)}
	return cl, nil
}

// Close closes the connections of Call.
func (c *Client) Close() { c.calls.CloseIdleConnections() }

// Transport returns a transport of at most that many connections, 0 being unlimited. It
// speaks a single protocol, so that a server that does not support it is noticed.
func (c *Client) Transport(connections int) *http.Transport {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!c.HTTP2)
	protocols.SetHTTP2(c.HTTP2)
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		TLSClientConfig:     c.tls.Clone(),
		Protocols:           protocols,
		MaxConnsPerHost:     connections,
		MaxIdleConnsPerHost: max(connections, 1),
		DisableCompression:  true, // decompressing here would count as the server's time
	}
}

// Header returns the header of a request that carries a token.
func (c *Client) Header(token int) http.Header {
	h := http.Header{"Accept": {"application/json"}, "User-Agent": {c.userAgent}}
	c.Tokens.authorize(h, token)
	return h
}

// Request returns a request for a path on the server. A body is JSON; nil is none.
func (c *Client) Request(ctx context.Context, method, path string, body []byte, token int) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.Server+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = c.Header(token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// Call sends a request and returns the body of its answer, at most 1 MiB of it. It tries
// again after a 429, and after a 503 with a Retry-After, for 30 s in all. Without a 2xx the
// error is a *Fault.
func (c *Client) Call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		token := int(c.turn.Add(1) % uint64(c.Tokens.Size()))
		answer, pause, err := c.try(ctx, method, path, body, token)
		if err == nil || pause == 0 || !Wait(ctx, pause) {
			return answer, err
		}
	}
}

// try sends a request once. pause is how long to wait before another try, 0 if that is
// pointless.
func (c *Client) try(ctx context.Context, method, path string, body []byte, token int) (answer []byte, pause time.Duration, err error) {
	req, err := c.Request(ctx, method, path, body, token)
	if err != nil {
		return nil, 0, err
	}
	resp, err := c.calls.Do(req)
	if err != nil {
		return nil, 0, c.Broken(err)
	}
	defer resp.Body.Close()
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests:
		return nil, max(RetryAfter(resp.Header, time.Now()), retryPause), c.Refused(resp, token)
	case code == http.StatusServiceUnavailable:
		return nil, RetryAfter(resp.Header, time.Now()), c.Refused(resp, token)
	case code < 200 || code > 299:
		return nil, 0, c.Refused(resp, token)
	}
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, 0, c.Broken(err)
	}
	return answer, 0, nil
}

// Version returns what the server calls its version, "" if it does not tell.
func (c *Client) Version(ctx context.Context) string {
	body, err := c.Call(ctx, http.MethodGet, "/version", nil)
	var info struct{ GitVersion string }
	if err != nil || json.Unmarshal(body, &info) != nil {
		return ""
	}
	return c.quote(info.GitVersion, 80)
}

// EnsureNamespace creates a namespace with a label unless it exists, and reports whether it
// may have. If the namespace is being deleted, it first waits for that.
func (c *Client) EnsureNamespace(ctx context.Context, name, label, value string) (created bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, namespaceTimeout)
	defer cancel()
	for {
		n, err := c.Namespace(ctx, name)
		if n == nil && err == nil {
			break
		}
		if err != nil || n.Status.Phase != "Terminating" {
			return false, err
		}
		if !Wait(ctx, retryPause) {
			return false, fmt.Errorf("the namespace %s is being deleted, and that did not end in time", name)
		}
	}
	body := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q,"labels":{%q:%q}}}`, name, label, value)
	_, err = c.Call(ctx, http.MethodPost, "/api/v1/namespaces", body)
	if HasCode(err, http.StatusConflict) {
		return false, nil // someone else has just created it
	}
	return err == nil || HasCode(err, 0), err
}

// Namespace is what is read of a namespace.
type Namespace struct {
	Metadata struct {
		UID    string
		Labels map[string]string
	}
	Status struct{ Phase string }
}

// Namespace returns a namespace, nil if it does not exist.
func (c *Client) Namespace(ctx context.Context, name string) (*Namespace, error) {
	body, err := c.Call(ctx, http.MethodGet, "/api/v1/namespaces/"+name, nil)
	if HasCode(err, http.StatusNotFound) {
		return nil, nil
	}
	var n Namespace
	if err == nil {
		err = json.Unmarshal(body, &n)
	}
	return &n, err
}

// Redact replaces each token in s by its name.
func (c *Client) Redact(s string) string { return c.Tokens.redact(s) }

// quote returns s as it may be printed: clean, then without tokens, which characters that
// print nothing could have hidden, and only then cut, so that no part of a token is left.
func (c *Client) quote(s string, limit int) string {
	return text.Clip(c.Tokens.redact(text.Clean(s)), limit)
}

// Wait waits for d and returns true, or false as soon as ctx ends.
func Wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// IsTimeout reports whether an exchange ended because its time was over.
func IsTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
