// Package apiserver wires the server together: storage over etcd, the registry of the
// resources, and the HTTP handler. The binary and the tests start the same server with it.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/berth-project/berth/pkg/audit"
	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/auth/iam"
	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/ratelimit/cluster"
	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/mirroring"
	"github.com/berth-project/berth/pkg/registry/resources"
	"github.com/berth-project/berth/pkg/registry/resources/namespaces"
	"github.com/berth-project/berth/pkg/registry/reviews"
	"github.com/berth-project/berth/pkg/server"
	"github.com/berth-project/berth/pkg/server/identity"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

const (
	// DefaultMaxObjectBytes is Config.MaxObjectBytes where that is 0.
	DefaultMaxObjectBytes = registry.DefaultMaxObjectBytes
	// MaxReadableBytes is the most that Config.MaxObjectBytes may be.
	MaxReadableBytes = registry.MaxReadableBytes
)

// Mirroring says for which names Endpoints and EndpointSlices are kept in step.
type Mirroring = mirroring.Mode

// What Mirroring may be.
const (
	NoMirroring    = mirroring.None
	MirrorServices = mirroring.Services
	MirrorAll      = mirroring.All
)

// LimitsPath answers with Limits, those of the user that the query names.
const LimitsPath = server.LimitsPath

// Limits are those of a user, and what is left of them.
type Limits = server.Limits

// Anonymous says what requests without a token may ask for.
type Anonymous = server.Anonymous

// What Anonymous may be.
const (
	AnonymousProbes = server.AnonymousProbes
	AnonymousAll    = server.AnonymousAll
	AnonymousNone   = server.AnonymousNone
)

// Config is what an Instance is made of. Without a comment a field is required.
type Config struct {
	// Client is of an etcd that answers. The caller closes it after Close.
	Client *clientv3.Client
	// MaxValueBytes is the largest value that the etcd takes; 0: etcd's default.
	MaxValueBytes int
	// CompactionInterval is how often old revisions are removed from etcd, and how long they
	// are kept at least; 0 is never.
	CompactionInterval time.Duration
	// WatchVersions says that the etcd is a cluster whose members may change: one that comes
	// later and is too old is reported.
	WatchVersions bool
	// MaxObjectBytes bounds the JSON of an object; 0 is the registry's default.
	MaxObjectBytes int
	// MaxStoredBytes bounds what all objects take in memory; 0 is no bound.
	MaxStoredBytes int64
	// EventTTL is how long events live after their last write; 0: until they are deleted.
	EventTTL time.Duration
	// Mirroring says for which names Endpoints and EndpointSlices are kept in step.
	Mirroring Mirroring
	// WrapStorage, if not nil, returns what takes the storage's place. For tests.
	WrapStorage func(storage.Interface) storage.Interface

	// Authenticator knows the tokens.
	Authenticator auth.Authenticator
	// Certificates knows the client certificates; nil knows none.
	Certificates *auth.Certificates
	// IAM is the token service, with its file loaded; nil: there is none.
	IAM *iam.Service
	// Anonymous says what requests without a token may ask for.
	Anonymous Anonymous
	// AuthorizationMode is ModeRBAC, ModeAlwaysAllow, or "" for what the stored data were made
	// under: see settleMode.
	AuthorizationMode string
	// Authorizer, if not nil, decides instead of the mode. For tests.
	Authorizer auth.Authorizer
	Limiter    *ratelimit.Limiter
	// ClusterLimits has all servers on the etcd admit together what Limiter does alone.
	ClusterLimits bool
	// Audit records requests; nil: none. The caller closes it after Close.
	Audit *audit.Log
	// TrustedProxies are the networks of proxies whose X-Forwarded-For says who the client is.
	TrustedProxies []netip.Prefix
	// MaxRequestsInFlight and MaxMutatingRequestsInFlight bound the requests in progress; 0 is
	// no bound.
	MaxRequestsInFlight, MaxMutatingRequestsInFlight int
	// MaxWatches and MaxWatchesPerUser bound the open watches; 0 is no bound.
	MaxWatches, MaxWatchesPerUser int
	// RequestTimeout bounds a request; 0 is 60 s.
	RequestTimeout time.Duration
	// StrictTransportSecurity is the header of that name of every answer over TLS; "" is none.
	StrictTransportSecurity string
	// GoawayChance is how probable it is that a request over HTTP/2 has its connection closed
	// after the requests on it; 0 is never.
	GoawayChance float64

	// Logger gets a line for each request, and failures; the zero Logger discards them.
	Logger zerolog.Logger
	// Metrics is where all metrics are registered, and what /metrics shows.
	Metrics *prometheus.Registry
	Version version.Info
}

// Instance is a running server without its ports.
type Instance struct {
	// Handler answers requests. Call its EndStreams before Close.
	Handler *server.Server
	// Storage is what the registry reads and writes.
	Storage storage.Interface

	cancel  context.CancelFunc
	running sync.WaitGroup
}

// Start returns an instance that has read all objects and can answer requests. ctx bounds
// the start alone; after an error nothing is left running. Close must be called.
func Start(ctx context.Context, cfg Config) (*Instance, error) {
	if cfg.Client == nil || cfg.Authenticator == nil || cfg.Limiter == nil || cfg.Metrics == nil {
		return nil, errors.New("apiserver: Client, Authenticator, Limiter and Metrics are required")
	}
	if err := checkMode(cfg.AuthorizationMode); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	i := &Instance{cancel: cancel}
	if err := i.start(ctx, run, cfg); err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// start builds everything, from etcd up to the handler. The work in the background ends with
// run.
func (i *Instance) start(ctx, run context.Context, cfg Config) error {
	cfg.Metrics.MustRegister(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(schedulerMetrics)), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	store, err := etcd.New(cfg.Client, etcd.Config{
		MaxValueBytes: cfg.MaxValueBytes, Registerer: cfg.Metrics, Groups: groups(),
	})
	if err != nil {
		return err
	}
	i.Storage = store
	if cfg.WrapStorage != nil {
		i.Storage = cfg.WrapStorage(store)
	}
	mode, err := settleMode(ctx, i.Storage, &cfg)
	if err != nil {
		return fmt.Errorf("cannot tell the authorization mode: %w", err)
	}
	access := newAccess(mode, &cfg)
	objects, err := registry.New(registry.Config{
		Storage: i.Storage, MaxObjectBytes: cfg.MaxObjectBytes, MaxStoredBytes: cfg.MaxStoredBytes,
		Lifetimes: map[schema.GroupResource]time.Duration{{Resource: "events"}: cfg.EventTTL},
		Mirroring: cfg.Mirroring,
		Scheme:    resources.Scheme(), TypeConverter: resources.TypeConverter(), Resources: resources.All(),
		Admission: access, Observers: access.observers(),
		Report:     func(err error) { cfg.Logger.Error().Err(err).Msg("a fault in the background") },
		Registerer: cfg.Metrics,
	})
	if err != nil {
		return err
	}
	i.running.Go(func() { store.WatchSpace(run) })
	i.running.Go(func() { store.WatchLineage(run) })
	i.running.Go(func() { returnMemory(run, time.Tick(memoryInterval)) })
	i.running.Go(func() { objects.Run(run) })
	if err := objects.WaitReady(ctx); err != nil {
		return fmt.Errorf("cannot read the objects: %w", err)
	}
	if stored := objects.StoredBytes(); cfg.MaxStoredBytes > 0 && stored > cfg.MaxStoredBytes {
		cfg.Logger.Warn().Int64("storedBytes", stored).Int64("maxStoredBytes", cfg.MaxStoredBytes).
			Msg("more is stored than --max-stored-bytes allows: nothing is created or made larger until objects are deleted")
	}
	if err := begin(ctx, &cfg, access, objects); err != nil {
		return err
	}
	i.running.Go(func() { access.aggregator.run(run) })
	cfg.Authorizer = access.authorizer
	if access.authorizer == access.roles && cfg.Anonymous == AnonymousProbes {
		cfg.Anonymous = AnonymousAll // for whom there are roles
	}
	if err := i.startIAM(ctx, run, &cfg); err != nil {
		return err
	}
	if i.Handler, err = newHandler(cfg, i.startLimits(run, &cfg), i.Storage, objects); err != nil {
		return err
	}
	i.running.Go(func() { etcd.RunCompactor(run, cfg.Client, cfg.CompactionInterval, cfg.Logger) })
	if cfg.WatchVersions {
		i.running.Go(func() { etcd.WatchVersions(run, cfg.Client, cfg.Logger) })
	}
	return nil
}

// startLimits returns what limits requests, at this server or at all of them.
func (i *Instance) startLimits(run context.Context, cfg *Config) server.Limiter {
	if !cfg.ClusterLimits {
		return cfg.Limiter
	}
	limiter := cluster.New(cfg.Limiter, cluster.Config{Store: i.Storage, Registerer: cfg.Metrics, Logger: cfg.Logger})
	i.running.Go(func() { limiter.Run(run) })
	return limiter
}

// startIAM starts the token service, if there is one.
func (i *Instance) startIAM(ctx, run context.Context, cfg *Config) error {
	if cfg.IAM == nil {
		return nil
	}
	wait, err := cfg.IAM.Start(ctx, run, i.Storage, cfg.Metrics)
	i.running.Go(wait)
	return err
}

// begin creates what is there from the first start on: roles and bindings where they count, and
// namespaces.
func begin(ctx context.Context, cfg *Config, access *access, objects *registry.Registry) error {
	access.use(objects)
	steps := []struct {
		what string
		do   func() error
	}{
		{"create the first roles", func() error { return access.bootstrapRoles(ctx) }},
		{"put the rules of cluster roles together", func() error { return access.aggregator.settle(ctx) }},
		{"create the first namespaces", func() error { return namespaces.EnsureAlways(ctx, objects) }},
	}
	for _, step := range steps {
		switch err := step.do(); {
		case registry.IsNoRoom(err):
			cfg.Logger.Error().Err(err).Msg("cannot " + step.what)
		case err != nil:
			return fmt.Errorf("cannot %s: %w", step.what, err)
		}
	}
	return nil
}

// schedulerMetrics are how long goroutines wait for a processor, and all of them for the garbage
// collector.
var schedulerMetrics = collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/(sched/latencies|gc/pauses):seconds$`)}

// groups returns the group of each resource.
func groups() map[string]string {
	groups := map[string]string{}
	for _, resource := range resources.All() {
		groups[resource.API.Name] = resource.API.Group
	}
	return groups
}

// newReviews returns what answers questions about users and what they may do.
func newReviews(cfg Config, authorizer auth.Authorizer) ([]server.Review, error) {
	rules, _ := authorizer.(reviews.Rules) // others allow everything
	all, err := reviews.New(reviews.Config{
		Scheme: resources.Scheme(), TypeConverter: resources.TypeConverter(),
		Authorizer: authorizer, Rules: rules, Authenticator: cfg.Authenticator,
	})
	var served []server.Review
	for _, review := range all {
		served = append(served, review)
	}
	return served, err
}

func newHandler(cfg Config, limiter server.Limiter, store storage.Interface, objects *registry.Registry) (*server.Server, error) {
	var served []server.Resource
	for _, resource := range objects.Stores() {
		served = append(served, resource)
	}
	authorizer := cfg.Authorizer
	if authorizer == nil {
		authorizer = auth.AlwaysAllow{}
	}
	var tokenService *identity.Handler
	if cfg.IAM != nil {
		tokenService = &identity.Handler{Service: cfg.IAM, Limiter: limiter}
		cfg.Authenticator = auth.Union(cfg.Authenticator, cfg.IAM)
	}
	reviews, err := newReviews(cfg, authorizer)
	if err != nil {
		return nil, err
	}
	return server.New(server.Config{
		Resources: served,
		Reviews:   reviews,
		Scheme:    resources.Scheme(),
		OpenAPI:   resources.OpenAPI(),

		Authenticator: cfg.Authenticator,
		Certificates:  cfg.Certificates,
		Identity:      tokenService,
		Anonymous:     cfg.Anonymous,
		Authorizer:    authorizer,
		Limiter:       limiter,
		Audit:         cfg.Audit,
		Logger:        cfg.Logger,
		Metrics:       cfg.Metrics,
		Ready: func(ctx context.Context) error {
			_, err := store.Get(ctx, "/registry/health", storage.GetOptions{})
			return err
		},
		Version:                     cfg.Version,
		MaxRequestsInFlight:         cfg.MaxRequestsInFlight,
		MaxMutatingRequestsInFlight: cfg.MaxMutatingRequestsInFlight,
		MaxWatches:                  cfg.MaxWatches,
		MaxWatchesPerUser:           cfg.MaxWatchesPerUser,
		RequestTimeout:              cfg.RequestTimeout,
		StrictTransportSecurity:     cfg.StrictTransportSecurity,
		GoawayChance:                cfg.GoawayChance,
		TrustedProxies:              cfg.TrustedProxies,
	})
}

// Close ends the work in the background and waits for it. Requests must have ended.
func (i *Instance) Close() {
	if i.Handler != nil {
		i.Handler.Close()
	}
	i.cancel()
	i.running.Wait()
}
