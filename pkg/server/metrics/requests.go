package metrics

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Request is a request's labels. Clients must not be able to add values of their own.
type Request struct {
	Verb, DryRun                                            string
	Group, Version, Resource, Subresource, Scope, Component string
}

func (r *Request) labels() []string {
	return []string{r.Verb, r.Group, r.Version, r.Resource, r.Subresource, r.Scope, r.Component}
}

// Ended is how a request ended.
type Ended struct {
	Request
	Code     int
	Duration time.Duration
	Answer   int64 // bytes of the answer
	Body     int   // bytes of the body; -1: it was not read whole
	Cut      bool  // whether it was cut off in the middle of its answer or its body
	TimedOut bool  // whether its time has ended
}

// requests are the families of requests. The series of a request are looked up once, in a table
// that is no larger than the number of label values.
type requests struct {
	total, terminations, aborts             *prometheus.CounterVec
	duration, sli, responseSizes, bodySizes *prometheus.HistogramVec

	mu    sync.RWMutex
	table map[Request]*series
}

// series are those of requests with the same labels.
type series struct {
	codes       map[int]prometheus.Counter
	*histograms // nil until a request has been more than rejected
}

// histograms that are not for requests of the kind are nil.
type histograms struct{ duration, sli, responseSize, bodySize prometheus.Observer }

func newRequests(factory promauto.Factory) requests {
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return factory.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	and := func(more ...string) []string { return append(more, requestLabels...) }
	return requests{
		table: map[Request]*series{},
		total: counter("apiserver_request_total",
			"Requests that have reached what they ask for or a limit, by verb, dry run value, group, version, resource, subresource, scope, component and HTTP status code.", and("code", "dry_run")...),
		terminations: counter("apiserver_request_terminations_total",
			"Requests that the server ended to protect itself: refused by a limit (429), or out of time (504).", and("code")...),
		aborts: counter("apiserver_request_aborts_total",
			"Requests whose answer or body was cut off, because the client went or was too slow, or the server could not finish the answer.",
			"verb", "group", "version", "resource", "subresource", "scope"),
		duration: histogram("apiserver_request_duration_seconds",
			"Time from a request's arrival to the end of its answer, in seconds.", longBuckets, and("dry_run")...),
		sli: histogram("apiserver_request_sli_duration_seconds",
			"Time from a request's arrival to the end of its answer, in seconds, without watches and dry runs.", sliBuckets, requestLabels...),
		responseSizes: histogram("apiserver_response_sizes",
			"Bytes of the answers to GET and LIST.", prometheus.ExponentialBuckets(1000, 10, 7), requestLabels...),
		bodySizes: histogram("apiserver_request_body_size_bytes",
			"Bytes of the bodies of writes.", prometheus.LinearBuckets(50_000, 100_000, 31), "group", "resource", "verb"),
	}
}

// ShowZero exports counters of failures, and the histograms of lists, before there are any: a
// counter that appears with 1 has not increased, and rules about availability need them all.
func (m *Metrics) ShowZero(resource metav1.APIResource) {
	r := Request{Group: resource.Group, Version: resource.Version, Resource: resource.Name, Component: "apiserver"}
	show := func(verb, counted, scope string) {
		if !slices.Contains(resource.Verbs, verb) {
			return
		}
		r.Verb, r.Scope = counted, scope
		for _, code := range []int{500, 503, 504} {
			m.requests.of(r, code, false)
		}
		if verb == "list" {
			m.requests.sli.WithLabelValues(r.labels()...)
		}
	}
	for verb, counted := range map[string]string{"get": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"} {
		show(verb, counted, "resource")
	}
	show("list", "LIST", "cluster")
	if resource.Namespaced {
		show("list", "LIST", "namespace")
	}
	if slices.Contains(resource.Verbs, "watch") {
		m.watches.showZero(resource)
	}
}

// Observe counts a request that has ended.
func (m *Metrics) Observe(e *Ended) {
	r := &m.requests
	rejected := e.Code == 429
	total, observed := r.of(e.Request, e.Code, !rejected)
	total.Inc()
	if e.Cut {
		r.aborts.WithLabelValues(e.Verb, e.Group, e.Version, e.Resource, e.Subresource, e.Scope).Inc()
	}
	if rejected || e.TimedOut && e.Code == 504 {
		r.terminations.WithLabelValues(append([]string{strconv.Itoa(e.Code)}, e.labels()...)...).Inc()
	}
	if rejected {
		return
	}
	observed.duration.Observe(e.Duration.Seconds())
	if observed.sli != nil {
		observed.sli.Observe(e.Duration.Seconds())
	}
	if observed.responseSize != nil {
		observed.responseSize.Observe(float64(e.Answer))
	}
	if observed.bodySize != nil && e.Body >= 0 {
		observed.bodySize.Observe(float64(e.Body))
	}
}

// of returns the series of a request, with histograms if observed is set.
func (r *requests) of(request Request, code int, observed bool) (prometheus.Counter, *histograms) {
	r.mu.RLock()
	if s := r.table[request]; s != nil && s.codes[code] != nil && (s.histograms != nil || !observed) {
		defer r.mu.RUnlock()
		return s.codes[code], s.histograms
	}
	r.mu.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.table[request]
	if s == nil {
		s = &series{codes: map[int]prometheus.Counter{}}
		r.table[request] = s
	}
	if s.codes[code] == nil {
		s.codes[code] = r.total.WithLabelValues(append([]string{strconv.Itoa(code), request.DryRun}, request.labels()...)...)
	}
	if s.histograms == nil && observed {
		s.histograms = r.histogramsOf(&request)
	}
	return s.codes[code], s.histograms
}

func (r *requests) histogramsOf(request *Request) *histograms {
	labels := request.labels()
	h := &histograms{duration: r.duration.WithLabelValues(append([]string{request.DryRun}, labels...)...)}
	if request.DryRun == "" && request.Verb != "WATCH" {
		h.sli = r.sli.WithLabelValues(labels...)
	}
	if request.Verb == "GET" || request.Verb == "LIST" {
		h.responseSize = r.responseSizes.WithLabelValues(labels...)
	}
	if verb := bodyVerbs[request.Verb]; verb != "" {
		if request.Verb == "DELETE" && request.Scope != "resource" {
			verb = "delete_collection"
		}
		h.bodySize = r.bodySizes.WithLabelValues(request.Group, request.Resource, verb)
	}
	return h
}

// bodyVerbs are the verbs that the sizes of bodies are counted by.
var bodyVerbs = map[string]string{"POST": "create", "PUT": "update", "PATCH": "patch", "APPLY": "patch", "DELETE": "delete"}
