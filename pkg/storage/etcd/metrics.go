package etcd

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics have the same names as in kube-apiserver.
type metrics struct {
	duration         *prometheus.HistogramVec
	requests, errors *prometheus.CounterVec
	groups           map[string]string // of the resources

	mu     sync.RWMutex
	series map[seriesKey]*series
}

// seriesKey has few values: the operations are the Store's, and the resources are served.
type seriesKey struct{ operation, group, resource string }

type series struct {
	duration         prometheus.Observer
	requests, errors prometheus.Counter
}

// newMetrics registers them with r, or with nothing if r is nil.
func newMetrics(r prometheus.Registerer, groups map[string]string) *metrics {
	factory, labels := promauto.With(r), []string{"operation", "group", "resource"}
	return &metrics{
		groups: groups, series: map[seriesKey]*series{},
		duration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "etcd_request_duration_seconds",
			Help: "Time of calls to etcd by operation, group and resource, in seconds.",
			// The first two are finer than upstream's 5 ms: an in-process etcd answers in a
			// fraction of that.
			Buckets: []float64{0.0005, 0.001, 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3,
				4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
		}, labels),
		requests: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_requests_total",
			Help: "Calls to etcd by operation, group and resource.",
		}, labels),
		errors: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_request_errors_total",
			Help: "Failed calls to etcd by operation, group and resource.",
		}, labels),
	}
}

// observe counts a request that began at start and ended with err.
func (m *metrics) observe(operation, key string, start time.Time, err error) {
	group, resource := m.resourceOf(key)
	s := m.of(seriesKey{operation, group, resource})
	s.requests.Inc()
	s.duration.Observe(time.Since(start).Seconds())
	if err != nil {
		s.errors.Inc()
	}
}

func (m *metrics) of(key seriesKey) *series {
	m.mu.RLock()
	s := m.series[key]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	labels := []string{key.operation, key.group, key.resource}
	s = &series{m.duration.WithLabelValues(labels...), m.requests.WithLabelValues(labels...), m.errors.WithLabelValues(labels...)}
	m.series[key] = s
	return s
}

// resourceOf returns the resource in a key of the form /registry/<resource>/..., and its group.
// Both are "" for any other key, so that stray keys cannot add label values.
func (m *metrics) resourceOf(key string) (group, resource string) {
	rest, ours := strings.CutPrefix(key, "/registry/")
	resource, _, found := strings.Cut(rest, "/")
	group, known := m.groups[resource]
	if !ours || !found || !known {
		return "", ""
	}
	return group, resource
}
