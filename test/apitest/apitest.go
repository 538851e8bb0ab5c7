// Package apitest runs the whole server inside a test binary: embedded etcd, registry and
// HTTPS on a free port. One of them serves all tests of a binary; each test makes a
// namespace of its own.
package apitest

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"k8s.io/apimachinery/pkg/version"

	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/pkg/audit"
	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/auth/iam"
	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/serving"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/embedded"
)

// Token is the token of user admin, who is in system:masters.
const Token = "test-admin-token"

// stopTimeout bounds how long Close waits for requests in progress.
const stopTimeout = 10 * time.Second

// Config is what differs from the plain server; its zero value is the plain one.
type Config struct {
	// Tokens is the CSV file of the tokens; "" is one token, Token.
	Tokens string
	// IAM is the file of the token service; "": there is none.
	IAM string
	// RateLimits are the limits; nil is the default.
	RateLimits *ratelimit.Config
	// Authorizer decides on every request; nil: AuthorizationMode does.
	Authorizer auth.Authorizer
	// AuthorizationMode is as in apiserver.Config, except that "" lets every token do everything.
	AuthorizationMode string
	// Audit is closed by the caller, after the server; nil is none.
	Audit *audit.Log
	// Mirroring is as in apiserver.Config; NoMirroring is MirrorServices, as for the binary.
	Mirroring apiserver.Mirroring
	// Peer is a server whose etcd is this one's, too, and which outlives it; nil: it has one of its
	// own.
	Peer *Server
	// DataDir is etcd's, and outlives the server; "" is one of its own, which does not.
	DataDir string
	// MaxStoredBytes is as in apiserver.Config.
	MaxStoredBytes int64
	// QuotaBytes is etcd's quota; 0 is its default.
	QuotaBytes int64
	// Wrap, if not nil, returns what takes the storage's place.
	Wrap func(storage.Interface) storage.Interface
	// Logger gets the server's log; the zero Logger discards it.
	Logger zerolog.Logger
	// MaxRequestsInFlight and MaxMutatingRequestsInFlight are as in apiserver.Config.
	MaxRequestsInFlight, MaxMutatingRequestsInFlight int
	// WriteTimeout is as in serving.Config; 0 is the binary's.
	WriteTimeout time.Duration
}

// Server is a running server.
type Server struct {
	URL     string
	Client  *http.Client // trusts CA
	CA      []byte       // as PEM
	Storage storage.Interface
	Limiter *ratelimit.Limiter
	Metrics *prometheus.Registry

	dir   string
	iam   *iam.Service   // nil without a token service
	etcd  *embedded.Etcd // nil until it has started; a peer's is not closed
	peer  bool           // whether it is one
	core  *apiserver.Instance
	front *serving.Server
}

// Start starts a server on an etcd of its own, or returns why it cannot.
func Start(cfg Config) (*Server, error) {
	s := &Server{Metrics: prometheus.NewRegistry(), Limiter: ratelimit.New(cfg.RateLimits)}
	if err := s.start(context.Background(), cfg); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, cfg Config) (err error) {
	if s.dir, err = os.MkdirTemp("", "berth-test-"); err != nil {
		return err
	}
	tokens, err := s.tokens(cfg)
	if err != nil {
		return err
	}
	data := cfg.DataDir
	if data == "" {
		data = filepath.Join(s.dir, "etcd")
	}
	if cfg.Peer != nil {
		s.etcd, s.peer = cfg.Peer.etcd, true
	} else if s.etcd, err = embedded.Start(ctx, embedded.Config{DataDir: data, QuotaBytes: cfg.QuotaBytes}); err != nil {
		return err
	}
	if cfg.IAM != "" {
		if err := s.loadIAM(cfg); err != nil {
			return err
		}
	}
	s.core, err = apiserver.Start(ctx, apiserver.Config{
		Client: s.etcd.Client(), MaxValueBytes: embedded.MaxValueBytes, WrapStorage: cfg.Wrap,
		Authenticator: tokens, IAM: s.iam, Authorizer: cfg.Authorizer, AuthorizationMode: cmp.Or(cfg.AuthorizationMode, apiserver.ModeAlwaysAllow), Limiter: s.Limiter, Audit: cfg.Audit,
		Mirroring: cmp.Or(cfg.Mirroring, apiserver.MirrorServices), MaxStoredBytes: cfg.MaxStoredBytes,
		MaxRequestsInFlight: cfg.MaxRequestsInFlight, MaxMutatingRequestsInFlight: cfg.MaxMutatingRequestsInFlight,
		Logger: cfg.Logger, Metrics: s.Metrics, Version: version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2"},
	})
	if err != nil {
		return err
	}
	s.Storage = s.core.Storage
	return s.listen(ctx, cfg)
}

// iamFile is the path of the token service's file.
func (s *Server) iamFile() string { return filepath.Join(s.dir, "iam.yaml") }

func (s *Server) loadIAM(cfg Config) error {
	s.iam = iam.New(cfg.Logger)
	return s.ReloadIAM(cfg.IAM)
}

// ReloadIAM replaces the file of the token service.
func (s *Server) ReloadIAM(file string) error {
	if err := os.WriteFile(s.iamFile(), []byte(file), 0o600); err != nil {
		return err
	}
	return s.iam.Load(s.iamFile())
}

func (s *Server) tokens(cfg Config) (*auth.Tokens, error) {
	tokens := auth.NewTokens()
	if cfg.Tokens == "" {
		return tokens, tokens.Set(Token, auth.User{Name: "admin", Groups: []string{auth.SystemPrivilegedGroup}})
	}
	path := filepath.Join(s.dir, "tokens.csv")
	if err := os.WriteFile(path, []byte(cfg.Tokens), 0o600); err != nil {
		return nil, err
	}
	return tokens, tokens.Load(path)
}

// listen serves on a free port, as the binary does.
func (s *Server) listen(ctx context.Context, cfg Config) error {
	cert, err := certificates.Dir(filepath.Join(s.dir, "pki")).Ensure([]string{"127.0.0.1"}, time.Now())
	if err != nil {
		return err
	}
	holder := &certificates.Holder{}
	holder.Set(cert)
	s.front, err = serving.New(serving.Config{
		Handler: s.core.Handler, WriteTimeout: cmp.Or(cfg.WriteTimeout, s.core.Handler.WriteTimeout()),
		Logger: cfg.Logger, Metrics: s.Metrics,
	})
	if err != nil {
		return err
	}
	port, err := serving.Listen(ctx, "127.0.0.1", 0)
	if err != nil {
		return err
	}
	s.front.ServeTLS(port, holder.GetCertificate)

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert.CAPEM)
	s.URL, s.CA = "https://"+port.Addr().String(), cert.CAPEM
	s.Client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	return nil
}

// Transport returns a client's transport of its own, of HTTP/2 or of HTTP/1.1. The caller
// closes its idle connections.
func (s *Server) Transport(http2 bool) *http.Transport {
	transport := s.Client.Transport.(*http.Transport).Clone()
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetHTTP2(http2)
	transport.TLSClientConfig.NextProtos = nil // the transport's protocols decide
	transport.MaxIdleConnsPerHost = 64
	transport.DisableCompression = true
	return transport
}

// PutInEtcd writes a key past the server, as another program would.
func (s *Server) PutInEtcd(ctx context.Context, key, value string) error {
	_, err := s.etcd.Client().Put(ctx, key, value)
	return err
}

// Close stops the server and removes its data.
func (s *Server) Close() error {
	var errs []error
	if s.front != nil {
		s.Client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		errs = append(errs, s.front.Stop(ctx, s.core.Handler.EndStreams))
	}
	if s.core != nil {
		s.core.Close()
	}
	if s.etcd != nil && !s.peer {
		errs = append(errs, s.etcd.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
