package iam

import "github.com/prometheus/client_golang/prometheus"

// Outcomes of log-ins.
const (
	outcomeSuccess = "success"
	outcomeRefused = "refused" // what was shown is not right
	outcomeLocked  = "locked"
	outcomeLimited = "limited"
	outcomeFailed  = "failed" // the store did not answer
)

type metrics struct {
	tokens  prometheus.GaugeFunc
	logins  *prometheus.CounterVec
	lookups prometheus.Counter
	revoked prometheus.Counter
}

func newMetrics(s *Service) *metrics {
	m := &metrics{
		tokens: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "berth_iam_tokens",
			Help: "Tokens of the token service that are stored.",
		}, func() float64 { return float64(s.count()) }),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_iam_logins_total",
			Help: "Log-ins at the token service by outcome: success, refused, locked, limited, failed.",
		}, []string{"outcome"}),
		lookups: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "berth_iam_token_lookups_total",
			Help: "Questions to etcd about tokens that this server did not know; those asked at the same time share one.",
		}),
		revoked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "berth_iam_revocations_total",
			Help: "Tokens that clients have revoked at this server.",
		}),
	}
	for _, outcome := range []string{outcomeSuccess, outcomeRefused, outcomeLocked, outcomeLimited, outcomeFailed} {
		m.logins.WithLabelValues(outcome)
	}
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.tokens, m.logins, m.lookups, m.revoked}
}
