// Package schedule decides when each request of a load is due, and waits for that time.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Phase is a stretch of load in which the rate changes in a straight line from From to To.
// Rates are requests per second; To is more than 0.
type Phase struct {
	From, To float64
	Duration time.Duration
}

// ParsePhase parses what String returns: "30s@100", or "1m@0-500" for a rate that rises.
func ParsePhase(text string) (Phase, error) {
	fault := fmt.Errorf("%q is not of the form 30s@100, or 30s@0-100 for a rate that rises from 0 to 100", text)
	duration, rates, found := strings.Cut(text, "@")
	from, to, changes := strings.Cut(rates, "-")
	if !changes {
		to = from
	}
	var p Phase
	var errs [3]error
	p.Duration, errs[0] = time.ParseDuration(duration)
	p.From, errs[1] = strconv.ParseFloat(from, 64)
	p.To, errs[2] = strconv.ParseFloat(to, 64)
	if !found || errors.Join(errs[:]...) != nil {
		return Phase{}, fault
	}
	return p, nil
}

// String returns the phase as --phase takes it.
func (p Phase) String() string {
	rate := func(r float64) string { return strconv.FormatFloat(r, 'f', -1, 64) }
	text := p.Duration.String() + "@" + rate(p.From)
	if p.To != p.From {
		text += "-" + rate(p.To)
	}
	return text
}

// due returns when the request that count others precede is due, as time since the start of
// the phase; after its end the rate stays as it is there.
func (p Phase) due(count float64) float64 {
	if count <= 0 {
		return 0
	}
	length := p.Duration.Seconds()
	if all := p.count(length); count >= all {
		return length + (count-all)/p.To
	}
	// The root of slope/2·t² + from·t = count, in the form that also holds for a slope of 0.
	slope := (p.To - p.From) / length
	return 2 * count / (p.From + math.Sqrt(p.From*p.From+2*slope*count))
}

// count returns how many requests are due in the first seconds of the phase.
func (p Phase) count(seconds float64) float64 {
	return p.From*seconds + (p.To-p.From)/p.Duration.Seconds()*seconds*seconds/2
}

// Schedule is when each request is due, whatever becomes of the others: phases one after the
// other, at least one.
type Schedule []Phase

// Duration is how long all phases last.
func (s Schedule) Duration() time.Duration {
	var sum time.Duration
	for _, p := range s {
		sum += p.Duration
	}
	return sum
}

// Due returns when request n, counted from 0, is due, as time since the start of the load.
func (s Schedule) Due(n uint64) time.Duration {
	count, last := float64(n), len(s)-1
	var start time.Duration
	for _, p := range s[:last] {
		all := p.count(p.Duration.Seconds())
		if count < all {
			return start + seconds(p.due(count))
		}
		count -= all
		start += p.Duration
	}
	return start + seconds(s[last].due(count))
}

// DueBy returns how many requests are due before t, at most those within Duration.
func (s Schedule) DueBy(t time.Duration) uint64 {
	var count float64
	for _, p := range s {
		if t <= 0 {
			break
		}
		count += p.count(min(t, p.Duration).Seconds())
		t -= p.Duration
	}
	// Request 0 is due at once. A request due exactly at t does not count, even if rounding
	// has moved it slightly before t.
	return uint64(max(math.Ceil(count-1e-6), 0))
}

// At returns the index of the phase at t; the first and the last one have no other limit.
func (s Schedule) At(t time.Duration) int {
	for i, p := range s[:len(s)-1] {
		if t < p.Duration {
			return i
		}
		t -= p.Duration
	}
	return len(s) - 1
}

// rateAt returns the rate at t in requests per second, 0 after the end.
func (s Schedule) rateAt(t time.Duration) float64 {
	for _, p := range s {
		if t <= p.Duration {
			return p.From + (p.To-p.From)*t.Seconds()/p.Duration.Seconds()
		}
		t -= p.Duration
	}
	return 0
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Pacer is a vegeta.Pacer that follows a schedule until it is done or its context ends. It
// waits by itself rather than letting vegeta sleep, so that the context ends the wait and
// the wait is exact.
//
// vegeta's own pacers do not fit: none has phases, LinearPacer takes a start of 0 as an
// infinite rate, and due times must come from the same formula.
type Pacer struct {
	schedule Schedule
	all      uint64 // requests in the schedule
	ctx      context.Context
	timer    *time.Timer
}

// timerSlack is how late Go's timers may be when nothing else happens in the process: they
// wait in whole milliseconds.
const timerSlack = 2 * time.Millisecond

// NewPacer returns a pacer that follows s until ctx ends. It belongs to one goroutine.
func NewPacer(ctx context.Context, s Schedule) *Pacer {
	return &Pacer{schedule: s, all: s.DueBy(s.Duration()), ctx: ctx, timer: time.NewTimer(0)}
}

// Pace waits until the request after the first hits is due, and then returns a wait of 0.
// stop reports whether there are no more.
func (p *Pacer) Pace(elapsed time.Duration, hits uint64) (wait time.Duration, stop bool) {
	if hits >= p.all || p.ctx.Err() != nil {
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
