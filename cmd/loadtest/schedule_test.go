package main

import (
	"context"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

var _ vegeta.Pacer = (*pacer)(nil)

func TestScheduleDue(t *testing.T) {
	const s = time.Second
	constant := schedule{start: 5, rate: 10, duration: 3 * s}
	fromZero := schedule{rate: 100, ramp: 2 * s, duration: 5 * s} // 100 in the ramp, then 300
	fromTen := schedule{start: 10, rate: 30, ramp: 4 * s, duration: 4 * s}
	down := schedule{start: 30, rate: 10, ramp: 4 * s, duration: 4 * s}
	flat := schedule{start: 10, rate: 10, ramp: 4 * s, duration: 4 * s}
	slow := schedule{rate: 0.5, duration: 9 * s}
	for name, test := range map[string]struct {
		schedule
		n    uint64
		want time.Duration
	}{
		"at once":                {constant, 0, 0},
		"one interval":           {constant, 1, s / 10},
		"many intervals":         {constant, 25, 5 * s / 2},
		"begin of a ramp":        {fromZero, 0, 0},
		"a quarter by half time": {fromZero, 25, s},
		"end of a ramp":          {fromZero, 100, 2 * s},
		"behind a ramp":          {fromZero, 150, 5 * s / 2},
		"a start rate":           {fromTen, 30, 2 * s},
		"downwards":              {down, 50, 2 * s},
		"a ramp that is none":    {flat, 15, 3 * s / 2},
		"less than one a second": {slow, 3, 6 * s},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.due(test.n); (got - test.want).Abs() > time.Microsecond {
				t.Errorf("request %d is due at %v, want %v", test.n, got, test.want)
			}
		})
	}
	for name, test := range map[string]struct {
		schedule
		at   time.Duration
		want uint64
	}{
		"before the begin": {constant, -s, 0},
		"at the begin":     {constant, 0, 0},
		"just behind it":   {constant, time.Millisecond, 1},
		"at the end":       {constant, 3 * s, 30},
		"behind the end":   {constant, time.Hour, 30},
		"in a ramp":        {fromZero, s, 25},
		"all of a ramp":    {fromZero, 5 * s, 400},
		"downwards":        {down, 4 * s, 80},
		"slowly":           {slow, 9 * s, 5}, // at 0, 2, 4, 6 and 8 s
	} {
		t.Run("count "+name, func(t *testing.T) {
			if got := test.dueBy(test.at); got != test.want {
				t.Errorf("%d are due by %v, want %d", got, test.at, test.want)
			}
		})
	}
}

// dueBy counts exactly those whose due time is before.
func TestScheduleAgreesWithItself(t *testing.T) {
	for _, s := range []schedule{
		{rate: 333.3, duration: 7 * time.Second},
		{rate: 977, ramp: 3 * time.Second, duration: 5 * time.Second},
		{start: 400, rate: 7, ramp: 2 * time.Second, duration: 9 * time.Second},
		{start: 1, rate: 100000, ramp: time.Second, duration: time.Second},
	} {
		total := s.dueBy(s.duration)
		last := time.Duration(-1)
		for n := range total {
			at := s.due(n)
			if at < last || at >= s.duration {
				t.Fatalf("%+v: request %d of %d is due at %v, after one at %v", s, n, total, at, last)
			}
			last = at
			if before, behind := s.dueBy(at-2*time.Microsecond), s.dueBy(at+time.Millisecond); before > n || behind < n+1 {
				t.Fatalf("%+v: around %v, when request %d is due, the count goes from %d to %d", s, at, n, before, behind)
			}
		}
		if next := s.due(total); next < s.duration-time.Microsecond {
			t.Errorf("%+v: request %d is due at %v, and not counted", s, total, next)
		}
	}
}

func TestScheduleRate(t *testing.T) {
	s := schedule{start: 10, rate: 30, ramp: 4 * time.Second, duration: 6 * time.Second}
	for at, want := range map[time.Duration]float64{0: 10, time.Second: 15, 4 * time.Second: 30, 6 * time.Second: 30, 7 * time.Second: 0} {
		if got := s.rateAt(at); got != want {
			t.Errorf("the rate at %v is %v, want %v", at, got, want)
		}
	}
}

func TestPacer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := newPacer(ctx, schedule{rate: 100, duration: time.Second})
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
		_, stop := newPacer(ctx, schedule{rate: 0.01, duration: time.Hour}).Pace(0, 1)
		stopped <- stop
	}()
	cancel()
	if !<-stopped {
		t.Error("the end of the context does not stop it")
	}
}
