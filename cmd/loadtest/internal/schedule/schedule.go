// Package schedule decides when each request of a load is due, and waits for that time.
package schedule

import (
	"context"
	"math"
	"time"
)

// Schedule is when each request is due, whatever becomes of the others: the rate changes
// in a straight line from Start to Rate during Ramp and then stays. Rates are requests per
// second; Rate is more than 0. Duration includes Ramp.
type Schedule struct {
	Start, Rate    float64
	Ramp, Duration time.Duration
}

// Due returns when request n, counted from 0, is due, as time since the start of the load.
func (s Schedule) Due(n uint64) time.Duration {
	count, ramp := float64(n), s.Ramp.Seconds()
	inRamp := (s.Start + s.Rate) / 2 * ramp
	if count >= inRamp {
		return seconds(ramp + (count-inRamp)/s.Rate)
	}
	if n == 0 {
		return 0
	}
	// The root of slope/2·t² + start·t = n, in the form that also holds for a slope of 0.
	slope := (s.Rate - s.Start) / ramp
	return seconds(2 * count / (s.Start + math.Sqrt(s.Start*s.Start+2*slope*count)))
}

// DueBy returns how many requests are due before t, at most those within Duration.
func (s Schedule) DueBy(t time.Duration) uint64 {
	elapsed, ramp := min(t, s.Duration).Seconds(), s.Ramp.Seconds()
	if elapsed <= 0 {
		return 0
	}
	var count float64
	if elapsed < ramp {
		count = s.Start*elapsed + (s.Rate-s.Start)/ramp*elapsed*elapsed/2
	} else {
		count = (s.Start+s.Rate)/2*ramp + s.Rate*(elapsed-ramp)
	}
	// Request 0 is due at once. A request due exactly at t does not count, even if rounding
	// has moved it slightly before t.
	return uint64(math.Ceil(count - 1e-6))
}

// rateAt returns the rate at t in requests per second, 0 after the end.
func (s Schedule) rateAt(t time.Duration) float64 {
	switch {
	case t > s.Duration:
		return 0
	case t < s.Ramp:
		return s.Start + (s.Rate-s.Start)*t.Seconds()/s.Ramp.Seconds()
	}
	return s.Rate
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Pacer is a vegeta.Pacer that follows a schedule until it is done or its context ends. It
// waits by itself rather than letting vegeta sleep, so that the context ends the wait and
// the wait is exact.
//
// vegeta's own pacers do not fit: none ramps up to a rate and holds it, LinearPacer takes a
// start of 0 as an infinite rate, and due times must come from the same formula.
type Pacer struct {
	schedule Schedule
	ctx      context.Context
	timer    *time.Timer
}

// timerSlack is how late Go's timers may be when nothing else happens in the process: they
// wait in whole milliseconds.
const timerSlack = 2 * time.Millisecond

// NewPacer returns a pacer that follows s until ctx ends. It belongs to one goroutine.
func NewPacer(ctx context.Context, s Schedule) *Pacer {
	return &Pacer{schedule: s, ctx: ctx, timer: time.NewTimer(0)}
}

// Pace waits until the request after the first hits is due, and then returns a wait of 0.
// stop reports whether there are no more.
func (p *Pacer) Pace(elapsed time.Duration, hits uint64) (wait time.Duration, stop bool) {
	if hits >= p.schedule.DueBy(p.schedule.Duration) || p.ctx.Err() != nil {
		return 0, true
	}
	if wait = p.schedule.Due(hits) - elapsed; wait <= 0 {
		return 0, false
	}
	due := time.Now().Add(wait)
	if wait > timerSlack {
		p.timer.Reset(wait - timerSlack)
		select {
		case <-p.timer.C:
		case <-p.ctx.Done():
			return 0, true
		}
	}
	sleepUntil(due)
	return 0, false
}

// Rate returns the rate at elapsed in requests per second.
func (p *Pacer) Rate(elapsed time.Duration) float64 { return p.schedule.rateAt(elapsed) }
