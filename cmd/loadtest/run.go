package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/client"
	"github.com/berth-project/berth/cmd/loadtest/internal/load"
	"github.com/berth-project/berth/cmd/loadtest/internal/report"
	"github.com/berth-project/berth/cmd/loadtest/internal/schedule"
	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// runner is one call of the command, from its flags to its report.
type runner struct {
	config    *config
	client    *client.Client
	generator *load.Generator
	progress  *report.Progress
}

// run generates the load that c asks for, until it is done or ctx ends, and writes the
// reports. The error is a *missedError if the run was reported, but the server did not do
// what was asked for.
func run(ctx context.Context, c *config, args []string, stdout, stderr io.Writer) error {
	outputs, err := c.outputs()
	if err != nil {
		return err
	}
	cl, err := client.New(&c.Client, userAgent)
	if err != nil {
		return err
	}
	// Before the load: a path that cannot be written to must not cost a run.
	files, err := openOutputs(outputs, stdout)
	if err != nil {
		return err
	}
	defer files.close()
	r := &runner{
		config: c, client: cl, progress: report.NewProgress(stderr, c.Load.Watchers > 0),
		generator: load.New(&c.Load, cl, strconv.FormatUint(rand.Uint64N(1<<40), 36)),
	}
	rep, err := r.run(ctx, cl.Redact(text.Command("loadtest", args)))
	if err != nil {
		return err
	}
	if err := files.write(rep); err != nil {
		return err
	}
	return verdict(rep)
}

// run prepares the server, generates the load, and leaves the server as it was.
func (r *runner) run(ctx context.Context, command string) (*report.Report, error) {
	defer r.client.Close()
	defer r.progress.Done()
	c := r.config
	version := r.client.Version(ctx)
	created, err := r.client.EnsureNamespace(ctx, c.Load.Namespace)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", r.client.Server, err)
	}
	if !c.Keep {
		defer func() {
			if err := r.generator.CleanUp(ctx, created); err != nil {
				r.progress.Note("cannot delete the objects of the run in the namespace %s: %v", c.Load.Namespace, err)
			}
		}()
	}
	defer r.generator.Close()
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	m, found, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	rep := report.New(report.Run{
		Tool: userAgent, Command: command, Server: report.Server{URL: r.client.Server, Version: version},
		Settings: c.settings(r.client.Tokens.Given()), SwappedDelete: r.generator.SwappedDeletes(),
	}, m)
	rep.Capacity = found
	return rep, nil
}

// prepare creates the objects and opens the watches.
func (r *runner) prepare(ctx context.Context) error {
	c := &r.config.Load
	r.progress.Note("preparing %s objects in the namespace %s", text.Count(c.Objects), c.Namespace)
	told := time.Now()
	err := r.generator.Prepare(ctx, func(count int) {
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
	return r.generator.Watch(ctx)
}

// load generates the load, or looks for the highest rate that holds. found is nil without a
// search.
func (r *runner) load(ctx context.Context) (m *report.Measurement, found *report.Capacity, err error) {
	c := r.config
	if !c.FindCapacity {
		plan := schedule.Schedule{Start: c.StartRate, Rate: c.Rate, Ramp: c.Ramp, Duration: c.Duration}
		return r.generator.Run(ctx, plan, r.progress), nil, nil
	}
	found, m = r.findCapacity(ctx)
	if m == nil {
		return nil, nil, errors.New("interrupted before the first step was over")
	}
	return m, found, nil
}

// verdict returns nil for a run that shows what was asked for, a *missedError for one that
// does not, and another error for one that shows nothing because no request got an answer.
func verdict(rep *report.Report) error {
	if rep.Requests.Sent > 0 && !answered(rep) {
		return fmt.Errorf("no request got an answer: %s: %s", rep.Errors[0].Kind, rep.Errors[0].Example)
	}
	if rep.Capacity != nil {
		if rep.Capacity.RatePerSecond == 0 {
			return &missedError{"not even the lowest rate held: " + rep.Capacity.Steps[0].String()}
		}
		return nil
	}
	if limit := rep.Settings.MaxErrorShare; rep.ErrorShare > limit {
		return &missedError{fmt.Sprintf("%s of the requests failed, more than --max-error-share=%v: %s",
			text.Percent(rep.ErrorShare), limit, rep.Errors[0].Kind)}
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

// outputFiles are the reports to write, each with where it goes.
type outputFiles []struct {
	output
	to io.Writer
}

// openOutputs creates the files of the reports.
func openOutputs(outputs []output, stdout io.Writer) (outputFiles, error) {
	all := make(outputFiles, len(outputs))
	for i, o := range outputs {
		all[i].output, all[i].to = o, stdout
		if o.path == "" {
			continue
		}
		file, err := os.Create(o.path)
		if err != nil {
			all[:i].close()
			return nil, flagError("output", err)
		}
		all[i].to = file
	}
	return all, nil
}

func (all outputFiles) write(rep *report.Report) error {
	for _, one := range all {
		err := rep.Write(one.to, one.kind)
		if file, ok := one.to.(*os.File); err == nil && ok && one.path != "" {
			err = file.Close()
		}
		if err != nil {
			return fmt.Errorf("cannot write the %s report: %w", one.kind, err)
		}
	}
	return nil
}

// close closes the files that are still open.
func (all outputFiles) close() {
	for _, one := range all {
		if file, ok := one.to.(*os.File); ok && one.path != "" {
			file.Close()
		}
	}
}
