package main

import (
	"context"
	"math"
	"time"
)

// schedule says when each request is due, whatever becomes of the others: the rate rises in
// a straight line from start to rate during ramp and then stays. Rates are requests a second;
// rate is more than 0.
type schedule struct {
	start, rate    float64
	ramp, duration time.Duration // duration includes ramp
}

// due returns when request n, counted from 0, is due, from the begin of the run.
func (s schedule) due(n uint64) time.Duration {
	count, ramp := float64(n), s.ramp.Seconds()
	inRamp := (s.start + s.rate) / 2 * ramp
	if count >= inRamp {
		return seconds(ramp + (count-inRamp)/s.rate)
	}
	if n == 0 {
		return 0
	}
	// The root of slope/2·t² + start·t = n, in the form that stays exact for a slope of 0.
	slope := (s.rate - s.start) / ramp
	return seconds(2 * count / (s.start + math.Sqrt(s.start*s.start+2*slope*count)))
}

// dueBy returns how many requests are due before t, and never more than within duration.
func (s schedule) dueBy(t time.Duration) uint64 {
	elapsed, ramp := min(t, s.duration).Seconds(), s.ramp.Seconds()
	if elapsed <= 0 {
		return 0
	}
	var count float64
	if elapsed < ramp {
		count = s.start*elapsed + (s.rate-s.start)/ramp*elapsed*elapsed/2
	} else {
		count = (s.start+s.rate)/2*ramp + s.rate*(elapsed-ramp)
	}
	// Request 0 is due at once. What is due at t itself is due later, also where rounding
	// has moved it a hair before.
	return uint64(math.Ceil(count - 1e-6))
}

// rateAt returns the rate at t in requests a second, 0 after the end.
func (s schedule) rateAt(t time.Duration) float64 {
	switch {
	case t > s.duration:
		return 0
	case t < s.ramp:
		return s.start + (s.rate-s.start)*t.Seconds()/s.ramp.Seconds()
	}
	return s.rate
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// pacer is a vegeta.Pacer that follows a schedule until it is done or ctx ends. It waits by
// itself rather than let vegeta sleep: the end of ctx ends the wait, and the wait is exact.
//
// vegeta's own pacers do not fit: none ramps up to a rate and holds it, LinearPacer takes a
// start of 0 for an infinite rate, and a due time must be computed from the same formula.
type pacer struct {
	schedule
	ctx   context.Context
	timer *time.Timer
}

// timerSlack is how late Go's timers may be when nothing else happens in the process: they
// wait in whole milliseconds.
const timerSlack = 2 * time.Millisecond

func newPacer(ctx context.Context, s schedule) *pacer {
	return &pacer{schedule: s, ctx: ctx, timer: time.NewTimer(0)}
}

// Pace returns when request number hits is due, and stop once there are no more.
func (p *pacer) Pace(elapsed time.Duration, hits uint64) (wait time.Duration, stop bool) {
	if hits >= p.dueBy(p.duration) || p.ctx.Err() != nil {
		return 0, true
	}
	if wait = p.due(hits) - elapsed; wait <= 0 {
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

// Rate returns the rate at elapsed in requests a second.
func (p *pacer) Rate(elapsed time.Duration) float64 { return p.rateAt(elapsed) }
