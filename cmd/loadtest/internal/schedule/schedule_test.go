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
	constant := Schedule{Start: 5, Rate: 10, Duration: 3 * s}
	fromZero := Schedule{Rate: 100, Ramp: 2 * s, Duration: 5 * s} // 100 in the ramp, then 300
	fromTen := Schedule{Start: 10, Rate: 30, Ramp: 4 * s, Duration: 4 * s}
	down := Schedule{Start: 30, Rate: 10, Ramp: 4 * s, Duration: 4 * s}
	flat := Schedule{Start: 10, Rate: 10, Ramp: 4 * s, Duration: 4 * s}
	slow := Schedule{Rate: 0.5, Duration: 9 * s}
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
		"a flat ramp":              {flat, 15, 3 * s / 2},
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
		{Rate: 333.3, Duration: 7 * time.Second},
		{Rate: 977, Ramp: 3 * time.Second, Duration: 5 * time.Second},
		{Start: 400, Rate: 7, Ramp: 2 * time.Second, Duration: 9 * time.Second},
		{Start: 1, Rate: 100000, Ramp: time.Second, Duration: time.Second},
	} {
		total := s.DueBy(s.Duration)
		last := time.Duration(-1)
		for n := range total {
			at := s.Due(n)
			if at < last || at >= s.Duration {
				t.Fatalf("%+v: request %d of %d is due at %v, after one at %v", s, n, total, at, last)
			}
			last = at
			if before, behind := s.DueBy(at-2*time.Microsecond), s.DueBy(at+time.Millisecond); before > n || behind < n+1 {
				t.Fatalf("%+v: around %v, when request %d is due, the count goes from %d to %d", s, at, n, before, behind)
			}
		}
		if next := s.Due(total); next < s.Duration-time.Microsecond {
			t.Errorf("%+v: request %d is due at %v, and not counted", s, total, next)
		}
	}
}

func TestScheduleRate(t *testing.T) {
	s := Schedule{Start: 10, Rate: 30, Ramp: 4 * time.Second, Duration: 6 * time.Second}
	for at, want := range map[time.Duration]float64{0: 10, time.Second: 15, 4 * time.Second: 30, 6 * time.Second: 30, 7 * time.Second: 0} {
		if got := s.rateAt(at); got != want {
			t.Errorf("the rate at %v is %v, want %v", at, got, want)
		}
	}
}

func TestPacer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := NewPacer(ctx, Schedule{Rate: 100, Duration: time.Second})
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
		_, stop := NewPacer(ctx, Schedule{Rate: 0.01, Duration: time.Hour}).Pace(0, 1)
		stopped <- stop
	}()
	cancel()
	if !<-stopped {
		t.Error("the end of the context does not stop it")
	}
}
