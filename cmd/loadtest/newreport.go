package main

import (
	"fmt"
	"time"
)

// newReport puts a measurement into numbers. found is nil but for a search.
func newReport(r *runner, version string, m *measurement, found *capacityReport) *report {
	s := m.stats
	s.mu.Lock()
	defer s.mu.Unlock()
	rep := &report{
		Tool:        userAgent,
		Command:     r.command,
		Server:      serverReport{r.access.server, version},
		Started:     m.began.UTC().Truncate(time.Millisecond),
		Settings:    newSettings(r, m.schedule),
		Seconds:     m.elapsed.Round(time.Millisecond).Seconds(),
		Interrupted: m.interrupted,
		Requests: requestsReport{
			Due: m.due, Sent: s.counts.sent(), Unsent: m.unsent(), HeldBack: s.counts[heldBack],
			Succeeded: s.counts[succeeded], RateLimited: s.counts[rateLimited], Failed: s.counts[failed],
			SwappedDelete: r.workload.swappedDeletes(), BytesSent: s.sent, BytesReceived: s.received,
		},
		Rates: ratesReport{
			Asked:     perSecond(m.due, m.elapsed),
			Sent:      perSecond(s.counts.sent(), m.elapsed),
			Succeeded: perSecond(s.counts[succeeded], m.elapsed),
		},
		Generator:  newGenerator(m, r.config),
		Response:   newTimesReport(s.response),
		Service:    newTimesReport(s.service),
		StartDelay: newTimesReport(s.delay),
		Verbs:      newVerbs(s),
		Tokens:     newTokens(s),
		Errors:     newErrors(s.faults),
		Watch:      newWatchReport(s, r.config.Watchers),
		Capacity:   found,
		Histogram:  newHistogram(s.response, s.service),
		Intervals:  newIntervals(m),
	}
	if n := s.counts.sent(); n > 0 {
		rep.ErrorShare = float64(s.counts[failed]) / float64(n)
	}
	if s.refused.count() > 0 {
		refused := newTimesReport(s.refused)
		rep.Refused = &refused
	}
	return rep
}

func perSecond(n uint64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(int64(float64(n)/d.Seconds()*1000+0.5)) / 1000
}

func newSettings(r *runner, s schedule) settingsReport {
	c := r.config
	return settingsReport{
		RatePerSecond: s.rate, StartRatePerSecond: s.start, RampSeconds: s.ramp.Seconds(), DurationSeconds: s.duration.Seconds(),
		Mix: c.Mix.String(), Objects: c.Objects, Addresses: c.Addresses, Tokens: len(r.access.tokens),
		HonorRetryAfter: c.HonorRetryAfter, Connections: c.Connections, MaxWorkers: c.MaxWorkers, HTTP2: c.HTTP2,
		TimeoutSeconds: c.Timeout.Seconds(), Watchers: c.Watchers, WatchGzip: c.WatchGzip,
		Namespace: c.Namespace, Seed: c.Seed, MaxErrorShare: c.MaxErrorShare,
	}
}

// Causes of a generator that could not keep up.
const (
	causeGenerator   = "generator"
	causeWorkers     = "workers"
	causeConnections = "connections"
)

// keptUpShare is how many of the requests may begin late, or be missing at the end, before
// the generator counts as one that could not keep up.
const keptUpShare = 0.01

// generatorReport says whether the requests went out when they were due.
type generatorReport struct {
	KeptUp bool   `json:"kept_up"`
	Late   uint64 `json:"late_requests"`
	// Cause is what most of the late ones waited for: a cause above, "" if none was late.
	Cause   string `json:"cause"`
	Message string `json:"message"`
}

func newGenerator(m *measurement, c *config) generatorReport {
	late, unsent := m.stats.late, m.unsent()
	g := generatorReport{Late: late.total()}
	sent := m.stats.counts.sent()
	share := float64(g.Late) / float64(max(sent, 1))
	g.KeptUp = share <= keptUpShare && float64(unsent) <= keptUpShare*float64(m.due)
	reason := ""
	switch {
	case g.Late == 0 && unsent == 0:
	case late.workers > 0 && late.workers >= max(late.connections, late.generator):
		g.Cause, reason = causeWorkers, fmt.Sprintf("all %s workers (--max-workers) were waiting for answers", grouped(c.MaxWorkers))
	case late.connections > 0 && late.connections >= late.generator:
		g.Cause, reason = causeConnections, fmt.Sprintf("they waited for one of the %s connections (--connections)", grouped(c.Connections))
	default:
		g.Cause, reason = causeGenerator, "this machine had no time for the generator"
	}
	missed := fmt.Sprintf("%s of the requests began more than %d ms late", shareText(share), lateAfter.Milliseconds())
	if g.KeptUp {
		g.Message = "The generator kept up: " + missed + "."
		return g
	}
	if unsent > 0 {
		missed += fmt.Sprintf(" and %s were never sent", grouped(unsent))
	}
	g.Message = "The generator could not keep up: " + missed + ", most because " + reason + ". Response times include this wait, service times do not."
	return g
}

func newVerbs(s *stats) []verbReport {
	all := []verbReport{}
	for v, one := range s.verbs {
		if one.sent() == 0 {
			continue
		}
		all = append(all, verbReport{
			Verb: verb(v).String(), Sent: one.sent(), Succeeded: one.counts[succeeded],
			RateLimited: one.counts[rateLimited], Failed: one.counts[failed],
			Response: newTimesReport(one.response), Service: newTimesReport(one.service),
		})
	}
	return all
}

func newTokens(s *stats) []tokenReport {
	all := []tokenReport{}
	for i, one := range s.tokens {
		t := tokenReport{Token: tokenName(i), Codes: map[string]uint64{}, HeldBack: one.heldBack}
		for code, n := range one.codes {
			t.Codes[statusName(code)] = n
		}
		all = append(all, t)
	}
	return all
}

func newErrors(f faults) []errorReport {
	all := []errorReport{}
	for _, kind := range f.kinds() {
		all = append(all, errorReport{kind, f[kind].count, f[kind].message})
	}
	return all
}

func newWatchReport(s *stats, watchers int) *watchReport {
	if watchers == 0 {
		return nil
	}
	w := s.watch
	return &watchReport{
		Watchers: watchers, Events: w.events, Expected: s.written * uint64(watchers), Unmatched: w.unmatched,
		Reopened: w.reopened, Expired: w.expired, BytesReceived: s.watchReceived.Load(),
		Delay: newTimesReport(w.delay), Errors: newErrors(w.faults),
	}
}

func newIntervals(m *measurement) []intervalReport {
	all := []intervalReport{}
	for i, one := range m.stats.intervals {
		start := time.Duration(i) * m.stats.length
		due := m.schedule.dueBy(start+m.stats.length) - m.schedule.dueBy(start)
		row := intervalReport{Start: start.Seconds(), Seconds: m.stats.length.Seconds(), Asked: perSecond(due, m.stats.length)}
		if one != nil {
			row.Succeeded, row.RateLimited = one.counts[succeeded], one.counts[rateLimited]
			row.Failed, row.HeldBack = one.counts[failed], one.counts[heldBack]
			row.P50, row.P90, row.P99 = percentile(one.response, 50), percentile(one.response, 90), percentile(one.response, 99)
			row.ServiceP99 = percentile(one.service, 99)
			row.Events, row.WatchP50, row.WatchP99 = one.events, percentile(one.delay, 50), percentile(one.delay, 99)
		}
		all = append(all, row)
	}
	return all
}

// percentile is in milliseconds, nil where there is nothing.
func percentile(t *times, percent float64) *float64 {
	if t == nil || t.count() == 0 {
		return nil
	}
	value := ms(t.at(percent))
	return &value
}
