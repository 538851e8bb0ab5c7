package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// dialTimeout bounds how long a connection and its TLS handshake may each take.
const dialTimeout = 10 * time.Second

// newTransport makes connections of one protocol alone, so that a server that does not speak
// it is noticed. connections of 0 is as many as are needed.
func newTransport(a *access, http2 bool, connections int) *http.Transport {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	protocols.SetUnencryptedHTTP2(http2)
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		TLSClientConfig:     a.tls.Clone(),
		Protocols:           protocols,
		MaxConnsPerHost:     connections,
		MaxIdleConnsPerHost: max(connections, 1),
		DisableCompression:  true, // what is unpacked here would count as the server's time
	}
}

// errHeldBack is the outcome of an operation that is not sent.
var errHeldBack = errors.New("held back: its token must wait")

// transport sends the operations of a run, and notes on each when it had a connection and
// what came back. It implements http.RoundTripper.
//
// An operation is found by the fragment of its URL, which is never sent, but is the one part
// of a vegeta.Target of which vegeta tells in the vegeta.Result.
type transport struct {
	pool    []*http.Transport // taken in turn: with HTTP/2 each is one connection
	next    atomic.Uint64
	timeout time.Duration // from the begin of the wait for a connection to the last byte
	sent    *sendTimes
	ops     sync.Map // of *operation by fragment; what is under way, and no more
}

// newTransports makes what the flags ask for: one transport of many connections, and with
// HTTP/2, where one connection serves many requests at once, many of one.
func newTransports(a *access, c *config) []*http.Transport {
	if !c.HTTP2 {
		return []*http.Transport{newTransport(a, false, c.Connections)}
	}
	pool := make([]*http.Transport, c.Connections)
	for i := range pool {
		pool[i] = newTransport(a, true, 0)
	}
	return pool
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	value, ok := t.ops.Load(req.URL.Fragment)
	if !ok {
		return nil, errors.New("the request has no operation")
	}
	op := value.(*operation)
	if op.heldBack {
		return nil, errHeldBack
	}
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		op.connected = time.Now()
		t.sent.mark(op)
	}}
	ctx, cancel := context.WithTimeout(httptrace.WithClientTrace(req.Context(), trace), t.timeout)
	resp, err := t.pool[t.next.Add(1)%uint64(len(t.pool))].RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		op.err = err
		return nil, err
	}
	resp.Body = &countedBody{ReadCloser: resp.Body, op: op, cancel: cancel}
	return resp, nil
}

// close ends the connections that are idle. None is in use when a run has ended.
func (t *transport) close() {
	for _, each := range t.pool {
		each.CloseIdleConnections()
	}
}

// countedBody notes on its operation how many bytes came, and why no more did.
type countedBody struct {
	io.ReadCloser
	op     *operation
	cancel context.CancelFunc
}

func (b *countedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.op.received += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.op.err = err
	}
	return n, err
}

// remembered is how many writes sendTimes knows: at 10,000 a second, those of the last 6 s.
const remembered = 1 << 16

// sendTimes remembers when the last writes and deletions went out, so that a watcher can say
// how long their events took. It is safe for concurrent use.
type sendTimes struct {
	mu      sync.Mutex
	writes  [remembered]sending // by number of the write
	deletes [remembered]sending // by number of the object
}

type sending struct {
	number uint64
	at     time.Time
}

// mark notes that an operation is going out now.
func (s *sendTimes) mark(op *operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case op.write > 0:
		s.writes[op.write%remembered] = sending{op.write, op.connected}
	case op.verb == verbDelete:
		s.deletes[op.number%remembered] = sending{op.number, op.connected}
	}
}

func (s *sendTimes) ofWrite(number uint64) (at time.Time, ok bool) {
	return s.lookUp(&s.writes[number%remembered], number)
}

func (s *sendTimes) ofDelete(number uint64) (at time.Time, ok bool) {
	return s.lookUp(&s.deletes[number%remembered], number)
}

func (s *sendTimes) lookUp(slot *sending, number uint64) (at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slot.at, number != 0 && slot.number == number
}

// isTimeout reports whether an exchange ended because its time was over.
func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
