// Package metrics counts what the server does, under the names, labels and buckets of
// kube-apiserver, so that its dashboards, alerts and load tools work here. What kube-apiserver
// does not have is named berth_….
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/version"
)

var (
	// sliBuckets are kube-apiserver's for what clients wait for, in seconds.
	sliBuckets = []float64{0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}
	// longBuckets are those of requests of any kind.
	longBuckets = append([]float64{0.005, 0.025}, sliBuckets...)
	// accessBuckets are those of authentication and authorization.
	accessBuckets = prometheus.ExponentialBuckets(0.001, 2, 15)
	// certificateBuckets are times left of a client's certificate, from none to a year.
	certificateBuckets = []float64{0, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 345600, 604800, 2592000, 7776000, 15552000, 31104000}
)

// The labels that families share.
var (
	requestLabels  = []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}
	resourceLabels = []string{"group", "resource"}
	versionLabels  = []string{"group", "version", "resource"}
)

// Metrics are those of a server. Its methods are safe for concurrent use.
type Metrics struct {
	// ReadOnly and Mutating are the requests in progress, except watches.
	ReadOnly, Mutating InFlight
	// UnloggedRequests counts the requests without a line in the log.
	UnloggedRequests prometheus.Counter

	registry *prometheus.Registry
	requests requests
	watches  watches
	rejected *prometheus.CounterVec

	authentications, authorizations access
	authenticatedUsers              prometheus.Counter
	certificateLeft                 prometheus.Histogram
}

// New returns metrics that are registered with the registry. It panics if that has them already.
func New(registry *prometheus.Registry, server version.Info) *Metrics {
	factory := promauto.With(registry)
	m := &Metrics{
		registry: registry,
		requests: newRequests(factory),
		watches:  newWatches(factory),
		rejected: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_rejected_requests_total",
			Help: "Requests answered with 429, by the limit that was met, by whose it is (of a token or user, of an address, or of all together), and by resource.",
		}, []string{"limit", "share", "resource"}),
		UnloggedRequests: factory.NewCounter(prometheus.CounterOpts{
			Name: "berth_request_log_omitted_total",
			Help: "Requests without a line in the log, since their address or token has caused too many.",
		}),
		authentications: newAccess(factory, "authentication_attempts", "authentication_duration_seconds", "Authentications"),
		authorizations:  newAccess(factory, "authorization_attempts_total", "authorization_duration_seconds", "Authorizations"),
		authenticatedUsers: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "authenticated_user_requests",
			Help: "Authenticated requests. Users are not told apart.",
		}, []string{"username"}).WithLabelValues("other"),
		certificateLeft: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "apiserver_client_certificate_expiration_seconds",
			Help:    "Time left of the certificate that a request was authenticated with.",
			Buckets: certificateBuckets,
		}),
	}
	for kind, inFlight := range map[string]*InFlight{"readOnly": &m.ReadOnly, "mutating": &m.Mutating} {
		factory.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "apiserver_current_inflight_requests",
			Help:        "The most requests that were in progress at once within the last second, by kind.",
			ConstLabels: prometheus.Labels{"request_kind": kind},
		}, func() float64 { return float64(inFlight.Most(time.Now())) })
	}
	factory.NewGauge(prometheus.GaugeOpts{
		Name: "kubernetes_build_info",
		Help: "1, with the version as /version tells it.",
		ConstLabels: prometheus.Labels{
			"major": server.Major, "minor": server.Minor, "git_version": server.GitVersion, "git_commit": server.GitCommit,
			"git_tree_state": server.GitTreeState, "build_date": server.BuildDate, "go_version": server.GoVersion,
			"compiler": server.Compiler, "platform": server.Platform,
		},
	}).Set(1)
	return m
}

// Handler serves what is registered.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// ShowBytes exports how many bytes of what users share are taken.
func (m *Metrics) ShowBytes(name, help string, bytes func() int64) {
	promauto.With(m.registry).NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(bytes()) })
}

// Reject counts a request that a limit turned away; share is whose limit it is: user, address
// or all.
func (m *Metrics) Reject(limit, share, resource string) {
	m.rejected.WithLabelValues(limit, share, resource).Inc()
}

// The results of authentication and authorization.
const (
	Success   = iota // of authentication: the token is valid
	Failure          // there is no token
	Error            // the token is not valid; or it cannot be decided what is allowed
	Allowed          // of authorization
	NoOpinion        // nothing allows it
	results
)

var resultNames = [results]string{"success", "failure", "error", "allowed", "no-opinion"}

// access counts decisions by their result.
type access [results]struct {
	attempts prometheus.Counter
	duration prometheus.Observer
}

func newAccess(factory promauto.Factory, counter, histogram, what string) (a access) {
	attempts := factory.NewCounterVec(prometheus.CounterOpts{Name: counter, Help: what + " by result."}, []string{"result"})
	duration := factory.NewHistogramVec(prometheus.HistogramOpts{Name: histogram, Help: what + " by result, in seconds.", Buckets: accessBuckets}, []string{"result"})
	for result, name := range resultNames {
		if (result < Error) == (what == "Authentications") || result == Error {
			a[result].attempts, a[result].duration = attempts.WithLabelValues(name), duration.WithLabelValues(name)
		}
	}
	return a
}

func (a *access) observe(result int, since time.Time) {
	a[result].attempts.Inc()
	a[result].duration.Observe(time.Since(since).Seconds())
}

// Authenticated counts an attempt to find out whose request it is: Success, Failure or Error.
func (m *Metrics) Authenticated(result int, since time.Time) {
	m.authentications.observe(result, since)
	if result == Success {
		m.authenticatedUsers.Inc()
	}
}

// CertificateLeft notes how long the certificate will be valid that a request was authenticated
// with.
func (m *Metrics) CertificateLeft(left time.Duration) { m.certificateLeft.Observe(left.Seconds()) }

// Authorized counts a decision on what a user may do: Allowed, NoOpinion or Error.
func (m *Metrics) Authorized(result int, since time.Time) { m.authorizations.observe(result, since) }
