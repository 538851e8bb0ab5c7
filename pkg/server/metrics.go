package server

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/berth-project/berth/pkg/server/share"
)

// metrics are kube-apiserver's, under its names and labels, so that its dashboards and
// load tools work here.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	rejected *prometheus.CounterVec
	aborts   *prometheus.CounterVec
	events   *prometheus.CounterVec
	unlogged prometheus.Counter
}

func newMetrics(registry *prometheus.Registry) (*metrics, error) {
	m := &metrics{
		registry: registry,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total",
			Help: "Requests by verb, dry run value, group, version, resource, subresource, scope, component and HTTP status code.",
		}, []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_request_duration_seconds",
			Help:    "Time from a request's first byte to the end of its answer, in seconds.",
			Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
		}, []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_flowcontrol_rejected_requests_total",
			Help: "Requests answered with 429, by the reason: the read or write limit of a token, the limit of an address without a valid token (anonymous), also for health and version (probe), too many requests or watches at once of one user (user-concurrency-limit) or of all (concurrency-limit), or no memory for large objects (memory).",
		}, []string{"reason"}),
	}
	m.aborts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_request_aborts_total",
		Help: "Requests whose answer was cut off, because the client took it too slowly or the server could not finish it.",
	}, []string{"verb", "group", "version", "resource", "subresource", "scope"})
	m.events = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_watch_events_total",
		Help: "Events sent to clients that watch.",
	}, []string{"group", "version", "resource"})
	m.unlogged = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "apiserver_request_log_omitted_total",
		Help: "Requests without a line in the log, since their address or token has caused too many.",
	})
	for _, collector := range []prometheus.Collector{m.requests, m.latency, m.rejected, m.aborts, m.events, m.unlogged} {
		if err := registry.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// showPools exports how much of each pool is in use.
func (m *metrics) showPools(p *pools) error {
	requests := func(kind string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{
			Name:        "apiserver_current_inflight_requests",
			Help:        "Requests in progress now, by kind.",
			ConstLabels: prometheus.Labels{"request_kind": kind},
		}
	}
	for _, one := range []struct {
		pools []*share.Pool
		opts  prometheus.GaugeOpts
	}{
		{[]*share.Pool{p.readOnly}, requests("readOnly")},
		{[]*share.Pool{p.mutating}, requests("mutating")},
		{[]*share.Pool{p.watches}, prometheus.GaugeOpts{Name: "apiserver_longrunning_requests", Help: "Watches that are open now; one with large selectors counts several times."}},
		{[]*share.Pool{p.uploads}, prometheus.GaugeOpts{Name: "apiserver_request_body_bytes", Help: "Bytes of large bodies that are being received or worked on."}},
		{[]*share.Pool{p.old}, prometheus.GaugeOpts{Name: "apiserver_request_old_versions_bytes", Help: "Bytes of objects that are set aside for answers that hold old versions of them: lists of exact versions, and what clients take longer than a minute to read."}},
		{[]*share.Pool{p.memory, p.reserved}, prometheus.GaugeOpts{Name: "apiserver_request_memory_bytes", Help: "Bytes that are set aside for decoding and encoding large objects."}},
	} {
		gauge := prometheus.NewGaugeFunc(one.opts, func() (inUse float64) {
			for _, pool := range one.pools {
				inUse += float64(pool.InUse())
			}
			return inUse
		})
		if err := m.registry.Register(gauge); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// observe counts a request that has ended; cut says that its answer was not whole. Clients
// cannot add values of their own to the labels.
func (m *metrics) observe(rec *record, cut bool) {
	dryRun, group, version, resource := "", "", "", ""
	if rec.dryRun {
		dryRun = "All"
	}
	if rec.resource != nil {
		group, version, resource = rec.resource.Group, rec.resource.Version, rec.resource.Name
	}
	labels := []string{metricVerb(rec), dryRun, group, version, resource, rec.attrs.Subresource, rec.scope(), "apiserver", strconv.Itoa(rec.code)}
	m.requests.WithLabelValues(labels...).Inc()
	m.latency.WithLabelValues(labels[:len(labels)-1]...).Observe(time.Since(rec.start).Seconds())
	if cut {
		m.aborts.WithLabelValues(labels[0], group, version, resource, rec.attrs.Subresource, rec.scope()).Inc()
	}
}

// watched counts the events that a watch sends.
func (m *metrics) watched(rec *record) prometheus.Counter {
	return m.events.WithLabelValues(rec.resource.Group, rec.resource.Version, rec.resource.Name)
}

// reject counts a request that a limit turned away.
func (m *metrics) reject(reason string) {
	m.rejected.WithLabelValues(reason).Inc()
}

// metricVerb is the verb as kube-apiserver's metrics write it. Methods that clients make
// up are all one: they must not make metrics without bound.
func metricVerb(rec *record) string {
	if rec.apply {
		return "APPLY"
	}
	switch verb := rec.attrs.Verb; verb {
	case "create":
		return "POST"
	case "update":
		return "PUT"
	case "get", "list", "watch", "patch", "delete", "deletecollection", "post", "put":
		return strings.ToUpper(verb)
	}
	return "unknown"
}
