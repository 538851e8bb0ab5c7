// Command apiserver serves the Kubernetes API for Endpoints from etcd: an embedded etcd, or
// one that you point it to.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

func main() {
	uuid.EnableRandPool() // saves a system call for each request
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs the command line args and returns the exit status: 0 after a requested stop,
// 1 after any failure, which it reports in one line on stderr.
func execute(args []string, stdout, stderr io.Writer) int {
	ctx, stop := untilSignal()
	defer stop()
	// A SIGHUP from here on is kept until the server can load its files again, and never ends
	// the process, not even while it stops.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	cmd := newCommand(hangups, stdout, stderr)
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "apiserver: %s\n", oneLine(err.Error()))
		return 1
	}
	return 0
}

// oneLine returns s with a space in place of every run of white space and of characters that
// are no text: a server that is asked whether it is ready, or an etcd, could have sent what a
// terminal obeys.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsGraphic(r) || r == utf8.RuneError
	}), " ")
}

// untilSignal returns a context that ends at the first SIGINT or SIGTERM. A second signal
// ends the process at once, with status 1.
func untilSignal() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for range signals {
			if ctx.Err() != nil {
				os.Exit(1)
			}
			cancel()
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}
