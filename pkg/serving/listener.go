package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

const (
	// handshakeTimeout is how long a client may take for the TLS handshake.
	handshakeTimeout = 10 * time.Second
	// acceptRetry is the wait after a failure to accept a connection.
	acceptRetry = 20 * time.Millisecond
)

// Listen opens a TCP port of an IP address, or any free one if port is 0. Connections wait
// until they are served.
func Listen(ctx context.Context, address string, port int) (net.Listener, error) {
	hostPort := net.JoinHostPort(address, strconv.Itoa(port))
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", hostPort)
	if err == nil {
		return l, nil
	}
	// *net.OpError would repeat the operation and the address.
	if opErr, ok := errors.AsType[*net.OpError](err); ok {
		err = opErr.Err
	}
	return nil, fmt.Errorf("cannot listen on %s: %w", hostPort, err)
}

// boundedListener accepts connections within the limits of conns.
type boundedListener struct {
	net.Listener
	conns *connections
}

// Accept returns the next connection for which there is room. It fails only after Close: every
// other failure, such as too many open files, is temporary and must not end the server.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		switch {
		case err == nil:
			if c := l.conns.admit(accepted); c != nil {
				return c, nil
			}
		case errors.Is(err, net.ErrClosed):
			return nil, err
		default:
			l.conns.acceptLog.Warn().Err(err).Msg("cannot accept a connection; will try again")
			<-time.After(acceptRetry)
		}
	}
}

// tlsListener returns connections once their TLS handshake has ended, successfully or not:
// net/http gets the same result when it performs the handshake, and logs a failure. If
// net/http did the handshake itself, it would share the timeout of a request's header, and
// each connection would keep the large stack that a handshake needs.
type tlsListener struct {
	net.Listener
	config  *tls.Config
	timeout time.Duration // of a handshake
	ready   chan net.Conn
	closed  context.Context
	close   context.CancelFunc
	running sync.WaitGroup
}

// newTLSListener starts to accept connections from l, whose Accept must fail only when l is
// closed. Close must be called.
func newTLSListener(l net.Listener, config *tls.Config, timeout time.Duration) *tlsListener {
	closed, cancel := context.WithCancel(context.Background())
	t := &tlsListener{Listener: l, config: config, timeout: timeout, ready: make(chan net.Conn), closed: closed, close: cancel}
	t.running.Go(func() {
		for {
			accepted, err := l.Accept()
			if err != nil {
				return
			}
			t.running.Go(func() { t.handshake(accepted) })
		}
	})
	return t
}

func (t *tlsListener) handshake(accepted net.Conn) {
	ctx, cancel := context.WithTimeout(t.closed, t.timeout)
	defer cancel()
	conn := tls.Server(accepted, t.config)
	_ = conn.HandshakeContext(ctx) // conn keeps the error
	select {
	case t.ready <- conn:
	case <-t.closed.Done():
		accepted.Close()
	}
}

// Accept returns the next connection whose handshake has ended.
func (t *tlsListener) Accept() (net.Conn, error) {
	select {
	case conn := <-t.ready:
		return conn, nil
	case <-t.closed.Done():
		return nil, net.ErrClosed
	}
}

// Close makes Accept fail and closes the connections that it has not returned.
func (t *tlsListener) Close() error {
	t.close()
	err := t.Listener.Close()
	t.running.Wait()
	return err
}
