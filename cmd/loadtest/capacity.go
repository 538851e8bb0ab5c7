package main

import (
	"context"

	"github.com/berth-project/berth/cmd/loadtest/internal/report"
	"github.com/berth-project/berth/cmd/loadtest/internal/schedule"
)

// findCapacity runs one step after the other until it knows the highest rate that holds, or
// ctx ends. A step that does not hold is run once more, because anything else that the
// machine does can spoil one. It returns the measurement at that rate, at the last rate tried
// if none held, and nil if not even one step was completed.
func (r *runner) findCapacity(ctx context.Context) (*report.Capacity, *report.Measurement) {
	c := r.config
	limits := report.Limits{P99: c.P99, Failure: c.MaxErrorShare}
	found := report.NewCapacity(limits, c.MaxRate)
	var best *report.Measurement
	for s := newSearch(c.MinRate, c.MaxRate); ; {
		m, holds := r.step(ctx, s.rate, limits, found)
		if m != nil && !holds {
			m, holds = r.step(ctx, s.rate, limits, found)
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

// step tries a rate and adds the outcome to found. It returns nil if ctx ends first.
func (r *runner) step(ctx context.Context, rate float64, limits report.Limits, found *report.Capacity) (m *report.Measurement, holds bool) {
	m = r.targets[0].generator.Run(ctx, schedule.Schedule{{From: rate, To: rate, Duration: r.config.StepDuration}}, r.progress)
	if m.Interrupted {
		return nil, false
	}
	one := report.NewStep(m, limits)
	found.Steps = append(found.Steps, one)
	r.progress.Note("%s", one)
	return m, one.Holds
}
