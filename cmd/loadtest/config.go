package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// maxRate is far above what one process can send, and keeps due times exact to the
	// microsecond.
	maxRate = 1_000_000
	// maxAddresses makes an object of 16 MB, which is more than any server takes.
	maxAddresses = 100_000
	// maxCount bounds what is made of one kind, each of which takes memory here.
	maxCount = 100_000
)

// config is everything that the flags say. Rates are requests a second.
type config struct {
	Server                string
	Kubeconfig            string
	Tokens, TokenFiles    []string
	CAFile                string
	InsecureSkipTLSVerify bool
	Namespace             string
	Keep                  bool

	Rate            float64
	Duration        time.Duration
	StartRate       float64
	Ramp            time.Duration
	Mix             mix
	Objects         int
	Addresses       int
	Seed            uint64
	HonorRetryAfter bool

	Connections int
	MaxWorkers  int
	HTTP2       bool
	Timeout     time.Duration

	Watchers  int
	WatchGzip bool

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
		Namespace:     "loadtest",
		Rate:          100,
		Duration:      30 * time.Second,
		Mix:           mix{verbCreate: 10, verbGet: 60, verbUpdate: 20, verbPatch: 5, verbApply: 2, verbList: 1, verbDelete: 2},
		Objects:       100,
		Addresses:     10,
		Seed:          1,
		Connections:   256,
		MaxWorkers:    1000,
		Timeout:       10 * time.Second,
		P99:           50 * time.Millisecond,
		MinRate:       50,
		MaxRate:       20000,
		StepDuration:  10 * time.Second,
		Output:        []string{"text"},
		MaxErrorShare: 0.01,
	}
}

// flagError is a value that a flag may not have.
type flagError struct {
	flag string // without dashes
	err  error
}

func (e *flagError) Error() string { return fmt.Sprintf("--%s: %v", e.flag, e.err) }

func (e *flagError) Unwrap() error { return e.err }

// validate returns the first fault of c as a *flagError. It reads no file.
func (c *config) validate(flags *pflag.FlagSet) error {
	for _, check := range []struct {
		flag string
		err  error
	}{
		{"namespace", validateNamespace(c.Namespace)},
		{"rate", between(c.Rate, 0.01, maxRate)},
		{"duration", between(c.Duration, 100*time.Millisecond, 7*24*time.Hour)},
		{"start-rate", between(c.StartRate, 0, maxRate)},
		{"ramp", between(c.Ramp, 0, c.Duration)},
		{"start-rate", onlyWith(c.StartRate > 0, c.Ramp > 0, "--ramp")},
		{"objects", between(c.Objects, 1, maxCount)},
		{"addresses", between(c.Addresses, 0, maxAddresses)},
		{"connections", between(c.Connections, 1, maxCount)},
		{"max-workers", between(c.MaxWorkers, 1, maxCount)},
		{"timeout", between(c.Timeout, time.Millisecond, time.Hour)},
		{"watchers", between(c.Watchers, 0, maxCount)},
		{"watch-gzip", onlyWith(c.WatchGzip, c.Watchers > 0, "--watchers")},
		{"p99", between(c.P99, time.Millisecond, time.Hour)},
		{"min-rate", between(c.MinRate, 0.01, maxRate)},
		{"max-rate", between(c.MaxRate, c.MinRate, maxRate)},
		{"step-duration", between(c.StepDuration, time.Second, time.Hour)},
		{"max-error-share", between(c.MaxErrorShare, 0, 1)},
	} {
		if check.err != nil {
			return &flagError{check.flag, check.err}
		}
	}
	return c.validateMode(flags)
}

// validateMode refuses flags that would be given in vain.
func (c *config) validateMode(flags *pflag.FlagSet) error {
	vain, err := []string{"p99", "min-rate", "max-rate", "step-duration"}, errors.New("has no meaning without --find-capacity")
	if c.FindCapacity {
		vain, err = []string{"rate", "duration", "ramp", "start-rate"}, errors.New("has no meaning with --find-capacity")
	}
	for _, flag := range vain {
		if flags.Changed(flag) {
			return &flagError{flag, err}
		}
	}
	return nil
}

func validateNamespace(name string) error {
	if faults := validation.IsDNS1123Label(name); len(faults) > 0 {
		return fmt.Errorf("%q is no name of a namespace: %s", name, faults[0])
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
		return fmt.Errorf("has no meaning without %s", flag)
	}
	return nil
}

// outputKinds are the forms of a report.
var outputKinds = []string{"text", "json", "html"}

// output is one report to be written.
type output struct {
	kind string // one of outputKinds
	path string // empty: standard output
}

// outputs reads the values of --output, "kind" or "kind=file" each.
func (c *config) outputs() ([]output, error) {
	var all []output
	toStdout := 0
	for _, value := range c.Output {
		kind, path, given := strings.Cut(value, "=")
		if !slices.Contains(outputKinds, kind) {
			return nil, &flagError{"output", fmt.Errorf("%q is none of %s", kind, strings.Join(outputKinds, ", "))}
		}
		if given && path == "" {
			return nil, &flagError{"output", fmt.Errorf("%q has no file", value)}
		}
		if path == "" {
			toStdout++
		}
		all = append(all, output{kind, path})
	}
	if toStdout > 1 {
		return nil, &flagError{"output", errors.New("only one report can go to standard output; give the others files, as in html=report.html")}
	}
	return all, nil
}
