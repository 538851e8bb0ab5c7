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

// attack is one stretch of load that follows one schedule.
type attack struct {
	*Generator
	schedule schedule.Schedule
	stats    *report.Stats
	began    time.Time
	lastID   atomic.Uint64
	inFlight atomic.Int64
}

// Run sends what the schedule says until it is done or ctx ends, waits for the answers still
// in progress, and then for the events of what was written. Once a second it reports to p.
func (g *Generator) Run(ctx context.Context, s schedule.Schedule, p *report.Progress) *report.Measurement {
	a := &attack{
		Generator: g, schedule: s, stats: report.NewStats(s.Duration, Verbs, g.client.Tokens.Names()), began: time.Now(),
	}
	if g.watchers != nil {
		defer g.watchers.measure(a)()
	}
	sending, cancel := context.WithTimeout(ctx, s.Duration+endGrace)
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
	a.collect(attacker.Attack(a.target, schedule.NewPacer(sending, s), 0, ""), p)

	m := &report.Measurement{Schedule: s, Stats: a.stats, Began: a.began, Elapsed: s.Duration}
	if ctx.Err() != nil {
		m.Elapsed = min(<-stopped, m.Elapsed)
		m.Interrupted = m.Elapsed < s.Duration
	}
	if g.watchers != nil {
		g.watchers.awaitEvents(ctx, a.stats, eventsGrace)
	}
	return m
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
			p.Second(now.Sub(a.began), a.schedule, a.stats, a.inFlight.Load())
		}
	}
}

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
		Writes:   op.verb.writes(),
		Token:    op.token,
		Due:      a.schedule.Due(r.Seq),
		Started:  r.Timestamp.Sub(a.began),
		End:      r.Timestamp.Add(r.Latency).Sub(a.began),
		Crowded:  op.crowded,
		Sent:     int64(r.BytesOut),
		Received: op.received,
	}
	one.Connected = one.End
	if !op.connected.IsZero() {
		one.Connected = op.connected.Sub(a.began)
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
		fail(a.client.Answered(one.Code, r.Body))
	}
}
