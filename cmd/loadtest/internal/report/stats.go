package report

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/schedule"
)

const (
	// maxIntervals bounds the memory for the course of a run: a longer run has longer
	// intervals.
	maxIntervals = 600
	// lateAfter is how long after it was due a request counts as started late.
	lateAfter = 10 * time.Millisecond
)

// Outcome is what became of a request that was due.
type Outcome uint8

// The outcomes of a request.
const (
	Succeeded   Outcome = iota // 2xx
	RateLimited                // 429
	Failed                     // any other status, or no complete answer
	HeldBack                   // not sent, because its token has to wait
	outcomes
)

// counts is how many requests had each outcome.
type counts [outcomes]uint64

// sent is how many requests were sent, including those that reached no server.
func (c *counts) sent() uint64 { return c[Succeeded] + c[RateLimited] + c[Failed] }

// Sample is one request that was due. Its times count from the start of the load.
type Sample struct {
	Verb      int // its index in the verbs of NewStats
	Watchers  int // watches that get an event of it if it succeeds
	Token     int // its index in the tokens of NewStats
	Outcome   Outcome
	Code      int // 0: no complete answer
	TimedOut  bool
	Fault     Fault // if it failed
	Due       time.Duration
	Started   time.Duration // when a worker was free for it
	Connected time.Duration // when it had a connection; End if it never had one
	End       time.Duration // the last byte of the answer
	Crowded   bool          // all workers were busy when it started
	Sent      int64         // bytes of the request's body
	Received  int64         // bytes of the answer's body
}

// measured reports whether the sample's times say how long the server takes to do its work:
// those of a quick refusal do not, and those of a time-out do, as a lower bound.
func (s *Sample) measured() bool { return s.Outcome == Succeeded || s.TimedOut }

type verbStats struct {
	name string
	counts
	response, service *histogram // of the measured requests
}

type tokenStats struct {
	name     string
	heldBack uint64
	codes    map[int]uint64
}

// lateness counts the requests that started late, by what they waited for.
type lateness struct{ generator, workers, connections uint64 }

func (l lateness) total() uint64 { return l.generator + l.workers + l.connections }

// interval is one stretch of the run. Its times are those of the requests that were due in
// it, its counts those of the answers that came in it.
type interval struct {
	counts
	response *histogram
	service  *histogram
	events   uint64
	delay    *histogram // nil: no event
}

// Stats collects everything that is measured of a run. It is safe for concurrent use, and
// its memory does not grow with the number of requests.
type Stats struct {
	schedule schedule.Schedule
	length   time.Duration // of an interval

	mu        sync.Mutex
	counts    counts
	response  *histogram // due to last byte
	service   *histogram // connection to last byte
	delay     *histogram // due to connection
	refused   *histogram // response times of 429
	verbs     []verbStats
	tokens    []tokenStats
	faults    faults
	late      lateness
	sent      int64
	received  int64
	expected  uint64 // events of successful writes and deletions, one for each of their watchers
	watch     watchStats
	phases    []phaseStats // of the schedule
	intervals []*interval  // nil: nothing happened in it
	window    window

	watchReceived atomic.Int64 // bytes of watches as they came, compressed or not
}

// watchStats is what the watchers saw.
type watchStats struct {
	delay     *histogram // from sending the write to the arrival of its event
	events    uint64     // of this run's writes
	unmatched uint64     // of these, events of writes so old that their time is forgotten
	reopened  uint64
	expired   uint64 // of the reopened: their version had expired, so they may have missed events
	faults    faults
}

// phaseStats is a phase of the schedule: the requests that were due in it, and the events of
// writes that were sent in it.
type phaseStats struct {
	counts
	response *histogram
	verbs    []*histogram // nil: none was measured
	delay    *histogram   // nil: no event
}

// addTo adds a duration to a histogram, which is made when it is first needed.
func addTo(h **histogram, d time.Duration) {
	if *h == nil {
		*h = newHistogram(wholeDigits)
	}
	(*h).add(d)
}

// window is what happened since the last look at it.
type window struct {
	counts
	response *histogram
	delay    *histogram
}

func newWindow() window {
	return window{response: newHistogram(intervalDigits), delay: newHistogram(intervalDigits)}
}

// NewStats returns empty statistics of a load. verbs and tokens are the names that the report
// shows for the indices in samples; a token's name is not the token itself.
func NewStats(plan schedule.Schedule, verbs, tokens []string) *Stats {
	s := &Stats{
		schedule: plan,
		length:   intervalLength(plan.Duration()),
		response: newHistogram(wholeDigits),
		service:  newHistogram(wholeDigits),
		delay:    newHistogram(wholeDigits),
		refused:  newHistogram(wholeDigits),
		faults:   faults{},
		watch:    watchStats{delay: newHistogram(wholeDigits), faults: faults{}},
		window:   newWindow(),
		phases:   make([]phaseStats, len(plan)),
	}
	for i := range s.phases {
		s.phases[i].verbs = make([]*histogram, len(verbs))
	}
	for _, name := range verbs {
		s.verbs = append(s.verbs, verbStats{name: name, response: newHistogram(wholeDigits), service: newHistogram(wholeDigits)})
	}
	for _, name := range tokens {
		s.tokens = append(s.tokens, tokenStats{name: name, codes: map[int]uint64{}})
	}
	return s
}

// intervalLength is the smallest number of whole seconds that divides a run into at most
// maxIntervals.
func intervalLength(duration time.Duration) time.Duration {
	least := (duration + maxIntervals - 1) / maxIntervals
	return max((least + time.Second - 1).Truncate(time.Second), time.Second)
}

// at returns the interval at t. What comes long after the end counts for the last one.
func (s *Stats) at(t time.Duration) *interval {
	i := min(int(max(t, 0)/s.length), 2*maxIntervals-1)
	if missing := i + 1 - len(s.intervals); missing > 0 {
		s.intervals = append(s.intervals, slices.Repeat([]*interval{nil}, missing)...)
	}
	if s.intervals[i] == nil {
		s.intervals[i] = &interval{response: newHistogram(intervalDigits), service: newHistogram(intervalDigits)}
	}
	return s.intervals[i]
}

func (s *Stats) phaseAt(t time.Duration) *phaseStats { return &s.phases[s.schedule.At(t)] }

// Add counts a request.
func (s *Stats) Add(one *Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[one.Outcome]++
	s.window.counts[one.Outcome]++
	s.at(one.End).counts[one.Outcome]++
	s.phaseAt(one.Due).counts[one.Outcome]++
	if one.Outcome == HeldBack {
		s.tokens[one.Token].heldBack++
		return
	}
	s.verbs[one.Verb].counts[one.Outcome]++
	s.tokens[one.Token].codes[one.Code]++
	s.sent += one.Sent
	s.received += one.Received
	switch one.Outcome {
	case Failed:
		s.faults.add(one.Fault)
	case RateLimited:
		s.refused.add(one.End - one.Due)
	case Succeeded:
		s.expected += uint64(one.Watchers)
	}
	s.addTimes(one)
}

func (s *Stats) addTimes(one *Sample) {
	s.delay.add(one.Connected - one.Due)
	switch {
	case one.Connected-one.Due < lateAfter:
	case one.Connected-one.Started >= lateAfter:
		s.late.connections++
	case one.Crowded:
		s.late.workers++
	default:
		s.late.generator++
	}
	if !one.measured() {
		return
	}
	response := one.End - one.Due
	s.response.add(response)
	s.window.response.add(response)
	s.verbs[one.Verb].response.add(response)
	s.at(one.Due).response.add(response)
	phase := s.phaseAt(one.Due)
	addTo(&phase.response, response)
	addTo(&phase.verbs[one.Verb], response)
	if one.Connected == one.End {
		return // it never had a connection
	}
	service := one.End - one.Connected
	s.service.add(service)
	s.verbs[one.Verb].service.add(service)
	s.at(one.Due).service.add(service)
}

// takeWindow returns what happened since it was last called.
func (s *Stats) takeWindow() window {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.window
	s.window = newWindow()
	return w
}

// AddEvent counts a watch event of one of the run's writes that arrived at at, counted from
// the start of the load, with its delay since the write was sent.
func (s *Stats) AddEvent(at, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch.events++
	s.watch.delay.add(delay)
	s.window.delay.add(delay)
	in := s.at(at)
	in.events++
	if in.delay == nil {
		in.delay = newHistogram(intervalDigits)
	}
	in.delay.add(delay)
	addTo(&s.phaseAt(at-delay).delay, delay)
}

// AddUnmatchedEvent counts a watch event of one of the run's writes that is so old that it
// is not known when it was sent.
func (s *Stats) AddUnmatchedEvent() {
	s.changeWatch(func(w *watchStats) { w.events++; w.unmatched++ })
}

// AddReopened counts a watch that was opened again.
func (s *Stats) AddReopened() { s.changeWatch(func(w *watchStats) { w.reopened++ }) }

// AddExpired counts a watch whose version had expired.
func (s *Stats) AddExpired() { s.changeWatch(func(w *watchStats) { w.expired++ }) }

// AddWatchFault counts a watch that broke or could not be opened.
func (s *Stats) AddWatchFault(f Fault) { s.changeWatch(func(w *watchStats) { w.faults.add(f) }) }

// AddWatchBytes counts n bytes of a watch as they came over the wire.
func (s *Stats) AddWatchBytes(n int) { s.watchReceived.Add(int64(n)) }

func (s *Stats) changeWatch(change func(*watchStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.watch)
}

// EventsMissing returns how many events of successful writes are still to reach one or the
// other of the watchers.
func (s *Stats) EventsMissing() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.expected) - int64(s.watch.events)
}
