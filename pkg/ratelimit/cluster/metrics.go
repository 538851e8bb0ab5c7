package cluster

import "github.com/prometheus/client_golang/prometheus"

// Outcomes of transactions.
const (
	taken    = "taken"    // tokens were taken
	returned = "returned" // what was not used was given back, or told
	conflict = "conflict" // another replica was first; it is tried again
	failed   = "failed"   // the store did not answer in time
)

type metrics struct {
	transactions  *prometheus.CounterVec
	registrations prometheus.Counter
	damaged       prometheus.Counter
}

// newMetrics registers them with r, or with nothing if r is nil.
func newMetrics(l *Limiter, r prometheus.Registerer) *metrics {
	m := &metrics{
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_ratelimit_transactions_total",
			Help: "Transactions of etcd for rate limits by outcome: taken, returned, conflict, failed.",
		}, []string{"outcome"}),
		registrations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "berth_ratelimit_registrations_total",
			Help: "Writes to etcd by which this server tells the others that it is there.",
		}),
		damaged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "berth_ratelimit_damaged_total",
			Help: "Stored buckets that could not be read, and count as empty.",
		}),
	}
	for _, outcome := range []string{taken, returned, conflict, failed} {
		m.transactions.WithLabelValues(outcome)
	}
	if r == nil {
		return m
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			l.mu.Lock()
			defer l.mu.Unlock()
			return float64(value())
		})
	}
	r.MustRegister(
		m.transactions, m.registrations, m.damaged,
		gauge("berth_ratelimit_buckets", "Buckets of tokens and users that this server knows.", func() int { return len(l.slots) }),
		gauge("berth_ratelimit_blocks_held", "Buckets of which this server holds tokens that it has taken in advance.", l.countHeld),
		gauge("berth_ratelimit_replicas", "Servers that share the buckets, as far as this one knows.", func() int { return l.peers.count() }),
		gauge("berth_ratelimit_degraded", "1 while etcd does not answer, and this server admits its share alone; else 0.", func() int {
			if l.failed {
				return 1
			}
			return 0
		}),
	)
	return m
}

// countHeld counts the buckets of which the replica holds something. l.mu must be held.
func (l *Limiter) countHeld() (n int) {
	for _, b := range l.slots {
		if b.block != nil || b.extra >= 1 {
			n++
		}
	}
	return n
}
