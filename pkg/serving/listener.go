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
	net.Listener // whose Accept is not for others
	conns        *connections
}

// accept returns the next connection for which there is room. It fails only after Close: every
// other failure, such as too many open files, is temporary and must not end the server.
func (l *boundedListener) accept() (*conn, error) {
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

// handshakeListener returns connections once their PROXY header, if there must be one, has been
// read and their TLS handshake has ended, successfully or not: net/http gets the same result
// when it performs the handshake, and logs a failure. If net/http did the handshake itself, it
// would share the timeout of a request's header, and each connection would keep the large
// stack that a handshake needs.
type handshakeListener struct {
	*boundedListener
	config  *tls.Config   // nil: without TLS
	timeout time.Duration // of header and handshake together
	ready   chan net.Conn
	closed  context.Context
	close   context.CancelFunc
	running sync.WaitGroup
}

// newHandshakeListener starts to accept connections from l. Close must be called.
func newHandshakeListener(l *boundedListener, config *tls.Config, timeout time.Duration) *handshakeListener {
	closed, cancel := context.WithCancel(context.Background())
	t := &handshakeListener{boundedListener: l, config: config, timeout: timeout, ready: make(chan net.Conn), closed: closed, close: cancel}
	t.running.Go(func() {
		for {
			accepted, err := l.accept()
			if err != nil {
				return
			}
			t.running.Go(func() { t.handshake(accepted) })
		}
	})
	return t
}

func (t *handshakeListener) handshake(accepted *conn) {
	ctx, cancel := context.WithTimeout(t.closed, t.timeout)
	defer cancel()
	if accepted = accepted.readHeader(ctx); accepted == nil {
		return
	}
	var ready net.Conn = accepted
	if t.config != nil {
		secured := tls.Server(accepted, t.config)
		if err := secured.HandshakeContext(ctx); err != nil { // secured keeps the error
			t.conns.failedHandshakes.Inc()
		}
		ready = secured
	}
	select {
	case t.ready <- ready:
	case <-t.closed.Done():
		_ = accepted.Close() // nobody has it
	}
}

// Accept returns the next connection whose handshake has ended.
func (t *handshakeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-t.ready:
		return conn, nil
	case <-t.closed.Done():
		return nil, net.ErrClosed
	}
}

// Close makes Accept fail and closes the connections that it has not returned.
func (t *handshakeListener) Close() error {
	t.close()
	err := t.Listener.Close()
	t.running.Wait()
	return err
}
