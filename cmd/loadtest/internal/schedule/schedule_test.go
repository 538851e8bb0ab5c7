package schedule

import (
	"context"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

var _ vegeta.Pacer = (*Pacer)(nil)

func TestScheduleDue(t *testing.T) {
	const s = time.Second
	constant := Schedule{{10, 10, 3 * s}}
	fromZero := Schedule{{0, 100, 2 * s}, {100, 100, 3 * s}} // 100 in the ramp, then 300
	fromTen := Schedule{{10, 30, 4 * s}}
	down := Schedule{{30, 10, 4 * s}}
	slow := Schedule{{0.5, 0.5, 9 * s}}
	steps := Schedule{{10, 10, 2 * s}, {1, 1, 4 * s}, {2, 6, 2 * s}} // 20, 4 and 8
	odd := Schedule{{1, 1, 1500 * time.Millisecond}, {1, 1, 2 * s}}
	for name, test := range map[string]struct {
		Schedule
		n    uint64
		want time.Duration
	}{
		"at once":                  {constant, 0, 0},
		"one interval":             {constant, 1, s / 10},
		"many intervals":           {constant, 25, 5 * s / 2},
		"start of a ramp":          {fromZero, 0, 0},
		"a quarter by half time":   {fromZero, 25, s},
		"end of a ramp":            {fromZero, 100, 2 * s},
		"after a ramp":             {fromZero, 150, 5 * s / 2},
		"a start rate":             {fromTen, 30, 2 * s},
		"downwards":                {down, 50, 2 * s},
		"a second phase":           {steps, 20, 2 * s},
		"within a second phase":    {steps, 22, 4 * s},
		"a third phase":            {steps, 24, 6 * s},
		"across a border":          {odd, 2, 2 * s},
		"less than one per second": {slow, 3, 6 * s},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.Due(test.n); (got - test.want).Abs() > time.Microsecond {
				t.Errorf("request %d is due at %v, want %v", test.n, got, test.want)
			}
		})
	}
	for name, test := range map[string]struct {
		Schedule
		at   time.Duration
		want uint64
	}{
		"before the start": {constant, -s, 0},
		"at the start":     {constant, 0, 0},
		"just after it":    {constant, time.Millisecond, 1},
		"at the end":       {constant, 3 * s, 30},
		"after the end":    {constant, time.Hour, 30},
		"in a ramp":        {fromZero, s, 25},
		"all of a ramp":    {fromZero, 5 * s, 400},
		"downwards":        {down, 4 * s, 80},
		"slowly":           {slow, 9 * s, 5}, // at 0, 2, 4, 6 and 8 s
		"one phase":        {steps, 2 * s, 20},
		"two phases":       {steps, 6 * s, 24},
		"all phases":       {steps, 8 * s, 32},
		"across a border":  {odd, time.Hour, 4}, // at 0, 1, 2 and 3 s
	} {
		t.Run("count "+name, func(t *testing.T) {
			if got := test.DueBy(test.at); got != test.want {
				t.Errorf("%d are due by %v, want %d", got, test.at, test.want)
			}
		})
	}
}

// DueBy counts exactly the requests that are due before.
func TestScheduleAgreesWithItself(t *testing.T) {
	for _, s := range []Schedule{
		{{333.3, 333.3, 7 * time.Second}},
		{{0, 977, 3 * time.Second}, {977, 977, 2 * time.Second}},
		{{400, 7, 2 * time.Second}, {7, 7, 7 * time.Second}},
		{{1, 100000, time.Second}},
		{{100, 100, 1234 * time.Millisecond}, {3.3, 3.3, 5 * time.Second}, {0, 50, 700 * time.Millisecond}, {50, 200, time.Second}},
	} {
		total := s.DueBy(s.Duration())
		last := time.Duration(-1)
		for n := range total {
			at := s.Due(n)
			if at < last || at >= s.Duration() {
				t.Fatalf("%+v: request %d of %d is due at %v, after one at %v", s, n, total, at, last)
			}
			last = at
			if before, behind := s.DueBy(at-2*time.Microsecond), s.DueBy(at+time.Millisecond); before > n || behind < n+1 {
				t.Fatalf("%+v: around %v, when request %d is due, the count goes from %d to %d", s, at, n, before, behind)
			}
		}
		if next := s.Due(total); next < s.Duration()-time.Microsecond {
			t.Errorf("%+v: request %d is due at %v, and not counted", s, total, next)
		}
	}
}

func TestScheduleRate(t *testing.T) {
	s := Schedule{{10, 30, 4 * time.Second}, {30, 30, 2 * time.Second}}
	for at, want := range map[time.Duration]float64{0: 10, time.Second: 15, 4 * time.Second: 30, 6 * time.Second: 30, 7 * time.Second: 0} {
		if got := s.rateAt(at); got != want {
			t.Errorf("the rate at %v is %v, want %v", at, got, want)
		}
	}
}

func TestScheduleAt(t *testing.T) {
	s := Schedule{{1, 1, time.Second}, {2, 2, time.Second}, {3, 3, time.Second}}
	for at, want := range map[time.Duration]int{-1: 0, 0: 0, time.Second - 1: 0, time.Second: 1, 2 * time.Second: 2, time.Hour: 2} {
		if got := s.At(at); got != want {
			t.Errorf("the phase at %v is %d, want %d", at, got, want)
		}
	}
}

func TestParsePhase(t *testing.T) {
	for text, want := range map[string]Phase{
		"30s@100":     {100, 100, 30 * time.Second},
		"1m0s@0.5-20": {0.5, 20, time.Minute},
		"500ms@20-0":  {20, 0, time.Second / 2},
	} {
		if got, err := ParsePhase(text); err != nil || got != want || got.String() != text {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "30s", "100", "@100", "30s@", "30@100", "30s@fast", "30s@1-", "30s@1-2-3"} {
		if got, err := ParsePhase(text); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestPacer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := NewPacer(ctx, Schedule{{100, 100, time.Second}})
	if p.Rate(0) != 100 {
		t.Errorf("the rate is %v", p.Rate(0))
	}
	began := time.Now()
	if wait, stop := p.Pace(45*time.Millisecond, 5); wait != 0 || stop {
		t.Errorf("got %v, %v", wait, stop)
	}
	if took := time.Since(began); took < 5*time.Millisecond {
		t.Errorf("request 5 came %v early", 5*time.Millisecond-took)
	}
	if wait, stop := p.Pace(time.Second, 99); wait != 0 || stop {
		t.Errorf("one that is late: got %v, %v, want it at once", wait, stop)
	}
	if _, stop := p.Pace(time.Second/2, 100); !stop {
		t.Error("it goes on after all that is due")
	}
	stopped := make(chan bool)
	go func() {
		_, stop := NewPacer(ctx, Schedule{{0.01, 0.01, time.Hour}}).Pace(0, 1)
		stopped <- stop
	}()
	cancel()
	if !<-stopped {
		t.Error("the end of the context does not stop it")
	}
}
