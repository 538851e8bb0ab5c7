package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/client"
	"github.com/berth-project/berth/cmd/loadtest/internal/load"
	"github.com/berth-project/berth/cmd/loadtest/internal/report"
	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// target is a server that gets load.
type target struct {
	kubectl   string // the start of a command for it
	client    *client.Client
	generator *load.Generator
	usage     *usage // of the server's process; nil: not asked for
	version   string
}

func newTarget(c *config, access *client.Config, pidFlag string, pid int) (*target, error) {
	cl, err := client.New(access, userAgent)
	if err != nil {
		return nil, err
	}
	t := &target{
		kubectl: access.Kubectl(), client: cl,
		generator: load.New(&c.Load, cl, strconv.FormatUint(rand.Uint64N(1<<40), 36)),
	}
	if pid != 0 {
		if t.usage, err = newUsage(pidFlag, pid); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// runner is one call of the command, from its flags to its report.
type runner struct {
	config   *config
	targets  []*target // one, or two that take turns
	progress *report.Progress
}

// newRunner returns a runner for what the flags in c name. It reads files, but does not
// connect.
func newRunner(c *config, stderr io.Writer) (*runner, error) {
	r := &runner{config: c, progress: report.NewProgress(stderr, c.Load.Watchers > 0)}
	first, err := newTarget(c, &c.Client, "pid", c.PID)
	if err != nil {
		return nil, err
	}
	r.targets = []*target{first}
	if c.versus() {
		c.Versus.HTTP2 = c.Client.HTTP2
		second, err := newTarget(c, &c.Versus, "versus-pid", c.VersusPID)
		if err != nil {
			return nil, fmt.Errorf("the server of --versus: %w", err)
		}
		r.targets = append(r.targets, second)
	}
	return r, nil
}

// run generates the load that c asks for, until it is done or ctx ends, and writes the
// reports. The error is a *missedError if the run was reported, but the server did not do
// what was asked for.
func run(ctx context.Context, c *config, args []string, stdout, stderr io.Writer, undone *undone) error {
	outputs, err := c.outputs()
	if err != nil {
		return err
	}
	r, err := newRunner(c, stderr)
	if err != nil {
		return err
	}
	// Before the load: a path that cannot be written to must not cost a run.
	files, err := openOutputs(outputs, stdout)
	if err != nil {
		return err
	}
	defer files.discard()
	undone.set(func() []string { files.discard(); return r.left() })
	rep, err := r.run(ctx, r.targets[0].client.Redact(text.Command("loadtest", args)))
	if err != nil {
		return err
	}
	if err := files.write(rep); err != nil {
		return err
	}
	return verdict(rep)
}

// run prepares the servers, generates the load, and leaves the servers as they were.
func (r *runner) run(ctx context.Context, command string) (*report.Report, error) {
	defer r.progress.Done()
	defer r.end(ctx)
	for _, t := range r.targets {
		t.version = t.client.Version(ctx)
		if err := t.generator.OpenNamespaces(ctx); err != nil {
			return nil, fmt.Errorf("cannot use %s: %w", t.client.Server, err)
		}
		if err := r.prepare(ctx, t); err != nil {
			return nil, err
		}
	}
	if len(r.targets) > 1 {
		return r.compare(ctx, command)
	}
	m, found, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	rep := r.report(command, r.targets[0], m)
	rep.Capacity = found
	if found == nil {
		rep.Check(r.config.conditions)
	}
	return rep, nil
}

// report returns the report on a target.
func (r *runner) report(command string, t *target, m *report.Measurement) *report.Report {
	m.Process = t.usage.result()
	if t.usage != nil && m.Process == nil {
		r.progress.Note("the CPU time and memory of process %d are not known: %v", t.usage.used.PID, t.usage.err)
	}
	return report.New(report.Run{
		Tool: userAgent, Command: command, Server: report.Server{URL: t.client.Server, Version: t.version},
		Settings: r.config.settings(t.client), Sources: t.client.Tokens.Sources(), SwappedDelete: t.generator.SwappedDeletes(),
	}, m)
}

// end ends the load, and deletes what the run has created or says what is left.
func (r *runner) end(ctx context.Context) {
	for _, t := range r.targets {
		t.generator.Close()
		if !r.config.Keep {
			if err := t.generator.CleanUp(ctx); err != nil {
				r.progress.Note("cannot delete all of the run on %s: %v", t.client.Server, err)
			}
		}
		t.client.Close()
	}
	for _, line := range r.left() {
		r.progress.Note("%s", line)
	}
}

// left returns how to delete what the run has left but should not have, a command each.
func (r *runner) left() (lines []string) {
	if r.config.Keep {
		return nil
	}
	for _, t := range r.targets {
		for _, command := range t.generator.Left() {
			lines = append(lines, "left behind; delete it with: "+t.kubectl+" "+command)
		}
	}
	return lines
}

// prepare creates the objects and opens the watches.
func (r *runner) prepare(ctx context.Context, t *target) error {
	c := &r.config.Load
	r.progress.Note("preparing %s objects on %s", text.Count(c.Objects), t.client.Server)
	told := time.Now()
	err := t.generator.Prepare(ctx, func(count int) {
		if now := time.Now(); now.Sub(told) >= time.Second {
			told = now
			r.progress.Line("prepared %s of %s objects", text.Count(count), text.Count(c.Objects))
		}
	})
	if err != nil {
		return fmt.Errorf("cannot prepare the objects: %w", err)
	}
	if c.Watchers > 0 {
		r.progress.Note("opening %s watches", text.Count(c.Watchers))
	}
	return t.generator.Watch(ctx)
}

// load generates the load, or looks for the highest rate that holds. found is nil without a
// search.
func (r *runner) load(ctx context.Context) (m *report.Measurement, found *report.Capacity, err error) {
	t := r.targets[0]
	defer t.usage.measure()()
	if !r.config.FindCapacity {
		return t.generator.Run(ctx, r.config.plan, r.progress), nil, nil
	}
	found, m = r.findCapacity(ctx)
	if m == nil {
		return nil, nil, errors.New("interrupted before the first step was over")
	}
	return m, found, nil
}

// compare lets the two servers take turns, the other one first in every second round, so that
// whatever else changes on the machines meets both.
func (r *runner) compare(ctx context.Context, command string) (*report.Report, error) {
	var all []*report.Measurement
	for _, t := range r.targets {
		all = append(all, t.generator.Measure(r.config.plan))
	}
	for turn := range 2 * len(r.config.plan) {
		round := turn / 2
		i := (turn + round) % 2
		t := r.targets[i]
		r.progress.Note("round %d of %d: %s", round+1, len(r.config.plan), t.client.Server)
		end := t.usage.measure()
		t.generator.Send(ctx, all[i], round, round+1, r.progress)
		end()
		if ctx.Err() != nil {
			if round < minRounds {
				return nil, fmt.Errorf("interrupted before %d rounds were over", minRounds)
			}
			break
		}
	}
	a, b := r.report(command, r.targets[0], all[0]), r.report(command, r.targets[1], all[1])
	a.Check(r.config.conditions)
	a.Versus = &report.Versus{Comparison: report.Compare(a, b, [2]string{a.Server.URL, b.Server.URL}, true), Other: b}
	return a, nil
}

// verdict returns nil for a run that shows what was asked for, a *missedError for one that
// does not, and another error for one that shows nothing because no request got an answer.
func verdict(rep *report.Report) error {
	if rep.Requests.Sent > 0 && !answered(rep) {
		return fmt.Errorf("no request to %s got an answer: %s: %s", rep.Server.URL, rep.Errors[0].Kind, rep.Errors[0].Example)
	}
	if rep.Capacity != nil {
		if rep.Capacity.RatePerSecond == 0 {
			return &missedError{"not even the lowest rate held: " + rep.Capacity.Steps[0].String()}
		}
		return nil
	}
	if rep.Versus != nil {
		if err := verdict(rep.Versus.Other); err != nil {
			return err
		}
	}
	var failed []string
	for _, check := range rep.Checks {
		if check.Failed {
			failed = append(failed, check.String())
		}
	}
	if len(failed) > 0 {
		reason := "--fail-if " + strings.Join(failed, "; ")
		if len(rep.Errors) > 0 {
			reason += " (" + rep.Errors[0].Kind + ": " + rep.Errors[0].Example + ")"
		}
		return &missedError{reason}
	}
	return nil
}

// answered reports whether any request had an answer with a status code.
func answered(rep *report.Report) bool {
	for _, token := range rep.Tokens {
		for code := range token.Codes {
			if code != report.NoAnswer {
				return true
			}
		}
	}
	return false
}
