package main

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// maxIntervals bounds the memory for the course of a run: a longer run has longer
	// intervals.
	maxIntervals = 600
	// longest is what a longer time is counted as. The unit of the histograms is 1 µs.
	longest = time.Hour
	// wholeDigits and intervalDigits are significant digits: 190 KB a histogram, and 24 KB.
	wholeDigits, intervalDigits = 3, 2
	// lateAfter is how long after its time a request begins late.
	lateAfter = 10 * time.Millisecond
)

// times is a histogram of durations, with a relative error of at most 0.1 % or 1 %.
type times struct{ hdr *hdrhistogram.Histogram }

func newTimes(digits int) *times {
	return &times{hdrhistogram.New(1, longest.Microseconds(), digits)}
}

func (t *times) add(d time.Duration) {
	// It fails for what is out of range alone, and this is not.
	_ = t.hdr.RecordValue(min(max(d, time.Microsecond), longest).Microseconds())
}

func (t *times) count() int64 { return t.hdr.TotalCount() }

// at returns the duration that percent of all do not exceed, 0 where there are none.
func (t *times) at(percent float64) time.Duration {
	return time.Duration(t.hdr.ValueAtQuantile(percent)) * time.Microsecond
}

func (t *times) max() time.Duration { return time.Duration(t.hdr.Max()) * time.Microsecond }

func (t *times) mean() time.Duration {
	return time.Duration(t.hdr.Mean() * float64(time.Microsecond))
}

// outcome is what became of a request that was due.
type outcome uint8

const (
	succeeded   outcome = iota // 2xx
	rateLimited                // 429
	failed                     // any other status, or no whole answer
	heldBack                   // not sent, because its token must wait
	outcomes
)

// counts is how many requests had each outcome.
type counts [outcomes]uint64

// sent is how many requests were sent, those that found no server included.
func (c *counts) sent() uint64 { return c[succeeded] + c[rateLimited] + c[failed] }

// sample is one request that was due. Its times are from the begin of the run.
type sample struct {
	verb      verb
	token     int
	outcome   outcome
	code      int // 0: no whole answer
	timedOut  bool
	fault     fault // where it failed
	due       time.Duration
	started   time.Duration // when there was a worker for it
	connected time.Duration // when there was a connection for it; the end where there was none
	end       time.Duration // the last byte of the answer
	crowded   bool          // all workers were in use when it started
	sent      int64         // bytes of bodies
	received  int64
}

// measured reports whether the sample's times say how long the server takes to do its work:
// those of a quick refusal do not, and those of a time-out do, as the least that it took.
func (s *sample) measured() bool { return s.outcome == succeeded || s.timedOut }

// verbStats is what is known of one verb.
type verbStats struct {
	counts
	response, service *times // of what was measured
}

// tokenStats is what is known of one token.
type tokenStats struct {
	heldBack uint64
	codes    map[int]uint64
}

// lateness counts the requests that began late, by what they waited for.
type lateness struct{ generator, workers, connections uint64 }

func (l lateness) total() uint64 { return l.generator + l.workers + l.connections }

// interval is a stretch of the run. Times are those of the requests that were due in it,
// counts those of the answers that came in it.
type interval struct {
	counts
	response *times
	service  *times
	events   uint64
	delay    *times // nil: no event
}

// stats is all that is measured of a run. It is safe for concurrent use, and its memory does
// not grow with the number of requests.
type stats struct {
	length time.Duration // of an interval

	mu        sync.Mutex
	counts    counts
	response  *times // due to last byte
	service   *times // connection to last byte
	delay     *times // due to connection
	refused   *times // response times of 429
	verbs     [verbCount]verbStats
	tokens    []tokenStats
	faults    faults
	late      lateness
	sent      int64
	received  int64
	written   uint64 // successful writes and deletions
	watch     watchStats
	intervals []*interval // nil: nothing happened in it
	window    window

	watchReceived atomic.Int64 // bytes of events as they came, packed or not
}

// window is what happened since the last look at it.
type window struct {
	counts
	response *times
	delay    *times
}

func newWindow() window {
	return window{response: newTimes(intervalDigits), delay: newTimes(intervalDigits)}
}

func newStats(duration time.Duration, tokens int) *stats {
	s := &stats{
		length:   intervalLength(duration),
		response: newTimes(wholeDigits),
		service:  newTimes(wholeDigits),
		delay:    newTimes(wholeDigits),
		refused:  newTimes(wholeDigits),
		tokens:   make([]tokenStats, tokens),
		faults:   faults{},
		watch:    watchStats{delay: newTimes(wholeDigits), faults: faults{}},
		window:   newWindow(),
	}
	for i := range s.tokens {
		s.tokens[i].codes = map[int]uint64{}
	}
	for v := range s.verbs {
		s.verbs[v].response, s.verbs[v].service = newTimes(wholeDigits), newTimes(wholeDigits)
	}
	return s
}

// intervalLength is the least number of whole seconds with which a run has no more than
// maxIntervals.
func intervalLength(duration time.Duration) time.Duration {
	least := (duration + maxIntervals - 1) / maxIntervals
	return max((least + time.Second - 1).Truncate(time.Second), time.Second)
}

// at returns the interval at t. What comes long after the end counts for the last one.
func (s *stats) at(t time.Duration) *interval {
	i := min(int(max(t, 0)/s.length), 2*maxIntervals-1)
	for len(s.intervals) <= i {
		s.intervals = append(s.intervals, nil)
	}
	if s.intervals[i] == nil {
		s.intervals[i] = &interval{response: newTimes(intervalDigits), service: newTimes(intervalDigits)}
	}
	return s.intervals[i]
}

// add counts a request.
func (s *stats) add(one *sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[one.outcome]++
	s.window.counts[one.outcome]++
	s.at(one.end).counts[one.outcome]++
	if one.outcome == heldBack {
		s.tokens[one.token].heldBack++
		return
	}
	s.verbs[one.verb].counts[one.outcome]++
	s.tokens[one.token].codes[one.code]++
	s.sent += one.sent
	s.received += one.received
	switch one.outcome {
	case failed:
		s.faults.add(one.fault)
	case rateLimited:
		s.refused.add(one.end - one.due)
	case succeeded:
		if one.verb.writes() {
			s.written++
		}
	}
	s.addTimes(one)
}

func (s *stats) addTimes(one *sample) {
	s.delay.add(one.connected - one.due)
	switch {
	case one.connected-one.due < lateAfter:
	case one.connected-one.started >= lateAfter:
		s.late.connections++
	case one.crowded:
		s.late.workers++
	default:
		s.late.generator++
	}
	if !one.measured() {
		return
	}
	response := one.end - one.due
	s.response.add(response)
	s.window.response.add(response)
	s.verbs[one.verb].response.add(response)
	s.at(one.due).response.add(response)
	if one.connected == one.end {
		return // there was no service
	}
	service := one.end - one.connected
	s.service.add(service)
	s.verbs[one.verb].service.add(service)
	s.at(one.due).service.add(service)
}

// takeWindow returns what happened since it was last called.
func (s *stats) takeWindow() window {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.window
	s.window = newWindow()
	return w
}

// watchStats is what is known of the watches.
type watchStats struct {
	delay     *times // sending of the write to arrival of its event
	events    uint64 // of this run's writes
	unmatched uint64 // of them: of writes so long ago that their time is not known
	reopened  uint64
	expired   uint64 // of the reopened: they had to begin anew, and may have missed events
	faults    faults
}

// event counts an event that came at, from the begin of the run, with its delay.
func (s *stats) event(at, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch.events++
	s.watch.delay.add(delay)
	s.window.delay.add(delay)
	in := s.at(at)
	in.events++
	if in.delay == nil {
		in.delay = newTimes(intervalDigits)
	}
	in.delay.add(delay)
}

// changeWatch lets change the counts of the watches.
func (s *stats) changeWatch(change func(*watchStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.watch)
}

// eventsMissing returns how many events of writes that succeeded have not come yet to all
// the watchers.
func (s *stats) eventsMissing(watchers int) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.written)*int64(watchers) - int64(s.watch.events)
}
