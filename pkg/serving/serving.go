// Package serving listens on ports, accepts a bounded number of connections and serves HTTP
// on them, with or without TLS. It owns the settings and the shutdown of the HTTP servers.
package serving

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

const (
	maxHeaderBytes = 64 << 10
	// As kube-apiserver's: just below the longest time that proxies wait for an answer,
	// and the time that net/http's clients keep an idle connection.
	readHeaderTimeout = 32 * time.Second
	idleTimeout       = 90 * time.Second
	// As kube-apiserver's, and what Go's clients assume until they are told. They open another
	// connection beyond this many requests on one.
	maxConcurrentStreams = 100
	// A connection whose peer has vanished is closed after both.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
)

// writeByteTimeout is how long a connection of HTTP/2 may take no bytes until it is closed. Until
// then not even a reset can be written: no deadline of a stream helps against such a client.
var writeByteTimeout = time.Minute

// Config configures a Server. Fields without a comment are required.
type Config struct {
	Handler http.Handler
	// Logger receives refused connections as warnings, and failed ones at level debug.
	Logger zerolog.Logger
	// Metrics registers the metrics of connections; if nil they are not registered.
	// It must not have them already.
	Metrics prometheus.Registerer
	// MaxConnections is the maximum number of open connections, of which one address may
	// have half; 0 derives it from the limit on open files.
	MaxConnections int
	// WriteTimeout is how long a request may take until its answer is read, unless the handler
	// sets another deadline; 0 is no limit.
	WriteTimeout time.Duration
	// TrustedProxies are the networks of proxies, which may have more than half of the
	// connections; nil is none.
	TrustedProxies []netip.Prefix
	// ProxyProtocol has every connection from TrustedProxies begin with a header of the PROXY
	// protocol, version 1 or 2, whose client the connection is counted for and requests come
	// from.
	ProxyProtocol bool
	// ClientCAs returns the CAs of which clients are told at a handshake that they may have
	// certificates; nil: no certificates are asked for. They are not verified: whoever
	// answers a request sees the certificate in its TLS state. A client that presents large
	// certificates loses its connection.
	ClientCAs func() *x509.CertPool
	// TLSMinVersion is the minimum version of TLS; 0 means TLS 1.2.
	TLSMinVersion uint16
	// TLSCipherSuites are those of TLS 1.2, of which HTTP/2 needs one with AES_128_GCM; nil
	// means those with ECDHE and GCM or ChaCha20. Those of TLS 1.3 are always the same.
	TLSCipherSuites []uint16
}

// Server serves HTTP on listeners. Its methods are not safe for concurrent use.
type Server struct {
	cfg     Config
	conns   *connections
	servers []*http.Server
	serving sync.WaitGroup
	failed  chan error
}

// New returns a server without listeners. It fails if cfg is incomplete or the limit on open
// files cannot be read.
func New(cfg Config) (*Server, error) {
	if cfg.Handler == nil || cfg.MaxConnections < 0 || cfg.WriteTimeout < 0 {
		return nil, errors.New("serving: Handler is required, and MaxConnections and WriteTimeout must not be negative")
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
	conns := newConnections(cfg)
	return &Server{cfg: cfg, conns: conns, failed: make(chan error, 1)}, nil
}

// ServeTLS starts to serve HTTP/1.1 and HTTP/2 over TLS on l, which Stop closes. Clients have
// 10 s for the TLS handshake.
func (s *Server) ServeTLS(l net.Listener, getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) {
	config := &tls.Config{
		MinVersion: cmp.Or(s.cfg.TLSMinVersion, tls.VersionTLS12), CipherSuites: s.cfg.TLSCipherSuites,
		GetCertificate: getCertificate, NextProtos: []string{"h2", "http/1.1"},
		// Answers are gathered into large writes anyway, so small records would only cost.
		DynamicRecordSizingDisabled: true,
	}
	server := s.newHTTPServer()
	server.TLSConfig = config
	if config.CipherSuites == nil {
		config.CipherSuites = defaultCipherSuites
	}
	if s.cfg.ClientCAs != nil {
		config.ClientAuth, config.VerifyPeerCertificate = tls.RequestClientCert, boundClientCertificates
		config.GetConfigForClient = (&clientCAs{current: s.cfg.ClientCAs, config: config.Clone()}).configForClient
	}
	s.start(server, newHandshakeListener(&boundedListener{l, s.conns}, config, handshakeTimeout))
}

// Serve starts to serve HTTP/1.1 and HTTP/2 without TLS on l, which Stop closes.
func (s *Server) Serve(l net.Listener) {
	server := s.newHTTPServer()
	server.Protocols.SetUnencryptedHTTP2(true)
	s.start(server, newHandshakeListener(&boundedListener{l, s.conns}, nil, handshakeTimeout))
}

// Failed returns a channel that receives an error if serving ends before Stop.
func (s *Server) Failed() <-chan error { return s.failed }

func (s *Server) newHTTPServer() *http.Server {
	server := &http.Server{
		Handler:           markBusy(s.cfg.Handler),
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: readHeaderTimeout,
		WriteTimeout:      s.cfg.WriteTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          log.New(debugLog{s.cfg.Logger}, "", 0),
		ConnContext:       connContext,
		ConnState:         connState,
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxConcurrentStreams,
			SendPingTimeout:      pingAfter,
			PingTimeout:          pingTimeout,
			WriteByteTimeout:     writeByteTimeout,
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

// Stop stops accepting connections, calls endStreams, which must end the requests that would
// not end by themselves, waits for the requests in progress, and closes the connections. If
// ctx ends first, it closes them at once and returns ctx's error.
func (s *Server) Stop(ctx context.Context, endStreams func()) error {
	errs := make([]error, len(s.servers))
	var stopping sync.WaitGroup
	for i, server := range s.servers {
		stopping.Go(func() {
			if errs[i] = server.Shutdown(ctx); errs[i] != nil {
				server.Close()
			}
		})
	}
	endStreams()
	stopping.Wait()
	s.serving.Wait()
	return errors.Join(errs...)
}

// debugLog receives what net/http logs, mostly failed TLS handshakes. Anybody can cause those
// at any rate, so they are logged at level debug.
type debugLog struct{ logger zerolog.Logger }

func (d debugLog) Write(line []byte) (int, error) {
	d.logger.Debug().Str("detail", strings.TrimSpace(string(line))).Msg("connection failed")
	return len(line), nil
}
