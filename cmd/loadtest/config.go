package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/berth-project/berth/cmd/loadtest/internal/client"
	"github.com/berth-project/berth/cmd/loadtest/internal/load"
	"github.com/berth-project/berth/cmd/loadtest/internal/report"
	"github.com/berth-project/berth/cmd/loadtest/internal/schedule"
)

const (
	// maxRate is far above what one process can send, and low enough that due times are
	// exact to the microsecond.
	maxRate = 1_000_000
	// maxAddresses makes an object of 16 MB, which is more than any server accepts.
	maxAddresses = 100_000
	// maxCount bounds objects, connections and the like, each of which takes memory here.
	maxCount = 100_000
	// maxNamespaces bounds how long they take to create and to delete.
	maxNamespaces = 1000
	// maxPhases bounds the memory for distributions of phases and rounds.
	maxPhases = 100
	// minRounds is how many can show a difference in every row at all: with 6 of either
	// server p is 0.002 if each of the one's medians is below each of the other's.
	minRounds = 6
)

// config is everything that the flags say. Rates are requests per second.
type config struct {
	Client client.Config
	Load   load.Config
	Keep   bool
	PID    int // 0: none

	Rate     float64
	Duration time.Duration
	Phases   []string // as --phase takes them; none: Rate for Duration

	Versus    client.Config // the server to compare with; without a server and a kubeconfig: none
	VersusPID int
	Rounds    int

	FindCapacity bool
	P99          time.Duration
	MinRate      float64
	MaxRate      float64
	StepDuration time.Duration
	// MaxErrorShare is of the due requests that may not succeed at a rate that holds.
	MaxErrorShare float64

	Output []string
	FailIf []string

	// Made of the flags by validate.
	plan       schedule.Schedule // of a run without a search
	conditions []report.Condition
}

// versus reports whether two servers are to take turns.
func (c *config) versus() bool { return c.Versus.Server != "" || c.Versus.Kubeconfig != "" }

func defaultConfig() config {
	return config{
		Client: client.Config{HTTP2: true},
		Load: load.Config{
			Namespace:  "loadtest",
			Namespaces: 1,
			Mix:        load.DefaultMix,
			Objects:    100,
			Addresses:  10,
			Seed:       1,
			MaxWorkers: 1000,
			Timeout:    10 * time.Second,
		},
		Rate:          100,
		Duration:      30 * time.Second,
		Rounds:        10,
		P99:           50 * time.Millisecond,
		MinRate:       50,
		MaxRate:       20000,
		StepDuration:  10 * time.Second,
		MaxErrorShare: 0.01,
		Output:        []string{"text"},
		FailIf:        []string{"errors>1%"},
	}
}

// settings returns what the report says of the flags for a run with cl.
func (c *config) settings(cl *client.Client) report.Settings {
	l := &c.Load
	s := report.Settings{
		Mix: l.Mix.String(), Objects: l.Objects, Addresses: l.Addresses, Tokens: cl.Tokens.Given(),
		HonorRetryAfter: l.HonorRetryAfter, Connections: load.Connections(l, cl), MaxWorkers: l.MaxWorkers,
		HTTP2: cl.HTTP2, Protobuf: l.Protobuf, TimeoutSeconds: l.Timeout.Seconds(), Watchers: l.Watchers,
		WatchGzip: l.WatchGzip, Namespace: l.Namespace, Namespaces: l.Namespaces, Seed: l.Seed,
	}
	if c.versus() {
		s.Rounds = c.Rounds
	}
	return s
}

// flagError returns an error about the value of a flag, which is named without dashes.
func flagError(flag string, err error) error { return fmt.Errorf("--%s: %w", flag, err) }

// validate returns the first invalid flag. It reads no file.
func (c *config) validate(flags *pflag.FlagSet) error {
	l := &c.Load
	for _, check := range []struct {
		flag string
		err  error
	}{
		{"namespace", validateNamespace(l.Namespace)},
		{"rate", between(c.Rate, 0.01, maxRate)},
		{"duration", between(c.Duration, 100*time.Millisecond, 7*24*time.Hour)},
		{"namespaces", between(l.Namespaces, 1, maxNamespaces)},
		{"pid", between(c.PID, 0, math.MaxInt32)},
		{"versus-pid", between(c.VersusPID, 0, math.MaxInt32)},
		{"rounds", between(c.Rounds, minRounds, maxPhases)},
		{"objects", between(l.Objects, 1, maxCount)},
		{"addresses", between(l.Addresses, 0, maxAddresses)},
		{"connections", between(l.Connections, 0, maxCount)},
		{"max-workers", between(l.MaxWorkers, 1, maxCount)},
		{"timeout", between(l.Timeout, time.Millisecond, time.Hour)},
		{"watchers", between(l.Watchers, 0, maxCount)},
		{"watch-gzip", onlyWith(l.WatchGzip, l.Watchers > 0, "--watchers")},
		{"p99", between(c.P99, time.Millisecond, time.Hour)},
		{"min-rate", between(c.MinRate, 0.01, maxRate)},
		{"max-rate", between(c.MaxRate, c.MinRate, maxRate)},
		{"step-duration", between(c.StepDuration, time.Second, time.Hour)},
		{"max-error-share", between(c.MaxErrorShare, 0, 1)},
	} {
		if check.err != nil {
			return flagError(check.flag, check.err)
		}
	}
	if err := c.validateMode(flags); err != nil {
		return err
	}
	if err := c.makePlan(); err != nil {
		return err
	}
	return c.makeConditions()
}

// validateMode refuses flags that would have no effect.
func (c *config) validateMode(flags *pflag.FlagSet) error {
	for _, mode := range []struct {
		on    bool
		flags []string
		fault string
	}{
		{!c.FindCapacity, []string{"p99", "max-error-share", "min-rate", "max-rate", "step-duration"}, "has no effect without --find-capacity"},
		{c.FindCapacity, []string{"rate", "duration", "phase", "fail-if", "pid", "versus", "versus-kubeconfig"}, "has no effect with --find-capacity"},
		{!c.versus(), []string{"rounds", "versus-pid"}, "has no effect without --versus or --versus-kubeconfig"},
		{c.versus(), []string{"phase"}, "has no effect with --versus and --versus-kubeconfig"},
		{len(c.Phases) > 0, []string{"rate", "duration"}, "has no effect with --phase"},
	} {
		for _, flag := range mode.flags {
			if mode.on && flags.Changed(flag) {
				return flagError(flag, errors.New(mode.fault))
			}
		}
	}
	return nil
}

// makePlan makes the schedule: of the phases, or of rounds of the same rate.
func (c *config) makePlan() error {
	one := schedule.Phase{From: c.Rate, To: c.Rate, Duration: c.Duration}
	c.plan = schedule.Schedule{one}
	if c.versus() {
		one.Duration = c.Duration / time.Duration(c.Rounds)
		if one.Duration < time.Second {
			return flagError("rounds", fmt.Errorf("%d rounds in --duration=%v are shorter than 1 s each", c.Rounds, c.Duration))
		}
		c.plan = slices.Repeat(schedule.Schedule{one}, c.Rounds)
	}
	if len(c.Phases) > maxPhases {
		return flagError("phase", fmt.Errorf("given %d times, more than %d", len(c.Phases), maxPhases))
	}
	for i, text := range c.Phases {
		p, err := schedule.ParsePhase(text)
		if err == nil {
			err = errors.Join(between(p.From, 0, maxRate), between(p.To, 0.01, maxRate), between(p.Duration, 100*time.Millisecond, 7*24*time.Hour))
		}
		if err == nil && p.From < 0.01 && p.From == p.To {
			err = fmt.Errorf("%q: a phase without requests", text)
		}
		if err != nil {
			return flagError("phase", err)
		}
		if i == 0 {
			c.plan = nil
		}
		c.plan = append(c.plan, p)
	}
	return nil
}

// makeConditions parses --fail-if, and refuses what the run will not measure.
func (c *config) makeConditions() error {
	for _, text := range c.FailIf {
		condition, err := report.ParseCondition(text, load.Verbs)
		if err != nil {
			return flagError("fail-if", err)
		}
		switch subject := condition.Subject; {
		case subject == report.WatchSubject && c.Load.Watchers == 0:
			err = fmt.Errorf("%q has no effect without --watchers", text)
		case subject != "" && subject != report.WatchSubject && c.Load.Mix.Weight(subject) == 0:
			err = fmt.Errorf("%q has no effect: --mix sends no %s", text, subject)
		}
		if err != nil {
			return flagError("fail-if", err)
		}
		c.conditions = append(c.conditions, condition)
	}
	return nil
}

func validateNamespace(name string) error {
	if faults := validation.IsDNS1123Label(name); len(faults) > 0 {
		return fmt.Errorf("%q is not a namespace name: %s", name, faults[0])
	}
	return nil
}

func between[N int | float64 | time.Duration](n, least, most N) error {
	if !(n >= least && n <= most) { // so that NaN is refused
		return fmt.Errorf("%v is not between %v and %v", n, least, most)
	}
	return nil
}

func onlyWith(set, with bool, flag string) error {
	if set && !with {
		return fmt.Errorf("has no effect without %s", flag)
	}
	return nil
}
