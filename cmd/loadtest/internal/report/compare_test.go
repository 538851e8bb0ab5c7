package report

import (
	"slices"
	"testing"
)

// rounds returns a report whose rounds have these medians for get, and other ones for all
// requests.
func rounds(medians ...float64) *Report {
	rep := &Report{Response: Times{Count: 9, P50: 5, P99: 50}, Verbs: []Verb{{Verb: "get", Response: Times{Count: 9, P50: 4, P99: 40}}}}
	rep.Generator.KeptUp = true
	for _, m := range medians {
		rep.Phases = append(rep.Phases, Phase{Response: Times{Count: 1, P50: 5}, Verbs: []PhaseVerb{{"get", Times{Count: 1, P50: m}}}})
	}
	return rep
}

func TestCompareRounds(t *testing.T) {
	low, high, mixed := []float64{1, 1.1, 1.2, 1.3, 1.4, 1.5}, []float64{2, 2.1, 2.2, 2.3, 2.4, 2.5}, []float64{1, 2.1, 1.2, 2.3, 1.4, 2.5}
	for name, test := range map[string]struct {
		a, b   []float64
		faster string
		words  string
	}{
		"a is":                       {low, high, "a", "A is faster (p=0.002)"},
		"b is":                       {high, low, "b", "B is faster (p=0.002)"},
		"neither":                    {low, slices.Clone(low), "", "no clear difference (p=1.000)"},
		"all the same":               {[]float64{1, 1}, []float64{1, 1}, "", "no clear difference (p=1.000)"},
		"not clear":                  {low, mixed, "", "no clear difference (p=0.262)"},
		"too few for so many rows":   {low[:4], high[:4], "", "no clear difference (p=0.029)"},
		"some rounds without a time": {nil, high, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := Compare(rounds(test.a...), rounds(test.b...), [2]string{"a", "b"}, true)
			if len(c.Rows) != 2 || c.Rows[0].Name != "all requests" || c.Rows[1].Name != "get" {
				t.Fatalf("the rows are %+v", c.Rows)
			}
			if got := c.Rows[1]; got.Faster != test.faster || got.Verdict() != test.words {
				t.Errorf("got %q, %q, want %q, %q", got.Faster, got.Verdict(), test.faster, test.words)
			}
			if c.Rows[0].Faster != "" {
				t.Errorf("of all requests, %s is faster", c.Rows[0].Faster)
			}
		})
	}
	// Without rounds, the times are those of the whole runs.
	c := Compare(rounds(low...), rounds(high...), [2]string{"a", "b"}, false)
	if got, want := c.Rows[1], (ComparisonRow{Name: "get", P50: Pair{A: 4, B: 4}, P99: Pair{A: 40, B: 40}}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
