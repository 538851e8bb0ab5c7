// Command loadtest sends requests to a Kubernetes-style API server at a rate that does not
// depend on how fast the server answers, and reports what a client would have seen.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// Exit statuses.
const (
	statusOK = 0
	// statusFailed is for a run that could not start, could not write its report, or got no
	// answer at all.
	statusFailed = 1
	// statusMissed is for a run that was reported, but ended with a *missedError.
	statusMissed = 2
	// statusAborted is for a run that a second signal ended.
	statusAborted = 130
)

func main() {
	ctx, stop := context.WithCancel(context.Background())
	undone := &undone{}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals // ends the run early
		stop()
		<-signals // ends the process at once
		for _, line := range undone.finish() {
			fmt.Fprintln(os.Stderr, line)
		}
		os.Exit(statusAborted)
	}()
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr, undone))
}

// execute runs the command line args until it is done or ctx ends, and returns the exit
// status. Every failure is one line on stderr.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer, undone *undone) int {
	cmd := newCommand(args, stdout, stderr, undone)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return statusOK
	}
	fmt.Fprintf(stderr, "loadtest: %s\n", text.Clean(err.Error()))
	if _, missed := errors.AsType[*missedError](err); missed {
		return statusMissed
	}
	return statusFailed
}

// missedError means that the server did not do what the flags asked for: a condition of
// --fail-if holds, or no rate did.
type missedError struct{ reason string }

func (e *missedError) Error() string { return e.reason }

// undone is what a run has still to do when the process ends at once, which must be quick. It
// is safe for concurrent use.
type undone struct{ do atomic.Value }

// set says what there is to do. It returns lines for the user.
func (u *undone) set(do func() []string) { u.do.Store(do) }

// finish does it.
func (u *undone) finish() []string {
	if do, ok := u.do.Load().(func() []string); ok {
		return do()
	}
	return nil
}
