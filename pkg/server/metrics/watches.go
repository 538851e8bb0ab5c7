package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Why a watch ended.
const (
	ClientGone = "client gone"
	Timeout    = "timeout"  // its time is over
	Revoked    = "revoked"  // its token is no longer valid, or no longer for that user
	TooOld     = "too old"  // changes are gone that it has not seen
	TooSlow    = "too slow" // its client does not read, or not fast enough
	Shutdown   = "shutdown" // the server stops
	Failed     = "error"
)

var endReasons = []string{ClientGone, Timeout, Revoked, TooOld, TooSlow, Shutdown, Failed}

// watches are the families of watches.
type watches struct {
	open                      *prometheus.GaugeVec
	events, terminated, ended *prometheus.CounterVec
	eventSizes, listDuration  *prometheus.HistogramVec
}

func newWatches(factory promauto.Factory) watches {
	return watches{
		open: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests",
			Help: "Watches that are open now.",
		}, requestLabels),
		events: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_watch_events_total",
			Help: "Events sent to clients that watch, bookmarks included.",
		}, versionLabels),
		eventSizes: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_watch_events_sizes",
			Help:    "Bytes of the events sent to clients that watch, before compression.",
			Buckets: prometheus.ExponentialBuckets(1024, 2, 8),
		}, versionLabels),
		listDuration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_watch_list_duration_seconds",
			Help:    "Time from the arrival of a streamed list to the bookmark that ends it, in seconds.",
			Buckets: append(append([]float64{}, sliBuckets...), 90, 120, 180, 300),
		}, append([]string{"scope"}, versionLabels...)),
		terminated: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_terminated_watchers_total",
			Help: "Watches that were cut off since their clients did not read, or not fast enough.",
		}, resourceLabels),
		ended: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_watches_ended_total",
			Help: "Watches that have ended, by the reason.",
		}, append([]string{"reason"}, resourceLabels...)),
	}
}

func (w *watches) showZero(resource metav1.APIResource) {
	w.terminated.WithLabelValues(resource.Group, resource.Name)
	for _, reason := range endReasons {
		w.ended.WithLabelValues(reason, resource.Group, resource.Name)
	}
}

// Watch is one watch that is open.
type Watch struct {
	Events     prometheus.Counter
	EventSizes prometheus.Observer

	m       *watches
	request Request
	open    prometheus.Gauge
}

// OpenWatch counts a watch until its End. single says that it is of one object alone.
func (m *Metrics) OpenWatch(r Request, single bool) *Watch {
	version := []string{r.Group, r.Version, r.Resource}
	counted := r
	if single {
		counted.Scope = "resource"
	}
	w := &Watch{
		m: &m.watches, request: r, open: m.watches.open.WithLabelValues(counted.labels()...),
		Events: m.watches.events.WithLabelValues(version...), EventSizes: m.watches.eventSizes.WithLabelValues(version...),
	}
	w.open.Inc()
	return w
}

// Listed counts a streamed list that has ended after so many seconds.
func (w *Watch) Listed(seconds float64) {
	r := &w.request
	w.m.listDuration.WithLabelValues(r.Scope, r.Group, r.Version, r.Resource).Observe(seconds)
}

// End counts the end of the watch.
func (w *Watch) End(reason string) {
	w.open.Dec()
	w.m.ended.WithLabelValues(reason, w.request.Group, w.request.Resource).Inc()
	if reason == TooSlow {
		w.m.terminated.WithLabelValues(w.request.Group, w.request.Resource).Inc()
	}
}
