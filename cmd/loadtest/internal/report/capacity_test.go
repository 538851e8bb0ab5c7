package report

import (
	"strings"
	"testing"
)

func TestCapacitySummary(t *testing.T) {
	good, bad := Step{RatePerSecond: 50, Holds: true}, Step{RatePerSecond: 60}
	spoiled, far := Step{RatePerSecond: 60, ByGenerator: true}, Step{RatePerSecond: 100, ByGenerator: true}
	for name, test := range map[string]struct {
		rate  float64
		steps []Step
		want  string
	}{
		"none":                 {0, []Step{bad, bad}, "Capacity: none of the rates tried holds (p99 of at most 20.0 ms, at most 1.00 % unsuccessful)."},
		"found":                {50, []Step{good, far, far, bad, bad}, "Capacity: 50/s (p99 of at most 20.0 ms, at most 1.00 % unsuccessful). The numbers"},
		"by the generator":     {50, []Step{good, bad, spoiled}, "Capacity: at least 50/s (p99 of at most 20.0 ms, at most 1.00 % unsuccessful). At the next higher rate, the generator"},
		"all that was tried":   {200, []Step{good}, "Capacity: at least 200/s (p99 of at most 20.0 ms, at most 1.00 % unsuccessful). --max-rate was reached."},
		"ended after one step": {50, []Step{good}, "Capacity: 50/s"},
	} {
		c := &Capacity{RatePerSecond: test.rate, P99LimitMS: 20, MaxFailureShare: 0.01, MaxRate: 200, Steps: test.steps}
		if got := c.Summary(); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestStepText(t *testing.T) {
	s := Step{RatePerSecond: 100, Due: 1000, Succeeded: 990, P50MS: 1, P99MS: 60, Fault: "p99 60 ms is over 50 ms", ByGenerator: true}
	want := "100/s: p50 1.00 ms, p99 60.0 ms, 990 of 1,000 succeeded: does not hold: p99 60 ms is over 50 ms, but the generator itself could not keep up"
	if got := s.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.Holds, s.Fault, s.ByGenerator = true, "", false
	if got := s.String(); !strings.HasSuffix(got, "succeeded: holds") {
		t.Errorf("got %q", got)
	}
}
