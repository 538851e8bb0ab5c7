package report

import (
	"strings"
	"testing"
)

func TestCondition(t *testing.T) {
	rep := Report{
		Requests: Requests{Sent: 1000, Failed: 5},
		Response: Times{Count: 995, Mean: 3, P50: 2, P90: 5, P95: 7, P99: 60, P999: 90, Max: 100},
		Verbs:    []Verb{{Verb: "get", Sent: 10, Failed: 10}, {Verb: "list", Sent: 5, Response: Times{Count: 5, P99: 7}}},
		Watch:    &Watch{Events: 90, Expected: 100, Delay: Times{Count: 90, P50: 11}},
	}
	for condition, want := range map[string]string{
		"p99>50ms":          "failed p99>50ms: 60.0 ms",
		"p99>60ms":          "p99>60ms: 60.0 ms",
		" p99.9 > 0.089s ":  "failed p99.9>0.089s: 90.0 ms",
		"max>1m":            "max>1m: 100 ms",
		"mean>1ms":          "failed mean>1ms: 3.00 ms",
		"errors>0.5%":       "errors>0.5%: 0.50 %",
		"errors>0.49%":      "failed errors>0.49%: 0.50 %",
		"get.errors>50%":    "failed get.errors>50%: 100.0 %",
		"get.p99>1s":        "failed get.p99>1s: nothing was measured",
		"list.p99>7ms":      "list.p99>7ms: 7.00 ms",
		"create.p99>7ms":    "failed create.p99>7ms: nothing was measured",
		"create.errors>1%":  "failed create.errors>1%: nothing was measured",
		"watch.p50>10ms":    "failed watch.p50>10ms: 11.0 ms",
		"watch.errors>10%":  "watch.errors>10%: 10.0 %",
		"watch.errors>9.9%": "failed watch.errors>9.9%: 10.0 %",
	} {
		c, err := ParseCondition(condition, []string{"create", "get", "list"})
		if err != nil {
			t.Errorf("%q: %v", condition, err)
			continue
		}
		one := rep
		one.Check([]Condition{c})
		got := one.Checks[0].String()
		if one.Checks[0].Failed {
			got = "failed " + got
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", condition, got, want)
		}
	}
	for condition, want := range map[string]string{
		"":               "is not of the form",
		"p99<50ms":       "is not of the form",
		"p99>":           `"" is not a time such as 50ms`,
		"p99>50":         `"50" is not a time`,
		"p99>-1s":        `"-1s" is not a time`,
		"p98>50ms":       `"p98" is not one of errors, mean, p50, p90, p95, p99, p99.9, max`,
		">50ms":          `"" is not one of errors`,
		"fetch.p99>50ms": `"fetch" is not one of get, watch`,
		"errors>1":       `"1" is not a percentage`,
		"errors>101%":    `"101%" is not a percentage`,
		"errors>NaN%":    `"NaN%" is not a percentage`,
		"errors>50ms":    `"50ms" is not a percentage`,
	} {
		if _, err := ParseCondition(condition, []string{"get"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", condition, err, want)
		}
	}
}
