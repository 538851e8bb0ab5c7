package report

import (
	"strconv"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/schedule"
)

// Measurement is a load and what it came to. Its methods must not be called before the load
// has ended.
type Measurement struct {
	Schedule    schedule.Schedule
	Stats       *Stats
	Began       time.Time
	Elapsed     time.Duration // until no more requests were sent; at most the schedule's duration
	Interrupted bool
	Process     *Process // the server's; nil: not known
}

// NewMeasurement returns the measurement of a load that has not begun. The names are those of
// NewStats.
func NewMeasurement(plan schedule.Schedule, verbs, tokens []string) *Measurement {
	return &Measurement{Schedule: plan, Stats: NewStats(plan, verbs, tokens)}
}

func (m *Measurement) due() uint64 { return m.Schedule.DueBy(m.Elapsed) }

// unsent is how many requests were due and had not been sent when the time was over.
func (m *Measurement) unsent() uint64 {
	due := m.due()
	return due - min(due, m.Stats.counts.sent()+m.Stats.counts[HeldBack])
}

// Run is what a report says of a run besides the measurement.
type Run struct {
	Tool          string // name and version
	Command       string // without tokens
	Server        Server
	Settings      Settings // its schedule is taken from the measurement
	Sources       []string // where each token comes from
	SwappedDelete uint64
}

// New returns the report of a run.
func New(r Run, m *Measurement) *Report {
	s := m.Stats
	s.mu.Lock()
	defer s.mu.Unlock()
	due, sent := m.due(), s.counts.sent()
	rep := &Report{
		Tool:        r.Tool,
		Command:     r.Command,
		Server:      r.Server,
		Started:     m.Began.UTC().Truncate(time.Millisecond),
		Settings:    r.Settings,
		Seconds:     m.Elapsed.Round(time.Millisecond).Seconds(),
		Interrupted: m.Interrupted,
		Requests: Requests{
			Due: due, Sent: sent, Unsent: m.unsent(), HeldBack: s.counts[HeldBack],
			Succeeded: s.counts[Succeeded], RateLimited: s.counts[RateLimited], Failed: s.counts[Failed],
			SwappedDelete: r.SwappedDelete, BytesSent: s.sent, BytesReceived: s.received,
		},
		Rates: Rates{
			Asked:     perSecond(due, m.Elapsed),
			Sent:      perSecond(sent, m.Elapsed),
			Succeeded: perSecond(s.counts[Succeeded], m.Elapsed),
		},
		ErrorShare: float64(s.counts[Failed]) / float64(max(sent, 1)),
		Generator:  newGenerator(m, r.Settings),
		Response:   newTimes(s.response),
		Service:    newTimes(s.service),
		StartDelay: newTimes(s.delay),
		Process:    m.Process,
		Verbs:      newVerbs(s),
		Phases:     newPhases(m),
		Tokens:     newTokens(s, r.Sources),
		Errors:     s.faults.rows(),
		Watch:      newWatch(s, r.Settings.Watchers),
		Histogram:  newBuckets(s.response, s.service),
		Intervals:  newIntervals(m),
	}
	rep.Settings.DurationSeconds = m.Schedule.Duration().Seconds()
	for _, p := range m.Schedule {
		rep.Settings.Schedule = append(rep.Settings.Schedule, p.String())
	}
	if p := rep.Process; p != nil {
		p.CPUSecondsPerRequest = p.CPUSeconds / float64(max(sent, 1))
	}
	if s.refused.count() > 0 {
		refused := newTimes(s.refused)
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

func newVerbs(s *Stats) []Verb {
	all := []Verb{}
	for _, one := range s.verbs {
		if one.sent() == 0 {
			continue
		}
		all = append(all, Verb{
			Verb: one.name, Sent: one.sent(), Succeeded: one.counts[Succeeded],
			RateLimited: one.counts[RateLimited], Failed: one.counts[Failed],
			Response: newTimes(one.response), Service: newTimes(one.service),
		})
	}
	return all
}

func newPhases(m *Measurement) []Phase {
	all := []Phase{}
	var start time.Duration
	for i, plan := range m.Schedule {
		one := &m.Stats.phases[i]
		p := Phase{
			Start: start.Seconds(), Seconds: plan.Duration.Seconds(), From: plan.From, To: plan.To,
			Sent: one.sent(), Succeeded: one.counts[Succeeded], RateLimited: one.counts[RateLimited], Failed: one.counts[Failed],
			HeldBack: one.counts[HeldBack], Response: newTimes(one.response), Delay: newTimes(one.delay), Verbs: []PhaseVerb{},
		}
		for v, h := range one.verbs {
			if h != nil {
				p.Verbs = append(p.Verbs, PhaseVerb{m.Stats.verbs[v].name, newTimes(h)})
			}
		}
		all = append(all, p)
		start += plan.Duration
	}
	return all
}

// NoAnswer stands for the status code of requests without a complete answer.
const NoAnswer = "no answer"

func newTokens(s *Stats, sources []string) []Token {
	all := []Token{}
	for i, one := range s.tokens {
		t := Token{Token: one.name, Codes: map[string]uint64{}, HeldBack: one.heldBack}
		if i < len(sources) {
			t.Source = sources[i]
		}
		for code, n := range one.codes {
			name := NoAnswer
			if code != 0 {
				name = strconv.Itoa(code)
			}
			t.Codes[name] = n
		}
		all = append(all, t)
	}
	return all
}

func newWatch(s *Stats, watchers int) *Watch {
	if watchers == 0 {
		return nil
	}
	w := s.watch
	return &Watch{
		Watchers: watchers, Events: w.events, Expected: s.expected, Unmatched: w.unmatched,
		Reopened: w.reopened, Expired: w.expired, BytesReceived: s.watchReceived.Load(),
		Delay: newTimes(w.delay), Errors: w.faults.rows(),
	}
}

func newIntervals(m *Measurement) []Interval {
	all := []Interval{}
	for i, one := range m.Stats.intervals {
		start := time.Duration(i) * m.Stats.length
		due := m.Schedule.DueBy(start+m.Stats.length) - m.Schedule.DueBy(start)
		row := Interval{Start: start.Seconds(), Seconds: m.Stats.length.Seconds(), Asked: perSecond(due, m.Stats.length)}
		if one != nil {
			row.Succeeded, row.RateLimited = one.counts[Succeeded], one.counts[RateLimited]
			row.Failed, row.HeldBack = one.counts[Failed], one.counts[HeldBack]
			row.P50, row.P90, row.P99 = percentile(one.response, 50), percentile(one.response, 90), percentile(one.response, 99)
			row.ServiceP99 = percentile(one.service, 99)
			row.Events, row.WatchP50, row.WatchP99 = one.events, percentile(one.delay, 50), percentile(one.delay, 99)
		}
		all = append(all, row)
	}
	return all
}
