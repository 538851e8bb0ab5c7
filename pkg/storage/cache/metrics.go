package cache

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics have the names and buckets of kube-apiserver's watch cache.
type metrics struct {
	received, stored, dispatched prometheus.Counter
	fills                        prometheus.Counter
	fillDuration, readWait       prometheus.Observer
	toCache, toWatcher, total    prometheus.Observer
}

// versionDigits bounds the revision as a gauge, which has no room for more digits; it is
// kube-apiserver's.
const versionDigits = 1_000_000_000_000_000

// newMetrics registers them with r, or with nothing if r is nil.
func newMetrics[T any](c *Cache[T], r prometheus.Registerer) metrics {
	factory := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return factory.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string, value func() float64) {
		factory.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	histogram := func(name, help string, buckets ...float64) prometheus.Observer {
		return factory.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	dispatch := factory.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "apiserver_watch_events_dispatch_duration_seconds",
		Help:    "Time from when an event came from etcd until the cache has it, from then until a watch takes it, and both together, in seconds.",
		Buckets: []float64{.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	}, []string{"stage"})
	gauge("apiserver_watch_cache_resource_version", "The revision of etcd that the cache has reached, its last 15 digits.", func() float64 {
		revision, _ := c.Revision()
		return float64(revision % versionDigits)
	})
	gauge("apiserver_resource_objects", "Objects that are stored; -1: they are not known.", func() float64 { return float64(c.keys()) })
	gauge("apiserver_resource_size_estimate_bytes", "Bytes of the keys and values of the objects in etcd.", func() float64 { return float64(c.storedBytes.Load()) })
	return metrics{
		stored:       counter("apiserver_storage_events_received_total", "Events received from etcd."),
		received:     counter("apiserver_watch_cache_events_received_total", "Events that the cache has received."),
		dispatched:   counter("apiserver_watch_cache_events_dispatched_total", "Events that watches have taken from the cache."),
		fills:        counter("apiserver_watch_cache_initializations_total", "How often the cache was filled."),
		fillDuration: histogram("apiserver_watch_cache_initialization_duration_seconds", "Time to fill the cache, in seconds.", .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 180, 600),
		readWait:     histogram("apiserver_watch_cache_read_wait_seconds", "Time that reads waited until the cache was new enough, in seconds.", .005, .025, .05, .1, .2, .4, .6, .8, 1, 1.25, 1.5, 2, 3),
		toCache:      dispatch.WithLabelValues("storage_to_cache"),
		toWatcher:    dispatch.WithLabelValues("cache_to_watcher"),
		total:        dispatch.WithLabelValues("total"),
	}
}

// keys returns the number of keys, -1 if the cache is not filled.
func (c *Cache[T]) keys() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.tree == nil {
		return -1
	}
	return c.tree.Len()
}

// taken counts events that a watcher has taken. Those from before the cache was filled never came
// from the store's watch, and have no times.
func (c *Cache[T]) taken(events []*Event[T]) {
	if len(events) == 0 {
		return
	}
	c.metrics.dispatched.Add(float64(len(events)))
	now := time.Since(c.begun)
	for _, event := range events {
		if event.cached > 0 {
			c.metrics.toWatcher.Observe((now - event.cached).Seconds())
			c.metrics.total.Observe((now - event.came).Seconds())
		}
	}
}
