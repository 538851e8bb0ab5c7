// Package server speaks HTTP: routes, authentication, limits, negotiation of media types,
// errors as metav1.Status, health and metrics. It knows nothing of storage, and of
// objects only their forms and what the Resource interface tells.
package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"

	"github.com/berth-project/berth/pkg/audit"
	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/server/forwarded"
	"github.com/berth-project/berth/pkg/server/identity"
	"github.com/berth-project/berth/pkg/server/media"
	"github.com/berth-project/berth/pkg/server/metrics"
	"github.com/berth-project/berth/pkg/server/requestinfo"
	"github.com/berth-project/berth/pkg/server/shutdown"
)

// Config is what a Server is made of. Without a comment a field is required.
type Config struct {
	Resources []Resource
	Reviews   []Review // nil: there are none
	// Scheme knows the Go types of the resources.
	Scheme *runtime.Scheme
	// OpenAPI has the documents, as discovery.LoadOpenAPI reads them.
	OpenAPI fs.FS
	// Authenticator knows the tokens.
	Authenticator auth.Authenticator
	// Certificates knows the client certificates; nil knows none.
	Certificates *auth.Certificates
	// Identity serves the token service; nil: there is none.
	Identity *identity.Handler
	// Anonymous says what requests without a token may ask for.
	Anonymous Anonymous
	// Authorizer decides on every request; nil allows all.
	Authorizer auth.Authorizer
	Limiter    Limiter
	// Audit records requests; nil: none.
	Audit *audit.Log
	// TrustedProxies are the networks of proxies whose X-Forwarded-For says who the client is.
	TrustedProxies []netip.Prefix
	Logger         zerolog.Logger
	// Metrics is where the server's metrics go, and what /metrics shows. It must not have those
	// of another server.
	Metrics *prometheus.Registry
	// Ready says why requests cannot be served now; nil: they can. Asked by /readyz.
	Ready   func(context.Context) error
	Version version.Info
	// MaxRequestsInFlight and MaxMutatingRequestsInFlight bound how many requests of each
	// sort are in progress at once; 0 is no bound.
	// One user may have a quarter of them, and members of system:masters do not count.
	MaxRequestsInFlight, MaxMutatingRequestsInFlight int
	// MaxWatches and MaxWatchesPerUser bound the open watches in all and for each user, members
	// of system:masters excepted; 0 is no bound.
	MaxWatches, MaxWatchesPerUser int
	// RequestTimeout bounds a request; 0 is 60 s.
	RequestTimeout time.Duration
	// StrictTransportSecurity is the header of that name of every answer over TLS; "" is none.
	StrictTransportSecurity string
	// GoawayChance is how probable it is that a request over HTTP/2 has its connection closed once
	// the requests on it have ended, so that clients spread over servers; 0 is never.
	GoawayChance float64
}

// Anonymous says what requests without a token may ask for.
type Anonymous int

const (
	// AnonymousProbes lets them ask for the health paths and for the version.
	AnonymousProbes Anonymous = iota
	// AnonymousAll lets them ask for whatever the authorizer allows to system:anonymous.
	AnonymousAll
	// AnonymousNone lets them ask for nothing.
	AnonymousNone
)

const (
	defaultRequestTimeout = 60 * time.Second
	// maxMutationTimeout is kube-apiserver's bound for requests that write.
	maxMutationTimeout = 34 * time.Second
	// Of requests that fail since etcd does not answer, so many in that time have an error's
	// line.
	outageBurst, outagePeriod = 10, 5 * time.Second
	// maxBodyBytes is kube-apiserver's bound for the body of a request.
	maxBodyBytes = 3 << 20
)

// Server answers HTTP requests. It is an http.Handler.
type Server struct {
	cfg      Config
	codecs   *media.Codecs
	metrics  *metrics.Metrics
	pools    pools
	outages  outageLines
	router   *mux.Router
	prefixes []string // below which unknown paths are answered by a Status
	// anonymous is who makes requests without a token.
	anonymous *auth.Identity
	resources map[resourcePath]*metav1.APIResource

	impersonators auth.Impersonators

	streams     context.Context // ends all watches
	endStreams  context.CancelFunc
	stages      *shutdown.Stages
	background  sync.WaitGroup // watches over WebSockets, and what follows rights
	openWatches openWatches
}

// New returns a server, or an error that names what is missing from cfg.
func New(cfg Config) (*Server, error) {
	switch {
	case len(cfg.Resources) == 0, cfg.Scheme == nil, cfg.OpenAPI == nil, cfg.Authenticator == nil, cfg.Limiter == nil, cfg.Metrics == nil, cfg.Ready == nil:
		return nil, errors.New("server: Resources, Scheme, OpenAPI, Authenticator, Limiter, Metrics and Ready are required")
	case cfg.MaxRequestsInFlight < 0, cfg.MaxMutatingRequestsInFlight < 0, cfg.MaxWatches < 0, cfg.MaxWatchesPerUser < 0, cfg.RequestTimeout < 0:
		return nil, errors.New("server: limits must not be negative")
	}
	if cfg.Authorizer == nil {
		cfg.Authorizer = auth.AlwaysAllow{}
	}
	if cfg.RequestTimeout == 0 {
		cfg.RequestTimeout = defaultRequestTimeout
	}
	anonymous, _, err := auth.NewIdentity([sha256.Size]byte{}, auth.User{Name: auth.Anonymous, Groups: []string{auth.AllUnauthenticated}})
	if err != nil {
		return nil, err
	}
	streams, endStreams := context.WithCancel(context.Background())
	s := &Server{anonymous: anonymous, resources: map[resourcePath]*metav1.APIResource{}, streams: streams, endStreams: endStreams, stages: shutdown.New(), cfg: cfg, codecs: media.New(cfg.Scheme), metrics: metrics.New(cfg.Metrics, cfg.Version), pools: newPools(&cfg)}
	s.outages.sampler = zerolog.BurstSampler{Burst: outageBurst, Period: outagePeriod}
	s.metrics.ShowBytes("berth_request_body_bytes", "Bytes of large bodies that are being received or worked on.", s.pools.uploads.InUse)
	s.metrics.ShowBytes("berth_request_memory_bytes", "Bytes that are set aside for decoding and encoding large objects.",
		func() int64 { return s.pools.memory.InUse() + s.pools.reserved.InUse() })
	s.metrics.ShowBytes("berth_request_old_versions_bytes", "Bytes of objects that are set aside for answers that hold old versions of them: lists of exact versions, and what clients take longer than a minute to read.",
		s.pools.old.InUse)
	if err := s.route(); err != nil {
		endStreams()
		return nil, err
	}
	if changing, ok := cfg.Authorizer.(auth.Changing); ok {
		s.background.Go(func() { s.followRights(changing) })
	}
	return s, nil
}

// TakeLeave has the server's clients go elsewhere before it stops, and returns when they have, or
// when ctx ends. At first only /readyz fails, for delay, so that proxies send nothing more;
// from the middle of that time on answers ask connections to close. Then the watches end one
// after the other, over the time watches, each with a bookmark if it has those, and new ones
// are refused.
func (s *Server) TakeLeave(ctx context.Context, delay, watches time.Duration) {
	s.stages.NotReady()
	if !wait(ctx, delay/2) {
		return
	}
	s.stages.Leave()
	if !wait(ctx, delay-delay/2) {
		return
	}
	s.stages.RefuseWatches()
	open, began := s.openWatches.all(), time.Now()
	for i, w := range open {
		due := watches * time.Duration(i) / time.Duration(len(open))
		if !wait(ctx, time.Until(began.Add(due))) {
			return
		}
		w.takeLeave()
	}
}

// wait waits, and reports whether ctx lasted as long.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Refuse answers everything from now on with 503 and Retry-After, except the health paths, and
// returns when the requests in progress that are no watches have ended, or when ctx ends.
func (s *Server) Refuse(ctx context.Context) {
	select {
	case <-s.stages.Refuse():
	case <-ctx.Done():
	}
}

// EndStreams ends all watches, as their time-out would, and those to come: whoever shuts
// the server down calls it, since watches do not end by themselves.
func (s *Server) EndStreams() { s.endStreams() }

// Close ends all watches, and waits for those over WebSockets, which an http.Server does not.
// Requests must have ended.
func (s *Server) Close() {
	s.endStreams()
	s.background.Wait()
}

// ServeHTTP answers one request, whatever happens on the way.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	rec := newRecord(w, req)
	rec.client = forwarded.Client(req, s.cfg.TrustedProxies)
	if of := &rec.attrs; of.ResourceRequest {
		rec.resource = s.resources[resourcePath{of.APIGroup, of.APIVersion, of.Resource, of.Subresource}]
	}
	defer func() {
		if aborted := s.finish(rec, recover()); aborted {
			panic(http.ErrAbortHandler)
		}
	}()
	header := w.Header()
	header.Set("Audit-Id", rec.auditID)
	header.Set("Cache-Control", "no-cache, private")
	header.Set("X-Content-Type-Options", "nosniff")
	if req.TLS != nil && s.cfg.StrictTransportSecurity != "" {
		header.Set("Strict-Transport-Security", s.cfg.StrictTransportSecurity)
	}
	if s.stages.CloseConnection(req, s.cfg.GoawayChance) {
		header.Set("Connection", "close")
	}
	if !isHealth(req) {
		done, err := s.stages.Admit(rec.attrs.Verb == "watch")
		if err != nil {
			s.renderError(rec, err)
			return
		}
		defer done()
	}
	if s.serveIdentity(rec) {
		return
	}
	switch err := s.filter(rec); {
	case err != nil:
		s.renderError(rec, err)
	case len(req.URL.Path) > requestinfo.MaxPathBytes:
		// The router would match each of its routes against what anybody sends.
		s.router.NotFoundHandler.ServeHTTP(rec, req)
	default:
		s.router.ServeHTTP(rec, req)
	}
}
