// Package apitest runs the whole server inside a test binary: embedded etcd, registry and
// HTTPS on a free port. One of them serves all tests of a binary; each test makes a
// namespace of its own.
package apitest

import (
	"context"
	"encoding/pem"
	"errors"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/version"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/endpoints"
	"github.com/berth-project/berth/pkg/registry/namespaces"
	"github.com/berth-project/berth/pkg/server"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// Token is the token of user admin, who is in system:masters.
const Token = "test-admin-token"

// Config says what differs from the plain server; its zero value is that.
type Config struct {
	// Tokens is the CSV file of the tokens; "" is one token, Token.
	Tokens string
	// RateLimits are the limits; nil is the default.
	RateLimits *ratelimit.Config
	Authorizer auth.Authorizer
	// DataDir is etcd's, and outlives the server; "" is one of its own, which does not.
	DataDir string
	// Wrap, where not nil, stands between the registry and etcd.
	Wrap func(storage.Interface) storage.Interface
	// Logger gets the server's log; the zero Logger discards it.
	Logger zerolog.Logger
	// MaxRequestsInFlight and MaxMutatingRequestsInFlight are as in server.Config.
	MaxRequestsInFlight, MaxMutatingRequestsInFlight int
}

// Server is a running server.
type Server struct {
	URL     string
	Client  *http.Client // trusts the server's certificate
	CA      []byte       // that certificate, as PEM
	Storage storage.Interface
	Limiter *ratelimit.Limiter
	Metrics *prometheus.Registry

	http *httptest.Server
	stop func() error
}

// schema is shared by all servers of a binary: it takes 100 ms to build and never changes.
var schema = sync.OnceValues(func() (*runtime.Scheme, managedfields.TypeConverter) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		panic(err)
	}
	return scheme, registry.NewTypeConverter(server.Schemas)
})

// Start starts a server on an etcd of its own, or returns why it cannot.
func Start(cfg Config) (_ *Server, err error) {
	dir, err := os.MkdirTemp("", "berth-test-")
	if err != nil {
		return nil, err
	}
	s := &Server{Metrics: prometheus.NewRegistry()}
	cleanup := []func() error{func() error { return os.RemoveAll(dir) }}
	s.stop = func() (err error) {
		for i := len(cleanup) - 1; i >= 0; i-- {
			if e := cleanup[i](); err == nil {
				err = e
			}
		}
		return err
	}
	defer func() {
		if err != nil {
			_ = s.stop() // the first error tells more
		}
	}()
	ctx := context.Background()
	data := cfg.DataDir
	if data == "" {
		data = dir
	}
	db, err := embedded.Start(ctx, embedded.Config{DataDir: data})
	if err != nil {
		return nil, err
	}
	cleanup = append(cleanup, db.Close)
	store, err := etcd.New(db.Client(), etcd.Config{MaxValueBytes: embedded.MaxValueBytes, Registerer: s.Metrics})
	if err != nil {
		return nil, err
	}
	s.Storage = store
	if cfg.Wrap != nil {
		s.Storage = cfg.Wrap(store)
	}
	handler, stop, err := s.handler(ctx, cfg, dir)
	if err != nil {
		return nil, err
	}
	cleanup = append(cleanup, stop)
	s.listen(handler, cfg.Logger)
	cleanup = append(cleanup, func() error {
		ended := endStreams(handler)
		s.http.Close()
		return ended
	})
	return s, nil
}

// listen serves the handler on a free port, within the bounds that the binary sets.
func (s *Server) listen(handler http.Handler, logger zerolog.Logger) {
	s.http = httptest.NewUnstartedServer(handler)
	s.http.Listener = server.NewListener(s.http.Listener)
	s.http.Config.ConnContext = server.ConnContext
	s.http.EnableHTTP2 = true
	s.http.Config.MaxHeaderBytes = 64 << 10
	s.http.Config.ReadHeaderTimeout = 32 * time.Second
	s.http.Config.ErrorLog = log.New(logger, "", 0)
	s.http.StartTLS()
	s.URL, s.Client = s.http.URL, s.http.Client()
	s.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw})
}

// handler puts registry and server together; stop ends what runs beside them.
func (s *Server) handler(ctx context.Context, cfg Config, dir string) (_ *server.Server, stop func() error, _ error) {
	scheme, converter := schema()
	objects, err := registry.New(registry.Config{
		Storage: s.Storage, Scheme: scheme, TypeConverter: converter,
		Resources:  []*registry.Resource{namespaces.Resource(), endpoints.Resource()},
		Report:     func(err error) { cfg.Logger.Error().Err(err).Msg("a fault in the background") },
		Registerer: s.Metrics,
	})
	if err != nil {
		return nil, nil, err
	}
	if err := namespaces.EnsureAlways(ctx, objects.Stores()[0]); err != nil {
		return nil, nil, err
	}
	tokens := auth.NewTokens()
	if err := tokens.Set(Token, auth.User{Name: "admin", Groups: []string{auth.SystemPrivilegedGroup}}); err != nil {
		return nil, nil, err
	}
	if cfg.Tokens != "" {
		path := dir + "/tokens.csv"
		if err := os.WriteFile(path, []byte(cfg.Tokens), 0o600); err != nil {
			return nil, nil, err
		}
		if err := tokens.Load(path); err != nil {
			return nil, nil, err
		}
	}
	s.Limiter = ratelimit.New(cfg.RateLimits)
	var resources []server.Resource
	for _, store := range objects.Stores() {
		resources = append(resources, store)
	}
	handler, err := server.New(server.Config{
		Resources: resources, Scheme: scheme, Tokens: tokens, Authorizer: cfg.Authorizer, Limiter: s.Limiter,
		Logger: cfg.Logger, Metrics: s.Metrics, Version: version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2"},
		Ready: func(ctx context.Context) error {
			_, err := s.Storage.Get(ctx, "/registry/namespaces/default", storage.GetOptions{})
			return err
		},
		MaxRequestsInFlight: cfg.MaxRequestsInFlight, MaxMutatingRequestsInFlight: cfg.MaxMutatingRequestsInFlight,
	})
	if err != nil {
		return nil, nil, err
	}
	run, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		objects.Run(run)
	}()
	stop = func() error {
		ended := endStreams(handler)
		cancel()
		<-done
		return ended
	}
	if err := objects.WaitReady(ctx); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return handler, stop, nil
}

// endStreams ends the watches of a handler, and waits for them.
func endStreams(handler *server.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return handler.EndStreams(ctx)
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

// Close stops the server and removes its data.
func (s *Server) Close() error { return s.stop() }
