package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"time"
)

// runner is one call of the command, from its flags to its report.
type runner struct {
	config    *config
	command   string
	access    *access
	tokens    *tokenPool
	api       *api
	workload  *workload
	transport *transport
	watchers  *watchers // nil: none
	progress  *progress
}

func newRunner(c *config, args []string, stderr io.Writer) (*runner, error) {
	a, err := c.access()
	if err != nil {
		return nil, err
	}
	r := &runner{config: c, access: a, tokens: newTokenPool(a.tokens), progress: newProgress(stderr, c.Watchers > 0)}
	r.command = r.tokens.redact("loadtest" + quoted(args))
	r.api = &api{client: &http.Client{Transport: newTransport(a, c.HTTP2, preparers)}, server: a.server, tokens: r.tokens}
	r.workload = newWorkload(c, strconv.FormatUint(rand.Uint64N(1<<40), 36), r.tokens)
	r.transport = &transport{pool: newTransports(a, c), timeout: c.Timeout, sent: &sendTimes{}}
	return r, nil
}

// run makes the load that c asks for, until it is done or ctx ends, and writes the reports.
// A *missedError is a run that was reported, and whose outcome is not what was asked for.
func run(ctx context.Context, c *config, args []string, stdout, stderr io.Writer) error {
	outputs, err := c.outputs()
	if err != nil {
		return err
	}
	r, err := newRunner(c, args, stderr)
	if err != nil {
		return err
	}
	// Before the load: a path that cannot be written to must not cost a run.
	files, err := openOutputs(outputs, stdout)
	if err != nil {
		return err
	}
	defer files.close()
	rep, err := r.load(ctx)
	if err != nil {
		return err
	}
	if err := files.write(rep); err != nil {
		return err
	}
	return rep.verdict()
}

// load prepares the server, makes the load, and leaves the server as it was.
func (r *runner) load(ctx context.Context) (rep *report, err error) {
	defer r.transport.close()
	defer r.api.client.CloseIdleConnections()
	defer r.progress.done()
	version := r.api.version(ctx)
	own, err := r.api.ensureNamespace(ctx, r.config.Namespace)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", r.access.server, err)
	}
	if !r.config.Keep {
		defer func() {
			if err := r.api.cleanUp(ctx, r.workload, r.config.Namespace, own); err != nil {
				r.progress.note("cannot remove what the run has made in the namespace %s: %v", r.config.Namespace, err)
			}
		}()
	}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	if r.config.Watchers > 0 {
		r.progress.note("opening %s watches", grouped(r.config.Watchers))
		if r.watchers, err = startWatchers(ctx, r.config, r.access, r.api, r.workload, r.transport.sent); err != nil {
			return nil, err
		}
		defer r.watchers.close()
	}
	c := r.config
	if c.FindCapacity {
		found, m := r.findCapacity(ctx)
		if m == nil {
			return nil, errors.New("ended before the first step was over")
		}
		return newReport(r, version, m, found), nil
	}
	m := r.attack(ctx, schedule{start: c.StartRate, rate: c.Rate, ramp: c.Ramp, duration: c.Duration})
	return newReport(r, version, m, nil), nil
}

func (r *runner) prepare(ctx context.Context) error {
	r.progress.note("preparing %s objects in the namespace %s", grouped(r.config.Objects), r.config.Namespace)
	told := time.Now()
	err := r.api.prepare(ctx, r.workload, func(count int) {
		if now := time.Now(); now.Sub(told) >= time.Second {
			told = now
			r.progress.line("prepared %s of %s objects", grouped(count), grouped(r.config.Objects))
		}
	})
	if err != nil {
		return fmt.Errorf("cannot prepare the objects: %w", err)
	}
	return nil
}

// attack makes one stretch of load.
func (r *runner) attack(ctx context.Context, s schedule) *measurement {
	a := &attack{
		schedule: s, server: r.access.server, config: r.config, workload: r.workload, transport: r.transport,
		watchers: r.watchers, stats: newStats(s.duration, r.tokens.size()),
	}
	r.progress.begin()
	return a.run(ctx, r.progress)
}

// reports are the reports to be written, each with where it goes.
type reports []struct {
	output
	to io.Writer
}

// openOutputs makes the files of the reports.
func openOutputs(outputs []output, stdout io.Writer) (reports, error) {
	all := make(reports, len(outputs))
	for i, o := range outputs {
		all[i].output, all[i].to = o, stdout
		if o.path == "" {
			continue
		}
		file, err := os.Create(o.path)
		if err != nil {
			all[:i].close()
			return nil, &flagError{"output", err}
		}
		all[i].to = file
	}
	return all, nil
}

func (all reports) write(rep *report) error {
	for _, one := range all {
		if err := writers[one.kind](one.to, rep); err != nil {
			return fmt.Errorf("cannot write the %s report: %w", one.kind, err)
		}
		if file, ok := one.to.(*os.File); ok && one.path != "" {
			if err := file.Close(); err != nil {
				return fmt.Errorf("cannot write the %s report: %w", one.kind, err)
			}
		}
	}
	return nil
}

// close closes the files that are still open.
func (all reports) close() {
	for _, one := range all {
		if file, ok := one.to.(*os.File); ok && one.path != "" {
			file.Close()
		}
	}
}

// writers write a report in each of outputKinds.
var writers = map[string]func(io.Writer, *report) error{"text": writeText, "json": writeJSON, "html": writeHTML}
