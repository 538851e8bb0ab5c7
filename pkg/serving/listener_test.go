package serving

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

// A client that does not go on with its handshake loses its connection in time, and the
// others do not wait for it.
func TestHandshakeHasItsTime(t *testing.T) {
	before := goleak.IgnoreCurrent()
	conns := newConnections(Config{MaxConnections: 10, Logger: zerolog.Nop()})
	certificate := selfSigned(t)
	tcp := listen(t)
	l := newHandshakeListener(&boundedListener{tcp, conns}, &tls.Config{Certificates: []tls.Certificate{*certificate}}, 50*time.Millisecond)
	slow := dial(t, "127.0.0.1", tcp.Addr().String())
	if !isClosed(slow) {
		t.Error("a connection without a handshake stays open")
	}
	failed, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := failed.(*tls.Conn).Handshake(); err == nil { //nolint:noctx // it has ended
		t.Error("its handshake succeeded")
	}
	failed.Close()
	// These two are still in a handshake, or not accepted, when the listener is closed.
	dial(t, "127.0.0.1", tcp.Addr().String())
	dial(t, "127.0.0.1", tcp.Addr().String())
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("Accept after Close succeeded")
	}
	eventually(t, "the end of all connections", func() bool { return conns.count() == 0 })
	goleak.VerifyNone(t, before)
}

func TestSilentConnectionsDoNotDelayOthers(t *testing.T) {
	s := serve(t, 100)
	for range 20 {
		dial(t, "127.0.0.2", s.secure)
	}
	for _, http2 := range []bool{false, true} {
		body, err := get(client(t, "127.0.0.2", http2), "https://"+s.secure)
		if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2]; err != nil || body != want {
			t.Errorf("got %q, %v, want %q", body, err, want)
		}
	}
}

func TestPlainRequestToTheSecurePort(t *testing.T) {
	s := serve(t, 100)
	conn := dial(t, "127.0.0.1", s.secure)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: berth\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusBadRequest || err != nil || len(body) == 0 {
		t.Errorf("got %d %q, %v, want 400 and the reason", resp.StatusCode, body, err)
	}
}

// failingListener fails before it accepts.
type failingListener struct {
	net.Listener
	failures []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if len(l.failures) > 0 {
		err := l.failures[0]
		l.failures = l.failures[1:]
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
	}
	return l.Listener.Accept()
}

func TestAcceptGoesOnAfterFailures(t *testing.T) {
	conns := newConnections(Config{MaxConnections: 10, Logger: zerolog.Nop()})
	tcp := listen(t)
	l := &boundedListener{&failingListener{tcp, []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EPROTO, syscall.EPERM,
	}}, conns}
	dial(t, "127.0.0.1", tcp.Addr().String())
	conn, err := l.accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	accepted := make(chan error, 1)
	go func() {
		_, err := l.accept()
		accepted <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-accepted; err == nil {
		t.Error("Accept during Close succeeded")
	}
}

// Stop does not wait for handshakes and idle connections, and cuts off requests in progress
// when its context ends.
func TestStop(t *testing.T) {
	s := serve(t, 100)
	silent := dial(t, "127.0.0.1", s.secure)
	answered := make(chan error, 1)
	go func() {
		_, err := get(client(t, "127.0.0.1", true), "https://"+s.secure+"/wait")
		answered <- err
	}()
	<-s.arrived
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	called := false
	if err := s.Stop(ctx, func() { called = true }); err == nil {
		t.Error("Stop with a request in progress returned no error")
	}
	if !called {
		t.Error("endStreams was not called")
	}
	if !isClosed(silent) {
		t.Error("a silent connection is still open")
	}
	if err := <-answered; err == nil {
		t.Error("the request in progress was answered")
	}
	close(s.release)
	select {
	case err := <-s.Failed():
		t.Errorf("Failed: %v", err)
	default:
	}
}
