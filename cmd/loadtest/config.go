package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/berth-project/berth/cmd/loadtest/internal/client"
	"github.com/berth-project/berth/cmd/loadtest/internal/load"
	"github.com/berth-project/berth/cmd/loadtest/internal/report"
)

const (
	// maxRate is far above what one process can send, and low enough that due times are
	// exact to the microsecond.
	maxRate = 1_000_000
	// maxAddresses makes an object of 16 MB, which is more than any server accepts.
	maxAddresses = 100_000
	// maxCount bounds objects, connections and the like, each of which takes memory here.
	maxCount = 100_000
)

// config is everything that the flags say. Rates are requests per second.
type config struct {
	Client client.Config
	Load   load.Config
	Keep   bool

	Rate      float64
	Duration  time.Duration
	StartRate float64
	Ramp      time.Duration

	FindCapacity bool
	P99          time.Duration
	MinRate      float64
	MaxRate      float64
	StepDuration time.Duration

	Output        []string
	MaxErrorShare float64
}

func defaultConfig() config {
	return config{
		Load: load.Config{
			Namespace:   "loadtest",
			Mix:         load.DefaultMix,
			Objects:     100,
			Addresses:   10,
			Seed:        1,
			Connections: 256,
			MaxWorkers:  1000,
			Timeout:     10 * time.Second,
		},
		Rate:          100,
		Duration:      30 * time.Second,
		P99:           50 * time.Millisecond,
		MinRate:       50,
		MaxRate:       20000,
		StepDuration:  10 * time.Second,
		Output:        []string{"text"},
		MaxErrorShare: 0.01,
	}
}

// settings returns what the report says of the flags. tokens is how many there are.
func (c *config) settings(tokens int) report.Settings {
	l := &c.Load
	return report.Settings{
		Mix: l.Mix.String(), Objects: l.Objects, Addresses: l.Addresses, Tokens: tokens,
		HonorRetryAfter: l.HonorRetryAfter, Connections: l.Connections, MaxWorkers: l.MaxWorkers, HTTP2: c.Client.HTTP2,
		TimeoutSeconds: l.Timeout.Seconds(), Watchers: l.Watchers, WatchGzip: l.WatchGzip,
		Namespace: l.Namespace, Seed: l.Seed, MaxErrorShare: c.MaxErrorShare,
	}
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
		{"start-rate", between(c.StartRate, 0, maxRate)},
		{"ramp", between(c.Ramp, 0, c.Duration)},
		{"start-rate", onlyWith(c.StartRate > 0, c.Ramp > 0, "--ramp")},
		{"objects", between(l.Objects, 1, maxCount)},
		{"addresses", between(l.Addresses, 0, maxAddresses)},
		{"connections", between(l.Connections, 1, maxCount)},
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
	return c.validateMode(flags)
}

// validateMode refuses flags that would have no effect.
func (c *config) validateMode(flags *pflag.FlagSet) error {
	useless, err := []string{"p99", "min-rate", "max-rate", "step-duration"}, errors.New("has no effect without --find-capacity")
	if c.FindCapacity {
		useless, err = []string{"rate", "duration", "ramp", "start-rate"}, errors.New("has no effect with --find-capacity")
	}
	for _, flag := range useless {
		if flags.Changed(flag) {
			return flagError(flag, err)
		}
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

// output is one report to write.
type output struct {
	kind string // one of report.Kinds
	path string // empty: standard output
}

// outputs parses the values of --output, each "kind" or "kind=file".
func (c *config) outputs() ([]output, error) {
	var all []output
	toStdout := 0
	for _, value := range c.Output {
		kind, path, given := strings.Cut(value, "=")
		if !slices.Contains(report.Kinds, kind) {
			return nil, flagError("output", fmt.Errorf("%q is not one of %s", kind, strings.Join(report.Kinds, ", ")))
		}
		if given && path == "" {
			return nil, flagError("output", fmt.Errorf("%q has no file", value))
		}
		if path == "" {
			toStdout++
		}
		all = append(all, output{kind, path})
	}
	if toStdout > 1 {
		return nil, flagError("output", errors.New("only one report can go to standard output; give the others files, as in html=report.html"))
	}
	return all, nil
}
