// Package unary makes unary gRPC calls to etcd over one HTTP/2 connection. It does what
// etcd's KV service needs and no more, for a fraction of what a call costs in grpc-go: no
// goroutine and no interceptor of its own for a call, and calls made at the same time share
// one write. What it cannot do it refuses before anything is sent, so that the caller can
// take another way.
package unary

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// dialTimeout bounds the making of a connection until it can be used.
	dialTimeout = 20 * time.Second

	// As kube-apiserver's for etcd: the other end of an idle connection that is gone
	// without a word is noticed after both. TCP asks for it: etcd ends connections that
	// send PINGs of HTTP/2 while no call is under way.
	keepAliveTime    = 30 * time.Second
	keepAliveTimeout = 10 * time.Second

	// A connection that did not come about, or lasted for less than maxBackoff, is followed
	// by a pause, which doubles from minBackoff to maxBackoff.
	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// ErrNotSent is certain: the server has not acted on the call and never will.
var ErrNotSent = errors.New("the call was not sent")

var (
	errNoConnection = fmt.Errorf("%w: there is no connection", ErrNotSent)
	errClosed       = errors.New("closed by its owner")
)

// Conn makes calls over a connection to one of several endpoints. Its methods may be called
// at the same time from any number of goroutines.
type Conn struct {
	endpoints []*url.URL
	tls       *tls.Config
	current   atomic.Pointer[transport] // nil: there is no connection
	ctx       context.Context           // ends with Close
	cancel    context.CancelFunc
	running   sync.WaitGroup
}

// New returns a Conn that connects in the background, and again whenever it has to, until
// Close. The endpoints, at least one, have the form http://host:port or https://host:port,
// and take turns: the next one is tried when a connection fails, or when a member answers
// that it is unavailable, as one without a leader does. cfg is for https; nil trusts the
// system's CAs.
func New(endpoints []string, cfg *tls.Config) (*Conn, error) {
	if len(endpoints) == 0 {
		return nil, errors.New("unary: no endpoints")
	}
	c := &Conn{tls: &tls.Config{MinVersion: tls.VersionTLS12}}
	if cfg != nil {
		c.tls = cfg.Clone()
	}
	c.tls.NextProtos = []string{"h2"}
	for _, endpoint := range endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Port() == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("unary: %q is neither http://host:port nor https://host:port", endpoint)
		}
		c.endpoints = append(c.endpoints, u)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.running.Go(c.run)
	return c, nil
}

// Close ends the connection, with all calls that are under way, and returns when nothing of
// it is left running. It may be called again. Later calls give ErrNotSent.
func (c *Conn) Close() {
	c.cancel()
	c.running.Wait()
}

// Invoke calls a method, such as /etcdserverpb.KV/Txn, and returns the message of the
// response. request is what NewRequest returned with the message behind it, and Invoke's from
// now on. It returns at the latest when ctx ends or the deadline has passed, which costs less
// than one of ctx. Of its errors,
//
//   - ErrNotSent, wrapped: there is no connection, flow control has no room for the request
//     now, the server refused the stream, or the time was up before the request was written;
//   - what the server answers is a status as grpc-go gives it;
//   - all others are statuses, too, and leave open whether the server acts on the call:
//     Unavailable where the connection broke, DeadlineExceeded or Canceled where the time was
//     up, Internal and ResourceExhausted for an answer that cannot be read.
func (c *Conn) Invoke(ctx context.Context, deadline time.Time, method string, request []byte) (response []byte, err error) {
	t := c.current.Load()
	if t == nil {
		return nil, errNoConnection
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	binary.BigEndian.PutUint32(request[1:], uint32(len(request)-prefixBytes))
	s, err := t.send(method, request)
	if err != nil {
		return nil, err
	}
	late := timers.Get().(*time.Timer)
	late.Reset(time.Until(deadline))
	select {
	case <-s.done:
	case <-ctx.Done():
		t.abandon(s, ctx.Err())
		<-s.done
	case <-late.C:
		t.abandon(s, context.DeadlineExceeded)
		<-s.done
	}
	late.Stop() // from here on nothing comes from it before it is reset
	timers.Put(late)
	if s.err != nil {
		return nil, s.err
	}
	return messageOf(s.response)
}

var timers = sync.Pool{New: func() any { return time.NewTimer(0) }}

// run keeps a connection to one of the endpoints until Close.
func (c *Conn) run() {
	backoff := minBackoff
	for i := rand.IntN(len(c.endpoints)); c.ctx.Err() == nil; i++ {
		start := time.Now()
		if t, err := c.connect(c.endpoints[i%len(c.endpoints)]); err == nil {
			c.current.Store(t)
			<-t.retired
			c.current.Store(nil)
		}
		if time.Since(start) >= maxBackoff {
			backoff = minBackoff
			continue
		}
		select {
		case <-time.After(time.Duration(float64(backoff) * (0.8 + 0.4*rand.Float64()))):
		case <-c.ctx.Done():
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// connect returns a connection that the server has greeted. It ends by itself, or with c.
func (c *Conn) connect(endpoint *url.URL) (*transport, error) {
	ctx, cancel := context.WithTimeout(c.ctx, dialTimeout)
	defer cancel()
	conn, err := c.dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	t := newTransport(conn, endpoint.Scheme, endpoint.Host)
	if err := t.handshake(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	c.running.Go(t.write)
	c.running.Go(func() {
		defer context.AfterFunc(c.ctx, func() { t.fail(errClosed) })()
		t.fail(t.read())
	})
	return t, nil
}

func (c *Conn) dial(ctx context.Context, endpoint *url.URL) (net.Conn, error) {
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAliveTime, Interval: keepAliveTimeout / 2, Count: 2,
	}}
	if endpoint.Scheme == "http" {
		return dialer.DialContext(ctx, "tcp", endpoint.Host)
	}
	conn, err := (&tls.Dialer{NetDialer: dialer, Config: c.tls}).DialContext(ctx, "tcp", endpoint.Host)
	if err != nil {
		return nil, err
	}
	if p := conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; p != "h2" {
		conn.Close()
		return nil, fmt.Errorf("unary: %s does not speak HTTP/2", endpoint)
	}
	return conn, nil
}
