package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/berth-project/berth/pkg/server"
)

const (
	maxHeaderBytes = 64 << 10
	// As kube-apiserver's: just below the longest time that proxies wait for an answer,
	// and the time that net/http's clients keep an idle connection. There is no limit on
	// writing an answer here, since a watch has no end: the handlers bound it.
	readHeaderTimeout = 32 * time.Second
	idleTimeout       = 90 * time.Second
	// Clients open a further connection beyond so many requests on one.
	maxConcurrentStreams = 250
	// A connection whose peer has gone without a word is closed after both.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
)

// loopback is where --http-port listens, whatever --bind-address says: without TLS a
// token must not leave the machine.
const loopback = "127.0.0.1"

// listeners are the ports that the server has taken.
type listeners struct {
	secure   net.Listener
	insecure net.Listener // nil: --http-port is 0
}

// listen takes the ports of c, or none of them. Connections wait until frontend.serve
// accepts them.
func listen(ctx context.Context, c config) (*listeners, error) {
	secure, err := listenOn(ctx, "secure-port", c.BindAddress, c.SecurePort)
	if err != nil {
		return nil, err
	}
	l := &listeners{secure: secure}
	if c.HTTPPort != 0 {
		if l.insecure, err = listenOn(ctx, "http-port", loopback, c.HTTPPort); err != nil {
			secure.Close()
			return nil, err
		}
	}
	return l, nil
}

func listenOn(ctx context.Context, flag, address string, port int) (net.Listener, error) {
	hostPort := net.JoinHostPort(address, strconv.Itoa(port))
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", hostPort)
	if err == nil {
		return l, nil
	}
	// The operation and the address that *net.OpError would add are in the line already.
	if opErr, ok := errors.AsType[*net.OpError](err); ok {
		err = opErr.Err
	}
	return nil, &flagError{flag: flag, err: fmt.Errorf("cannot listen on %s: %w", hostPort, err)}
}

func (l *listeners) close() {
	l.secure.Close()
	if l.insecure != nil {
		l.insecure.Close()
	}
}

// securePort is the port that was taken.
func (l *listeners) securePort() int {
	return l.secure.Addr().(*net.TCPAddr).Port
}

// frontend serves a handler on the listeners.
type frontend struct {
	servers []*http.Server
	serving sync.WaitGroup
	failed  chan error // has room for what every server can send
}

// serve starts to accept connections. stop must be called.
func serve(l *listeners, handler http.Handler, certs *certHolder, logger zerolog.Logger) *frontend {
	f := &frontend{failed: make(chan error, 2)}
	secure := newHTTPServer(handler, logger)
	secure.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: certs.getCertificate,
		// Answers are gathered into large writes anyway: small records would only cost.
		DynamicRecordSizingDisabled: true,
	}
	f.start(secure, func() error { return secure.ServeTLS(server.NewListener(l.secure), "", "") })
	if l.insecure != nil {
		insecure := newHTTPServer(handler, logger)
		insecure.Protocols.SetUnencryptedHTTP2(true)
		f.start(insecure, func() error { return insecure.Serve(server.NewListener(l.insecure)) })
	}
	return f
}

func newHTTPServer(handler http.Handler, logger zerolog.Logger) *http.Server {
	s := &http.Server{
		Handler:           handler,
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          httpErrorLog(logger),
		ConnContext:       server.ConnContext,
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxConcurrentStreams,
			SendPingTimeout:      pingAfter,
			PingTimeout:          pingTimeout,
		},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	return s
}

func (f *frontend) start(s *http.Server, serve func() error) {
	f.servers = append(f.servers, s)
	f.serving.Go(func() {
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			f.failed <- fmt.Errorf("serving has ended: %w", err)
		}
	})
}

// stop accepts nothing more, has endStreams end what would never end by itself, waits
// until what is under way is answered and closes the connections. When ctx ends first it
// closes them at once and returns ctx's error.
func (f *frontend) stop(ctx context.Context, endStreams func(context.Context) error) error {
	errs := make([]error, len(f.servers)+1)
	var stopping sync.WaitGroup
	for i, s := range f.servers {
		stopping.Go(func() {
			if errs[i] = s.Shutdown(ctx); errs[i] != nil {
				s.Close()
			}
		})
	}
	errs[len(f.servers)] = endStreams(ctx)
	stopping.Wait()
	f.serving.Wait()
	return errors.Join(errs...)
}
