package main

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

const (
	// endGrace is for requests that are due a moment before the end: they are still sent.
	endGrace = 100 * time.Millisecond
	// maxBodyKept is how much of an answer is kept until it is counted, in bytes. Only the
	// Status of a failure is looked at.
	maxBodyKept = 4 << 10
	// eventsGrace is how long events may take after the last answer.
	eventsGrace = 2 * time.Second
)

// attack is one stretch of load by one schedule.
type attack struct {
	schedule  schedule
	server    string
	config    *config
	workload  *workload
	transport *transport
	watchers  *watchers // nil: none
	stats     *stats
	began     time.Time

	lastID   atomic.Uint64
	inFlight atomic.Int64
}

// measurement is what an attack measured.
type measurement struct {
	schedule    schedule
	stats       *stats
	began       time.Time
	elapsed     time.Duration // until no more requests were sent; at most the schedule's duration
	due         uint64
	interrupted bool
}

// unsent is how many requests were due and had not been sent when the time was over.
func (m *measurement) unsent() uint64 {
	taken := m.stats.counts.sent() + m.stats.counts[heldBack]
	return m.due - min(m.due, taken)
}

// run sends what the schedule says until it is done or ctx ends, waits for the answers that
// are under way, and then for the events of what was written. Once a second it reports to p.
func (a *attack) run(ctx context.Context, p *progress) *measurement {
	a.began = time.Now()
	if a.watchers != nil {
		defer a.watchers.measure(a)()
	}
	sending, cancel := context.WithTimeout(ctx, a.schedule.duration+endGrace)
	defer cancel()
	attacker := vegeta.NewAttacker(
		vegeta.Client(&http.Client{
			Transport:     a.transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
		vegeta.MaxWorkers(uint64(a.config.MaxWorkers)),
		vegeta.MaxBody(maxBodyKept),
	)
	stopped := make(chan time.Duration, 1)
	defer context.AfterFunc(sending, func() {
		stopped <- time.Since(a.began)
		// vegeta waits for a free worker as long as it takes, unless it is stopped.
		attacker.Stop()
	})()
	results := attacker.Attack(a.target, newPacer(sending, a.schedule), 0, "")
	a.collect(results, p)

	m := &measurement{schedule: a.schedule, stats: a.stats, began: a.began, elapsed: a.schedule.duration}
	if ctx.Err() != nil {
		m.elapsed = min(<-stopped, m.elapsed)
		m.interrupted = m.elapsed < a.schedule.duration
	}
	m.due = a.schedule.dueBy(m.elapsed)
	if a.watchers != nil {
		a.watchers.awaitEvents(ctx, a.stats, eventsGrace)
	}
	return m
}

// target chooses the next request. It is a vegeta.Targeter.
func (a *attack) target(t *vegeta.Target) error {
	op := a.workload.next(time.Now())
	a.workload.target(op, a.server, t)
	id := strconv.FormatUint(a.lastID.Add(1), 10)
	t.URL += "#" + id
	op.crowded = a.inFlight.Add(1) >= int64(a.config.MaxWorkers)
	a.transport.ops.Store(id, op)
	return nil
}

// collect counts the results until there are no more.
func (a *attack) collect(results <-chan *vegeta.Result, p *progress) {
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
			elapsed := now.Sub(a.began)
			p.second(elapsed, a.schedule, a.stats.takeWindow(), a.inFlight.Load())
		}
	}
}

// record counts one result.
func (a *attack) record(r *vegeta.Result) {
	a.inFlight.Add(-1)
	_, id, _ := strings.Cut(r.URL, "#")
	value, ok := a.transport.ops.LoadAndDelete(id)
	if !ok {
		return // vegeta could not make a request of the target: it was never sent
	}
	op := value.(*operation)
	one := &sample{
		verb:     op.verb,
		token:    op.token,
		due:      a.schedule.due(r.Seq),
		started:  r.Timestamp.Sub(a.began),
		end:      r.Timestamp.Add(r.Latency).Sub(a.began),
		crowded:  op.crowded,
		sent:     int64(r.BytesOut),
		received: op.received,
	}
	one.connected = one.end
	if !op.connected.IsZero() {
		one.connected = op.connected.Sub(a.began)
	}
	a.judge(one, op, r)
	a.stats.add(one)
}

// judge tells the outcome of an operation, and draws the conclusions for the next ones.
func (a *attack) judge(one *sample, op *operation, r *vegeta.Result) {
	tokens := a.workload.tokens
	switch {
	case op.heldBack:
		one.outcome = heldBack
		return
	case op.err != nil:
		one.outcome, one.timedOut = failed, isTimeout(op.err)
		one.fault = brokenFault(op.err, tokens)
		if one.timedOut && op.connected.IsZero() {
			one.fault.kind = "timeout before there was a connection"
		}
		return
	case r.Code == 0:
		one.outcome = failed
		one.fault = brokenFault(errors.New(r.Error), tokens)
		return
	}
	one.code = int(r.Code)
	switch {
	case r.Code >= 200 && r.Code < 300:
		a.workload.succeeded(op)
	case r.Code == http.StatusTooManyRequests:
		one.outcome = rateLimited
		now := time.Now()
		tokens.hold(op.token, now.Add(retryAfter(r.Headers, now)))
	default:
		one.outcome = failed
		one.fault = answerFault(one.code, r.Body, tokens)
	}
}
