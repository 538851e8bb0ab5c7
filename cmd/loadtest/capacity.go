package main

import (
	"context"
	"fmt"
)

// findCapacity runs one step after the other until it knows the highest rate that holds, or
// ctx ends. A step that does not hold is run once more, for what else the machine does can
// spoil one. It returns the measurement at that rate, or at the last one tried if none held,
// and nil if not even one step came to its end.
func (r *runner) findCapacity(ctx context.Context) (*capacityReport, *measurement) {
	c := r.config
	found := &capacityReport{P99LimitMS: ms(c.P99), MaxFailureShare: c.MaxErrorShare, MaxRate: c.MaxRate}
	var best *measurement
	for s := newSearch(c.MinRate, c.MaxRate); ; {
		m, holds := r.step(ctx, s.rate, found)
		if m != nil && !holds {
			m, holds = r.step(ctx, s.rate, found)
		}
		if m == nil {
			return found, best
		}
		more := s.tried(holds)
		if holds || s.held == 0 {
			best = m
		}
		found.RatePerSecond = s.held
		if !more {
			return found, best
		}
	}
}

// step tries a rate and adds the outcome to found. It returns nil when ctx ends before.
func (r *runner) step(ctx context.Context, rate float64, found *capacityReport) (m *measurement, holds bool) {
	m = r.attack(ctx, schedule{start: rate, rate: rate, duration: r.config.StepDuration})
	if m.interrupted {
		return nil, false
	}
	one := newStepReport(m, r.judge(m))
	one.ByGenerator = !one.Holds && r.generatorToBlame(m)
	found.Steps = append(found.Steps, one)
	r.progress.note("%s", one)
	return m, one.Holds
}

// judge says why a rate did not hold, "" if it did. Everything that was due and did not
// succeed counts against it: a request that got a 429 or was never sent is no capacity.
func (r *runner) judge(m *measurement) string {
	missed := 1 - float64(m.stats.counts[succeeded])/float64(max(m.due, 1))
	p99 := m.stats.response.at(99)
	switch {
	case missed > r.config.MaxErrorShare:
		return shareText(missed) + " did not succeed"
	case p99 > r.config.P99:
		return fmt.Sprintf("p99 %s is over %s", timeText(p99), timeText(r.config.P99))
	}
	return ""
}

// generatorToBlame reports whether a rate would have held if the generator had kept up: of
// what it sent, enough succeeded, and in time.
func (r *runner) generatorToBlame(m *measurement) bool {
	g, s := newGenerator(m, r.config), m.stats
	refused := s.counts[rateLimited] + s.counts[failed]
	return !g.KeptUp && g.Cause == causeGenerator && s.service.at(99) <= r.config.P99 &&
		float64(refused) <= r.config.MaxErrorShare*float64(s.counts.sent())
}

// String is the step on one line.
func (s stepReport) String() string {
	verdict := "holds"
	if !s.Holds {
		verdict = "does not hold: " + s.Fault
	}
	if s.ByGenerator {
		verdict += ", but the generator itself could not keep up"
	}
	return fmt.Sprintf("%s/s: p50 %s, p99 %s, %s of %s succeeded: %s", rateText(s.RatePerSecond),
		msText(s.P50MS), msText(s.P99MS), grouped(s.Succeeded), grouped(s.Due), verdict)
}

// Summary is the result of the search in a sentence or two.
func (c *capacityReport) Summary() string {
	limits := fmt.Sprintf("p99 of at most %s, at most %s without success", msText(c.P99LimitMS), shareText(c.MaxFailureShare))
	rate, reason := rateText(c.RatePerSecond)+"/s", "The numbers below are of this rate."
	switch {
	case c.RatePerSecond == 0:
		return "Capacity: no rate that was tried holds (" + limits + "). The numbers below are of the last one."
	case c.RatePerSecond >= c.MaxRate:
		rate, reason = "at least "+rate, "--max-rate was reached. "+reason
	case c.spoiled():
		rate, reason = "at least "+rate, "At the next higher rate, the generator itself could not keep up. "+reason
	}
	return "Capacity: " + rate + " (" + limits + "). " + reason
}

// spoiled reports whether the lowest rate that did not hold says nothing of the server.
func (c *capacityReport) spoiled() bool {
	var lowest stepReport
	for _, s := range c.Steps {
		if s.RatePerSecond > c.RatePerSecond && (lowest.RatePerSecond == 0 || s.RatePerSecond <= lowest.RatePerSecond) {
			lowest = s
		}
	}
	return lowest.ByGenerator
}
