package report

import (
	"fmt"
	"reflect"
	"strings"

	"golang.org/x/perf/benchmath"

	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// Versus is the other server of a run that took turns with two, and how they compare: this
// report's server is A, the other one B.
type Versus struct {
	Comparison Comparison `json:"comparison"`
	Other      *Report    `json:"report"`
}

// Comparison sets two reports side by side.
type Comparison struct {
	A         Side            `json:"a"`
	B         Side            `json:"b"`
	Different []string        `json:"different_settings"`
	Rows      []ComparisonRow `json:"rows"`
}

// Side is one of the two reports. ErrorShare and the process' numbers are as in the report.
type Side struct {
	Name                string   `json:"name"`
	Server              Server   `json:"server"`
	SucceededPerSecond  float64  `json:"succeeded_per_second"`
	ErrorShare          float64  `json:"error_share"`
	Process             *Process `json:"process,omitempty"`
	GeneratorFellBehind bool     `json:"generator_fell_behind"`
}

// ComparisonRow compares the response times of a verb or all requests, or the delays of
// watches. With rounds, the medians are those of the rounds' medians, PValue is how likely
// chance alone makes these differ as much, and Faster is the side that is faster if that is
// too unlikely: "a", "b" or "".
type ComparisonRow struct {
	Name   string   `json:"name"`
	P50    Pair     `json:"p50"`
	P99    Pair     `json:"p99"`
	PValue *float64 `json:"p_value,omitempty"`
	Faster string   `json:"faster,omitempty"`
}

// Pair is a time of either side in milliseconds, and B's difference as a share of A's.
type Pair struct {
	A      float64 `json:"a_ms"`
	B      float64 `json:"b_ms"`
	Change float64 `json:"change_share"`
}

func newPair(a, b float64) Pair {
	p := Pair{A: a, B: b}
	if a > 0 {
		p.Change = (b - a) / a
	}
	return p
}

// Compare compares two reports, which names tell apart and may come from anywhere. rounds
// means that their phases are rounds, which took turns. What only one of them has measured
// has no row.
func Compare(a, b *Report, names [2]string, rounds bool) Comparison {
	c := Comparison{A: newSide(a, names[0]), B: newSide(b, names[1]), Different: different(&a.Settings, &b.Settings), Rows: []ComparisonRow{}}
	subjects := []string{""}
	for _, v := range a.Verbs {
		subjects = append(subjects, v.Verb)
	}
	for _, subject := range append(subjects, WatchSubject) {
		timesA, _, _ := a.subject(subject)
		timesB, _, _ := b.subject(subject)
		if timesA.Count == 0 || timesB.Count == 0 {
			continue
		}
		row := ComparisonRow{Name: text.Clean(subject), P50: newPair(timesA.P50, timesB.P50), P99: newPair(timesA.P99, timesB.P99)}
		switch subject {
		case "":
			row.Name = "all requests"
		case WatchSubject:
			row.Name = "watch delay"
		}
		if rounds {
			row.measure(a.medians(subject), b.medians(subject))
		}
		c.Rows = append(c.Rows, row)
	}
	for i := range c.Rows {
		c.Rows[i].judge(maxChance / float64(len(c.Rows)))
	}
	return c
}

// maxChance is how likely it may be that any row names a faster side by chance alone. Each
// row gets an equal part of it.
const maxChance = 0.05

func newSide(rep *Report, name string) Side {
	return Side{
		Name: text.Clean(name), Server: Server{URL: text.Clean(rep.Server.URL), Version: text.Clean(rep.Server.Version)}, SucceededPerSecond: rep.Rates.Succeeded, ErrorShare: rep.ErrorShare,
		Process: rep.Process, GeneratorFellBehind: !rep.Generator.KeptUp,
	}
}

// different returns the settings that two runs do not share, as "name: A, B".
func different(a, b *Settings) []string {
	all := []string{}
	ofA, ofB := reflect.ValueOf(*a), reflect.ValueOf(*b)
	for i := range ofA.NumField() {
		x, y := fmt.Sprint(ofA.Field(i).Interface()), fmt.Sprint(ofB.Field(i).Interface())
		if x != y {
			all = append(all, fmt.Sprintf("%s: %s, %s", ofA.Type().Field(i).Tag.Get("json"), text.Clean(x), text.Clean(y)))
		}
	}
	return all
}

// medians returns the median of each phase that has one.
func (rep *Report) medians(subject string) []float64 {
	var all []float64
	for i := range rep.Phases {
		times := rep.Phases[i].subject(subject)
		if times.Count > 0 {
			all = append(all, times.P50)
		}
	}
	return all
}

// measure sets the medians and PValue from the rounds' medians, which it sorts. It assumes
// nothing of how they are distributed.
func (r *ComparisonRow) measure(a, b []float64) {
	if len(a) == 0 || len(b) == 0 {
		return
	}
	sampleA, sampleB := benchmath.NewSample(a, &benchmath.DefaultThresholds), benchmath.NewSample(b, &benchmath.DefaultThresholds)
	const confidence = 0.95 // of an interval that is not used
	r.P50 = newPair(
		benchmath.AssumeNothing.Summary(sampleA, confidence).Center, benchmath.AssumeNothing.Summary(sampleB, confidence).Center)
	p := benchmath.AssumeNothing.Compare(sampleA, sampleB).P
	r.PValue = &p
}

// judge decides which side is faster, unless the rounds differ by chance with more than a
// likelihood.
func (r *ComparisonRow) judge(chance float64) {
	switch {
	case r.PValue == nil || *r.PValue > chance || r.P50.A == r.P50.B:
	case r.P50.A < r.P50.B:
		r.Faster = "a"
	default:
		r.Faster = "b"
	}
}

// Verdict says which side is faster and how sure that is, "" without rounds.
func (r *ComparisonRow) Verdict() string {
	if r.PValue == nil {
		return ""
	}
	p := fmt.Sprintf("p=%.3f", *r.PValue)
	if *r.PValue < 0.001 {
		p = "p<0.001"
	}
	if r.Faster == "" {
		return "no clear difference (" + p + ")"
	}
	return strings.ToUpper(r.Faster) + " is faster (" + p + ")"
}

// ChangeText returns the difference in percent, with its sign.
func (p Pair) ChangeText() string { return fmt.Sprintf("%+.1f %%", 100*p.Change) }

// Text returns the comparison for a terminal.
func (c *Comparison) Text() string {
	t := &textReport{}
	judged := false
	rows := [][]string{{"Response time", "A p50", "B p50", "change", "A p99", "B p99", "change"}}
	for _, r := range c.Rows {
		rows = append(rows, []string{
			r.Name, text.Milliseconds(r.P50.A), text.Milliseconds(r.P50.B), r.P50.ChangeText(),
			text.Milliseconds(r.P99.A), text.Milliseconds(r.P99.B), r.P99.ChangeText(),
		})
		judged = judged || r.PValue != nil
	}
	if judged {
		rows[0] = append(rows[0], "by the rounds' medians")
		for i := range c.Rows {
			rows[i+1] = append(rows[i+1], c.Rows[i].Verdict())
		}
	}
	t.table(c.servers()...)
	t.printf("\n")
	t.table(rows...)
	for _, one := range c.Different {
		t.printf("The settings differ: %s\n", one)
	}
	for _, side := range c.Behind() {
		t.printf("The generator could not keep up with %s: its response times include waits in the generator.\n", side)
	}
	return t.out.String()
}

// Behind returns the sides whose requests were not sent when they were due.
func (c *Comparison) Behind() []string {
	var all []string
	for i, s := range []*Side{&c.A, &c.B} {
		if s.GeneratorFellBehind {
			all = append(all, "AB"[i:i+1])
		}
	}
	return all
}

// servers returns a table of what is not a time.
func (c *Comparison) servers() [][]string {
	rows := [][]string{{"", "succeeded", "failed", "CPU per request", "peak memory"}}
	for i, s := range []*Side{&c.A, &c.B} {
		rows = append(rows, []string{
			"AB"[i:i+1] + "  " + s.Title(), text.Rate(s.SucceededPerSecond) + "/s", text.Percent(s.ErrorShare),
			s.Process.PerRequest(), s.Process.Peak(),
		})
	}
	return rows
}

// Title says what the side is.
func (s *Side) Title() string {
	title := s.Name
	if s.Name != s.Server.URL {
		title += ", " + s.Server.URL
	}
	if s.Server.Version != "" {
		title += " (" + s.Server.Version + ")"
	}
	return title
}
