package report

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/schedule"
)

func TestHistogram(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() time.Duration{
		"even":      func() time.Duration { return time.Duration(rng.IntN(1e8)) },
		"long tail": func() time.Duration { return time.Duration(math.Exp(rng.NormFloat64()*2) * 1e6) },
		"two humps": func() time.Duration { return time.Duration(1e6 + 1e9*float64(rng.IntN(40)/39)) },
	} {
		t.Run(name, func(t *testing.T) {
			all := make([]time.Duration, 20_000)
			whole, part := newHistogram(wholeDigits), newHistogram(intervalDigits)
			for i := range all {
				all[i] = max(draw(), time.Microsecond)
				whole.add(all[i])
				part.add(all[i])
			}
			slices.Sort(all)
			for _, percent := range []float64{50, 90, 99, 99.9, 100} {
				exact := all[int(math.Round(percent/100*float64(len(all))))-1].Seconds()
				for _, got := range []struct {
					*histogram
					precision float64
				}{{whole, 0.001}, {part, 0.01}} {
					if value := got.at(percent).Seconds(); math.Abs(value-exact) > exact*got.precision+2e-6 {
						t.Errorf("p%v is %v, want %v", percent, value, exact)
					}
				}
			}
			if whole.count() != int64(len(all)) {
				t.Errorf("%d were counted", whole.count())
			}
		})
	}
}

func TestHistogramTakesEverything(t *testing.T) {
	d := newHistogram(intervalDigits)
	if d.at(99) != 0 || d.max() != 0 || d.mean() != 0 {
		t.Error("without a time there is one")
	}
	d.add(-time.Second)
	d.add(0)
	d.add(1000 * time.Hour)
	if d.count() != 3 || d.at(50) != time.Microsecond || d.max() < 59*time.Minute {
		t.Errorf("got %d, p50 %v, max %v", d.count(), d.at(50), d.max())
	}
}

func TestIntervalLength(t *testing.T) {
	for duration, want := range map[time.Duration]time.Duration{
		time.Millisecond:                  time.Second,
		600 * time.Second:                 time.Second,
		600*time.Second + 1:               2 * time.Second,
		time.Hour:                         6 * time.Second,
		7 * 24 * time.Hour:                1008 * time.Second,
		20*time.Minute - time.Microsecond: 2 * time.Second,
	} {
		if got := intervalLength(duration); got != want || duration > got*maxIntervals {
			t.Errorf("the intervals of %v have %v, want %v", duration, got, want)
		}
	}
}

func testPlan(durations ...time.Duration) (plan schedule.Schedule) {
	for _, d := range durations {
		plan = append(plan, schedule.Phase{From: 100, To: 100, Duration: d})
	}
	return plan
}

func TestStatsAdd(t *testing.T) {
	const ms = time.Millisecond
	s := NewStats(testPlan(5*time.Second, 5*time.Second), []string{"update", "get"}, []string{"#1", "#2"})
	good := Sample{Verb: 0, Watchers: 2, Code: 200, Due: 0, Started: ms, Connected: 2 * ms, End: 7 * ms, Sent: 10, Received: 20}
	s.Add(&good)
	lateForConnection := good
	lateForConnection.Connected, lateForConnection.End = 30*ms, 40*ms
	s.Add(&lateForConnection)
	lateForWorker := good
	lateForWorker.Started, lateForWorker.Connected, lateForWorker.End, lateForWorker.Crowded = 2000*ms, 2001*ms, 2005*ms, true
	s.Add(&lateForWorker)
	lateByItself := lateForWorker
	lateByItself.Crowded, lateByItself.Verb, lateByItself.Watchers = false, 1, 0
	s.Add(&lateByItself)
	s.Add(&Sample{Token: 1, Outcome: RateLimited, Code: 429, Connected: ms, End: 2 * ms})
	s.Add(&Sample{Token: 1, Outcome: Failed, Code: 500, Connected: ms, End: 2 * ms, Fault: Fault{Kind: "500"}})
	s.Add(&Sample{Token: 1, Outcome: Failed, TimedOut: true, End: 9 * time.Second, Connected: 9 * time.Second, Fault: Fault{Kind: "timeout"}})
	s.Add(&Sample{Token: 1, Outcome: HeldBack})

	if want := (counts{Succeeded: 4, RateLimited: 1, Failed: 2, HeldBack: 1}); s.counts != want || s.counts.sent() != 7 {
		t.Errorf("counts %v, want %v", s.counts, want)
	}
	if want := (lateness{generator: 1, workers: 1, connections: 2}); s.late != want {
		t.Errorf("late %+v, want %+v", s.late, want)
	}
	// Excluded: the 429, the 500 and the request held back. A time-out without a connection
	// says nothing about the service.
	if s.response.count() != 5 || s.service.count() != 4 || s.delay.count() != 7 || s.refused.count() != 1 {
		t.Errorf("%d response times, %d service times, %d delays, %d of 429", s.response.count(), s.service.count(), s.delay.count(), s.refused.count())
	}
	if longest := s.service.max(); longest < 9*ms || longest > 11*ms {
		t.Errorf("the longest service took %v, want 10 ms", longest)
	}
	if s.expected != 6 || s.sent != 40 || s.received != 80 {
		t.Errorf("%d events expected, %d bytes sent, %d received", s.expected, s.sent, s.received)
	}
	// All were due in the first second, but the answers came later.
	if first, third := s.intervals[0], s.intervals[2]; first.response.count() != 5 || first.counts[Succeeded] != 2 || third.counts[Succeeded] != 2 || third.response.count() != 0 {
		t.Errorf("intervals %+v and %+v", first, third)
	}
	if w := s.takeWindow(); w.sent() != 7 || w.response.count() != 5 {
		t.Errorf("the window has %+v", w)
	}
	if w := s.takeWindow(); w.sent() != 0 || w.response.count() != 0 {
		t.Error("the window is not empty after it was taken")
	}
	if got := s.tokens[1]; got.heldBack != 1 || got.codes[429] != 1 || got.codes[500] != 1 || got.codes[0] != 1 {
		t.Errorf("the token has %+v", got)
	}
}

// The memory of a run does not grow with its length.
func TestStatsAreBounded(t *testing.T) {
	s := NewStats(testPlan(24*time.Hour), []string{"get"}, []string{"#1"})
	for at := time.Duration(0); at < 100*time.Hour; at += time.Minute {
		s.Add(&Sample{Code: 200, Due: at, Started: at, Connected: at, End: at + time.Millisecond})
		s.AddEvent(at, time.Millisecond)
	}
	if len(s.intervals) > 2*maxIntervals {
		t.Errorf("there are %d intervals", len(s.intervals))
	}
	f := faults{}
	for i := range 1000 {
		f.add(Fault{Kind: string(rune('a' + i))})
	}
	if len(f) != maxFaultKinds+1 || f[otherFaults].count != 1000-maxFaultKinds || f.rows()[0].Kind != otherFaults {
		t.Errorf("there are %d kinds of faults, the last one with %+v", len(f), f[otherFaults])
	}
}

func TestBuckets(t *testing.T) {
	response, service := newHistogram(wholeDigits), newHistogram(wholeDigits)
	for _, ms := range []float64{0.9, 1, 1.1, 50, 2000} {
		response.add(time.Duration(ms * float64(time.Millisecond)))
	}
	service.add(500 * time.Microsecond)
	buckets := newBuckets(response, service)
	var ofResponse, ofService int64
	for i, b := range buckets {
		ofResponse += b.Response
		ofService += b.Service
		if i > 0 && b.From != buckets[i-1].To || b.To <= b.From {
			t.Errorf("bucket %d is from %v to %v", i, b.From, b.To)
		}
	}
	if first, last := buckets[0], buckets[len(buckets)-1]; ofResponse != 5 || ofService != 1 ||
		first.Service != 1 || first.To < .5 || last.Response != 1 || last.From >= 2000 || last.To < 2000 {
		t.Errorf("got %+v", buckets)
	}
	if empty := newBuckets(newHistogram(wholeDigits), newHistogram(wholeDigits)); empty == nil || len(empty) > 0 {
		t.Errorf("without times there is %+v", empty)
	}
}
