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
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the run early, a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs the command line args until it is done or ctx ends, and returns the exit
// status. Every failure is one line on stderr.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := newCommand(args, stdout, stderr)
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

// missedError means that the server did not do what the flags asked for: too many requests
// failed, or no rate held.
type missedError struct{ reason string }

func (e *missedError) Error() string { return e.reason }
