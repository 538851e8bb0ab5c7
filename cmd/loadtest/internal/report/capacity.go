package report

import (
	"fmt"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// Limits is what a rate has to keep to hold.
type Limits struct {
	P99     time.Duration // of the response time
	Failure float64       // share of the due requests that may not succeed, 0 to 1
}

// Capacity is the result of the search for the highest rate that holds.
type Capacity struct {
	RatePerSecond   float64 `json:"rate_per_second"` // 0: none
	P99LimitMS      float64 `json:"p99_limit_ms"`
	MaxFailureShare float64 `json:"max_failure_share"`
	MaxRate         float64 `json:"max_rate_per_second"`
	Steps           []Step  `json:"steps"`
}

// NewCapacity returns a search without any steps yet, of rates up to maxRate.
func NewCapacity(limits Limits, maxRate float64) *Capacity {
	return &Capacity{P99LimitMS: ms(limits.P99), MaxFailureShare: limits.Failure, MaxRate: maxRate}
}

// Step is one rate that was tried. Fault is why it does not hold, "" if it does.
type Step struct {
	RatePerSecond float64 `json:"rate_per_second"`
	Holds         bool    `json:"holds"`
	Fault         string  `json:"fault"`
	ByGenerator   bool    `json:"generator_fell_behind"`
	Due           uint64  `json:"due"`
	Succeeded     uint64  `json:"succeeded"`
	RateLimited   uint64  `json:"rate_limited"`
	Failed        uint64  `json:"failed"`
	Unsent        uint64  `json:"unsent"`
	P50MS         float64 `json:"p50_ms"`
	P99MS         float64 `json:"p99_ms"`
}

// NewStep judges a measurement.
func NewStep(m *Measurement, limits Limits) Step {
	s := m.Stats
	fault := m.fault(limits)
	return Step{
		RatePerSecond: m.Schedule[0].To, Holds: fault == "", Fault: fault, ByGenerator: fault != "" && m.generatorToBlame(limits),
		Due: m.due(), Succeeded: s.counts[Succeeded], RateLimited: s.counts[RateLimited], Failed: s.counts[Failed],
		Unsent: m.unsent(), P50MS: ms(s.response.at(50)), P99MS: ms(s.response.at(99)),
	}
}

// fault returns why a rate did not hold, "" if it did. Everything that was due and did not
// succeed counts against it: a 429 or a request that was never sent is not capacity.
func (m *Measurement) fault(limits Limits) string {
	missed := 1 - float64(m.Stats.counts[Succeeded])/float64(max(m.due(), 1))
	p99 := m.Stats.response.at(99)
	switch {
	case missed > limits.Failure:
		return text.Percent(missed) + " did not succeed"
	case p99 > limits.P99:
		return fmt.Sprintf("p99 %s is over %s", text.Duration(p99), text.Duration(limits.P99))
	}
	return ""
}

// generatorToBlame reports whether a rate would have held if the generator had kept up:
// enough of what it sent succeeded, and in time.
func (m *Measurement) generatorToBlame(limits Limits) bool {
	g, s := newGenerator(m, Settings{}), m.Stats
	refused := s.counts[RateLimited] + s.counts[Failed]
	return !g.KeptUp && g.Cause == CauseGenerator && s.service.at(99) <= limits.P99 &&
		float64(refused) <= limits.Failure*float64(s.counts.sent())
}

// String returns the step on one line.
func (s Step) String() string {
	verdict := "holds"
	if !s.Holds {
		verdict = "does not hold: " + s.Fault
	}
	if s.ByGenerator {
		verdict += ", but the generator itself could not keep up"
	}
	return fmt.Sprintf("%s/s: p50 %s, p99 %s, %s of %s succeeded: %s", text.Rate(s.RatePerSecond),
		text.Milliseconds(s.P50MS), text.Milliseconds(s.P99MS), text.Count(s.Succeeded), text.Count(s.Due), verdict)
}

// Summary returns the result of the search in a sentence or two.
func (c *Capacity) Summary() string {
	limits := fmt.Sprintf("p99 of at most %s, at most %s unsuccessful", text.Milliseconds(c.P99LimitMS), text.Percent(c.MaxFailureShare))
	rate, reason := text.Rate(c.RatePerSecond)+"/s", "The numbers below are for this rate."
	switch {
	case c.RatePerSecond == 0:
		return "Capacity: none of the rates tried holds (" + limits + "). The numbers below are for the last one."
	case c.RatePerSecond >= c.MaxRate:
		rate, reason = "at least "+rate, "--max-rate was reached. "+reason
	case c.spoiled():
		rate, reason = "at least "+rate, "At the next higher rate, the generator itself could not keep up. "+reason
	}
	return "Capacity: " + rate + " (" + limits + "). " + reason
}

// spoiled reports whether the lowest rate that did not hold says nothing about the server.
func (c *Capacity) spoiled() bool {
	var lowest Step
	for _, s := range c.Steps {
		if s.RatePerSecond > c.RatePerSecond && (lowest.RatePerSecond == 0 || s.RatePerSecond <= lowest.RatePerSecond) {
			lowest = s
		}
	}
	return lowest.ByGenerator
}
