package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// WatchSubject is what a condition on watches begins with.
const WatchSubject = "watch"

// timeMetrics are what a condition can ask of a distribution.
var timeMetrics = []struct {
	name string
	of   func(*Times) float64
}{
	{"mean", func(t *Times) float64 { return t.Mean }},
	{"p50", func(t *Times) float64 { return t.P50 }},
	{"p90", func(t *Times) float64 { return t.P90 }},
	{"p95", func(t *Times) float64 { return t.P95 }},
	{"p99", func(t *Times) float64 { return t.P99 }},
	{"p99.9", func(t *Times) float64 { return t.P999 }},
	{"max", func(t *Times) float64 { return t.Max }},
}

// errorsMetric is the share of the requests that failed, or of the expected events that did
// not come.
const errorsMetric = "errors"

// Condition is what fails a run: something measured is above a limit.
type Condition struct {
	Subject string // a verb, WatchSubject, or "" for all requests
	metric  string // errorsMetric, or the name of one of timeMetrics
	limit   float64
	text    string
}

// ParseCondition parses a condition such as "p99>50ms", "create.p99>50ms", "watch.p99>1s"
// or "errors>0.1%".
func ParseCondition(condition string, verbs []string) (Condition, error) {
	left, right, found := strings.Cut(condition, ">")
	if !found {
		return Condition{}, fmt.Errorf("%q is not of the form p99>50ms, create.p99>50ms or errors>0.1%%", condition)
	}
	left, right = strings.TrimSpace(left), strings.TrimSpace(right)
	c := Condition{metric: left, text: left + ">" + right}
	if subject, metric, dotted := strings.Cut(left, "."); dotted && left != "p99.9" {
		c.Subject, c.metric = subject, metric
	}
	if subjects := append(slices.Clone(verbs), WatchSubject); c.Subject != "" && !slices.Contains(subjects, c.Subject) {
		return Condition{}, fmt.Errorf("%q: %q is not one of %s", condition, c.Subject, strings.Join(subjects, ", "))
	}
	if c.metric == errorsMetric {
		percent, isPercent := strings.CutSuffix(right, "%")
		value, err := strconv.ParseFloat(percent, 64)
		if err != nil || !isPercent || !(value >= 0 && value <= 100) {
			return Condition{}, fmt.Errorf("%q: %q is not a percentage such as 0.1%%", condition, right)
		}
		c.limit = value / 100
		return c, nil
	}
	if c.times() == nil {
		names := []string{errorsMetric}
		for _, m := range timeMetrics {
			names = append(names, m.name)
		}
		return Condition{}, fmt.Errorf("%q: %q is not one of %s", condition, c.metric, strings.Join(names, ", "))
	}
	limit, err := time.ParseDuration(right)
	if err != nil || limit < 0 {
		return Condition{}, fmt.Errorf("%q: %q is not a time such as 50ms", condition, right)
	}
	c.limit = ms(limit)
	return c, nil
}

// String returns the condition without spaces.
func (c Condition) String() string { return c.text }

// times returns what the condition asks of a distribution, nil if it is about errors.
func (c Condition) times() func(*Times) float64 {
	for _, m := range timeMetrics {
		if m.name == c.metric {
			return m.of
		}
	}
	return nil
}

// Check is what became of a condition. Failed means that it holds, or that there is nothing
// to tell it from; Milliseconds and Share are then both nil.
type Check struct {
	Condition    string   `json:"condition"`
	Milliseconds *float64 `json:"time_ms,omitempty"`
	Share        *float64 `json:"share,omitempty"`
	Failed       bool     `json:"failed"`
}

// Check adds what became of conditions to the report.
func (rep *Report) Check(conditions []Condition) {
	for _, c := range conditions {
		check := Check{Condition: c.text, Failed: true}
		times, failed, all := rep.subject(c.Subject)
		if of := c.times(); of == nil && all > 0 {
			share := float64(failed) / float64(all)
			check.Share, check.Failed = &share, share > c.limit
		} else if of != nil && times.Count > 0 {
			value := of(&times)
			check.Milliseconds, check.Failed = &value, value > c.limit
		}
		rep.Checks = append(rep.Checks, check)
	}
}

// subject returns the times of what a condition is about, and how many of all failed.
func (rep *Report) subject(name string) (times Times, failed, all uint64) {
	switch {
	case name == "":
		return rep.Response, rep.Requests.Failed, rep.Requests.Sent
	case name == WatchSubject && rep.Watch != nil:
		w := rep.Watch
		return w.Delay, w.Expected - min(w.Events, w.Expected), w.Expected
	}
	for _, v := range rep.Verbs {
		if v.Verb == name {
			return v.Response, v.Failed, v.Sent
		}
	}
	return Times{}, 0, 0
}

// Value returns what was measured, for people.
func (c Check) Value() string {
	switch {
	case c.Milliseconds != nil:
		return text.Milliseconds(*c.Milliseconds)
	case c.Share != nil:
		return text.Percent(*c.Share)
	}
	return "nothing was measured"
}

// String returns the check on one line.
func (c Check) String() string { return c.Condition + ": " + c.Value() }
