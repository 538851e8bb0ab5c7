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
	"strings"
	"syscall"
)

// Exit statuses.
const (
	statusOK = 0
	// statusFailed is for a run that could not begin, could not write its report, or got no
	// answer at all.
	statusFailed = 1
	// statusMissed is for a run that was reported, but whose outcome is not what the flags
	// asked for: a *missedError.
	statusMissed = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the run early; after it, a second one ends the process at once.
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
	fmt.Fprintf(stderr, "loadtest: %s\n", strings.Join(strings.Fields(err.Error()), " "))
	if _, missed := errors.AsType[*missedError](err); missed {
		return statusMissed
	}
	return statusFailed
}

// missedError says that the run was made and reported, but the server did not hold what the
// flags asked for.
type missedError struct{ reason string }

func (e *missedError) Error() string { return e.reason }
