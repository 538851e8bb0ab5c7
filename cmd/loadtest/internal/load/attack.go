package load

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/berth-project/berth/cmd/loadtest/internal/client"
	"github.com/berth-project/berth/cmd/loadtest/internal/report"
	"github.com/berth-project/berth/cmd/loadtest/internal/schedule"
)

const (
	// endGrace is for requests that are due just before the end: they are still sent.
	endGrace = 100 * time.Millisecond
	// eventsGrace is how long events may take after the last answer.
	eventsGrace = 2 * time.Second
)

// attack sends phases of a measurement, one after the other.
type attack struct {
	*Generator
	phases   schedule.Schedule
	offset   time.Duration // of the first of them within the measurement
	stats    *report.Stats
	began    time.Time
	lastID   atomic.Uint64
	inFlight atomic.Int64
}

// Measure returns the measurement of a load that has not begun.
func (g *Generator) Measure(plan schedule.Schedule) *report.Measurement {
	return report.NewMeasurement(plan, Verbs, g.client.Tokens.Names())
}

// Run sends the whole schedule of a measurement, as Send does.
func (g *Generator) Run(ctx context.Context, plan schedule.Schedule, p *report.Progress) *report.Measurement {
	m := g.Measure(plan)
	g.Send(ctx, m, 0, len(plan), p)
	return m
}

// Send sends the phases of a measurement from first until before end, or until ctx ends,
// waits for the answers still in progress, and then for the events of what was written. Once
// a second it reports to p. The phases before have been sent.
func (g *Generator) Send(ctx context.Context, m *report.Measurement, first, end int, p *report.Progress) {
	a := &attack{
		Generator: g, phases: m.Schedule[first:end], offset: m.Schedule[:first].Duration(), stats: m.Stats, began: time.Now(),
	}
	duration := a.phases.Duration()
	if m.Began.IsZero() {
		m.Began = a.began
	}
	if g.watchers != nil {
		defer g.watchers.measure(a)()
	}
	sending, cancel := context.WithTimeout(ctx, duration+endGrace)
	defer cancel()
	attacker := vegeta.NewAttacker(
		vegeta.Client(&http.Client{
			Transport:     g.transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
		vegeta.MaxWorkers(uint64(g.config.MaxWorkers)),
		vegeta.MaxBody(client.MaxFailure),
	)
	stopped := make(chan time.Duration, 1)
	defer context.AfterFunc(sending, func() {
		stopped <- time.Since(a.began)
		// vegeta waits for a free worker as long as it takes, unless it is stopped.
		attacker.Stop()
	})()
	a.collect(attacker.Attack(a.target, schedule.NewPacer(sending, a.phases), 0, ""), p)

	sent := duration
	if ctx.Err() != nil {
		sent = min(<-stopped, duration)
		m.Interrupted = m.Interrupted || sent < duration
	}
	m.Elapsed = a.offset + sent
	if g.watchers != nil {
		g.watchers.awaitEvents(ctx, a.stats, eventsGrace)
	}
}

// target chooses the next request. It is a vegeta.Targeter.
func (a *attack) target(t *vegeta.Target) error {
	op := a.workload.next(time.Now())
	a.workload.target(op, a.client, t)
	id := strconv.FormatUint(a.lastID.Add(1), 10)
	t.URL += "#" + id
	op.crowded = a.inFlight.Add(1) >= int64(a.config.MaxWorkers)
	a.transport.ops.Store(id, op)
	return nil
}

// collect counts the results until there are no more.
func (a *attack) collect(results <-chan *vegeta.Result, p *report.Progress) {
	p.Begin()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case r, more := <-results:
			if !more {
				return
			}
			a.record(r)
		case now := <-ticker.C:
			p.Second(now.Sub(a.began), a.phases, a.stats, a.inFlight.Load())
		}
	}
}

// at returns a time as it counts for the measurement.
func (a *attack) at(t time.Time) time.Duration { return a.offset + t.Sub(a.began) }

// record counts one result.
func (a *attack) record(r *vegeta.Result) {
	a.inFlight.Add(-1)
	_, id, _ := strings.Cut(r.URL, "#")
	value, ok := a.transport.ops.LoadAndDelete(id)
	if !ok {
		return // vegeta could not turn the target into a request: it was never sent
	}
	op := value.(*operation)
	one := &report.Sample{
		Verb:     int(op.verb),
		Token:    op.token,
		Due:      a.offset + a.phases.Due(r.Seq),
		Started:  a.at(r.Timestamp),
		End:      a.at(r.Timestamp.Add(r.Latency)),
		Crowded:  op.crowded,
		Sent:     int64(r.BytesOut),
		Received: op.received,
	}
	one.Connected = one.End
	if !op.connected.IsZero() {
		one.Connected = a.at(op.connected)
	}
	if op.verb.writes() && a.watchers != nil {
		one.Watchers = a.watchers.in(op.namespace)
	}
	a.judge(one, op, r)
	a.stats.Add(one)
}

// judge fills in the outcome of an operation, and draws the conclusions for the next ones.
func (a *attack) judge(one *report.Sample, op *operation, r *vegeta.Result) {
	fail := func(f *client.Fault) {
		one.Outcome, one.Fault = report.Failed, report.Fault{Kind: f.Kind, Message: f.Message}
	}
	switch {
	case op.heldBack:
		one.Outcome = report.HeldBack
		return
	case op.err != nil:
		fail(a.client.Broken(op.err))
		one.TimedOut = client.IsTimeout(op.err)
		if one.TimedOut && op.connected.IsZero() {
			one.Fault.Kind = "timeout before there was a connection"
		}
		return
	case r.Code == 0:
		fail(a.client.Broken(errors.New(r.Error)))
		return
	}
	one.Code = int(r.Code)
	switch {
	case r.Code >= 200 && r.Code < 300:
		a.workload.succeeded(op)
	case r.Code == http.StatusTooManyRequests:
		one.Outcome = report.RateLimited
		now := time.Now()
		a.client.Tokens.Hold(op.token, now.Add(client.RetryAfter(r.Headers, now)))
	default:
		fail(a.client.Answered(one.Code, r.Body, op.token))
	}
}
