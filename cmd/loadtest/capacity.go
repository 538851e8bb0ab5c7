package main

import (
	"context"
	"fmt"
)

// findCapacity runs one step after the other until it knows the highest rate that holds, or
// ctx ends. It returns the measurement at that rate, or at the last one tried if none held,
// and nil if not even one step came to its end.
func (r *runner) findCapacity(ctx context.Context) (*capacityReport, *measurement) {
	c := r.config
	found := &capacityReport{P99LimitMS: ms(c.P99), MaxFailureShare: c.MaxErrorShare}
	var best *measurement
	for s := newSearch(c.MinRate, c.MaxRate); ; {
		m := r.attack(ctx, schedule{start: s.rate, rate: s.rate, duration: c.StepDuration})
		if m.interrupted {
			return found, best
		}
		fault := r.judge(m)
		found.Steps = append(found.Steps, newStepReport(m, fault))
		r.progress.note("%s", found.Steps[len(found.Steps)-1])
		more := s.tried(fault == "")
		if fault == "" || s.held == 0 {
			best = m
		}
		found.RatePerSecond = s.held
		if !more {
			return found, best
		}
	}
}

// judge says why a rate did not hold, "" if it did. Everything that was due and did not
// succeed counts against it: a request that got a 429 or was never sent is no capacity.
func (r *runner) judge(m *measurement) string {
	missed := 1 - float64(m.stats.counts[succeeded])/float64(max(m.due, 1))
	p99 := m.stats.response.at(99)
	var fault string
	switch {
	case missed > r.config.MaxErrorShare:
		fault = shareText(missed) + " did not succeed"
	case p99 > r.config.P99:
		fault = fmt.Sprintf("p99 %s is over %s", timeText(p99), timeText(r.config.P99))
	default:
		return ""
	}
	if g := newGenerator(m, r.config); !g.KeptUp && g.Cause == causeGenerator {
		fault += ", but the generator itself could not keep up"
	}
	return fault
}

// String is the step on one line.
func (s stepReport) String() string {
	verdict := "holds"
	if !s.Holds {
		verdict = "does not hold: " + s.Fault
	}
	return fmt.Sprintf("%s/s: p50 %s, p99 %s, %s of %s succeeded: %s", rateText(s.RatePerSecond),
		msText(s.P50MS), msText(s.P99MS), grouped(s.Succeeded), grouped(s.Due), verdict)
}
