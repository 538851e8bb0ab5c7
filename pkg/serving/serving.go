// Package serving listens on ports, accepts connections within bounds and serves HTTP on
// them, with TLS or without: it owns the settings of the HTTP servers and how they stop.
package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
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
	// A connection whose peer has vanished is closed after both.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
)

// Config is what a Server is made of. Without a comment a field is required.
type Config struct {
	Handler http.Handler
	// Logger gets refused connections as warnings, and failed ones at level debug.
	Logger zerolog.Logger
	// Metrics is where the metrics of connections are registered; nil: nowhere.
	Metrics prometheus.Registerer
	// MaxConnections is how many connections may be open at once, those from one address
	// half of that; 0 derives it from the limit of open files.
	MaxConnections int
}

// Server serves HTTP on listeners. Its methods must not be called at the same time.
type Server struct {
	cfg     Config
	conns   *connections
	servers []*http.Server
	serving sync.WaitGroup
	failed  chan error
}

// New returns a server without listeners, or an error if cfg is incomplete or the limit of
// open files cannot be read.
func New(cfg Config) (*Server, error) {
	if cfg.Handler == nil || cfg.MaxConnections < 0 {
		return nil, errors.New("serving: Handler is required, and MaxConnections must not be negative")
	}
	if cfg.MaxConnections == 0 {
		openFiles, err := openFilesLimit()
		if err != nil {
			return nil, err
		}
		cfg.MaxConnections = connectionLimit(openFiles)
		if openFiles < lowOpenFiles {
			cfg.Logger.Warn().Uint64("openFiles", openFiles).Int("connections", cfg.MaxConnections).
				Msg("the limit of open files is low, and with it that of connections; raise it (ulimit -n, LimitNOFILE)")
		}
	}
	conns, err := newConnections(cfg.MaxConnections, cfg.Logger, cfg.Metrics)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, conns: conns, failed: make(chan error, 1)}, nil
}

// ServeTLS starts to serve HTTP/1.1 and HTTP/2 over TLS on l, which Stop closes. A client
// has 10 s for the TLS handshake.
func (s *Server) ServeTLS(l net.Listener, getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: getCertificate,
		NextProtos: []string{"h2", "http/1.1"},
		// Answers are gathered into large writes anyway: small records would only cost.
		DynamicRecordSizingDisabled: true,
	}
	server := s.newHTTPServer()
	server.TLSConfig = config
	s.start(server, newTLSListener(newBoundedListener(l, s.conns), config, handshakeTimeout))
}

// Serve starts to serve HTTP/1.1 and HTTP/2 without TLS on l, which Stop closes.
func (s *Server) Serve(l net.Listener) {
	server := s.newHTTPServer()
	server.Protocols.SetUnencryptedHTTP2(true)
	s.start(server, newBoundedListener(l, s.conns))
}

// Failed returns a channel that receives an error if serving ends before Stop.
func (s *Server) Failed() <-chan error { return s.failed }

func (s *Server) newHTTPServer() *http.Server {
	server := &http.Server{
		Handler:           markBusy(s.cfg.Handler),
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          log.New(debugLog{s.cfg.Logger}, "", 0),
		ConnContext:       connContext,
		ConnState:         connState,
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxConcurrentStreams,
			SendPingTimeout:      pingAfter,
			PingTimeout:          pingTimeout,
		},
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	return server
}

func (s *Server) start(server *http.Server, l net.Listener) {
	s.servers = append(s.servers, server)
	s.serving.Go(func() {
		err := server.Serve(l)
		if errors.Is(err, http.ErrServerClosed) {
			return
		}
		select {
		case s.failed <- fmt.Errorf("serving ended: %w", err):
		default: // the first one is enough
		}
	})
}

// Stop accepts no more connections, calls endStreams, which ends what would not end by
// itself, waits until the requests in progress are answered, and closes the connections.
// When ctx ends first it closes them at once and returns ctx's error.
func (s *Server) Stop(ctx context.Context, endStreams func(context.Context) error) error {
	errs := make([]error, len(s.servers)+1)
	var stopping sync.WaitGroup
	for i, server := range s.servers {
		stopping.Go(func() {
			if errs[i] = server.Shutdown(ctx); errs[i] != nil {
				server.Close()
			}
		})
	}
	errs[len(s.servers)] = endStreams(ctx)
	stopping.Wait()
	s.serving.Wait()
	return errors.Join(errs...)
}

// debugLog takes what net/http logs, failed TLS handshakes for the most part. Anybody can
// cause that at any rate, so it is for those who look for it.
type debugLog struct{ logger zerolog.Logger }

func (d debugLog) Write(line []byte) (int, error) {
	d.logger.Debug().Str("detail", strings.TrimSpace(string(line))).Msg("connection failed")
	return len(line), nil
}
