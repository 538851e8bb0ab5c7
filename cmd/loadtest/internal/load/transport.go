package load

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/client"
)

// errHeldBack is the outcome of an operation that is not sent.
var errHeldBack = errors.New("held back: its token has to wait")

// transport sends the operations of a run, and records on each when it had a connection and
// what came back. It implements http.RoundTripper.
//
// An operation is found by the fragment of its URL, which is never sent: it is the only part
// of a vegeta.Target that vegeta repeats in the vegeta.Result.
type transport struct {
	pool    []*http.Transport
	byToken bool // each token has its own of the pool; otherwise they are used in turn
	next    atomic.Uint64
	timeout time.Duration // from waiting for a connection to the last byte
	sent    *sendTimes
	ops     sync.Map // *operation by fragment, for requests in progress
}

// defaultConnections is how many connections HTTP/1.1 has at most, where each carries one
// request at a time.
const defaultConnections = 256

// newTransport returns what the flags ask for. With HTTP/1.1 it is one pool of connections.
// With HTTP/2, where a connection carries many requests at once, each client of client-go has
// one, and opens another while the server allows no more requests on it: each token is such
// a client, unless the flags ask for a number of connections.
func newTransport(c *Config, cl *client.Client) *transport {
	t := &transport{timeout: c.Timeout, sent: &sendTimes{}}
	if !cl.HTTP2 {
		t.pool = []*http.Transport{cl.Transport(Connections(c, cl))}
		return t
	}
	t.byToken = c.Connections == 0
	for range Connections(c, cl) {
		t.pool = append(t.pool, cl.Transport(0))
	}
	return t
}

// Connections returns how many connections a load of c has as long as they are enough.
func Connections(c *Config, cl *client.Client) int {
	if cl.HTTP2 {
		return cmp.Or(c.Connections, cl.Tokens.Size())
	}
	return cmp.Or(c.Connections, defaultConnections)
}

// pick returns the transport of an operation.
func (t *transport) pick(op *operation) *http.Transport {
	if t.byToken {
		return t.pool[op.token]
	}
	return t.pool[t.next.Add(1)%uint64(len(t.pool))]
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
	resp, err := t.pick(op).RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		op.err = err
		return nil, err
	}
	resp.Body = &countedBody{ReadCloser: resp.Body, op: op, cancel: cancel}
	return resp, nil
}

// close closes the idle connections, which are all of them when no load is running.
func (t *transport) close() {
	for _, each := range t.pool {
		each.CloseIdleConnections()
	}
}

// countedBody records on its operation how many bytes arrived, and the error that ended them.
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
