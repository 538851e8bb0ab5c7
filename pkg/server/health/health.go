// Package health answers probes, which ask whether all that a server needs works.
package health

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// freshness is how long the outcome of a shared check is good for others.
const freshness = 100 * time.Millisecond

// Check is one thing that a path looks at.
type Check struct {
	Name string
	Run  func(context.Context) error
}

// Handler answers "ok" on a path, with ?verbose each check's outcome, too. A failure is a 500 that
// names the check; its reason is for the log alone, since anybody may ask.
func Handler(path string, checks ...Check) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		var report strings.Builder
		failed := false
		for _, one := range checks {
			if err := one.Run(req.Context()); err != nil {
				failed = true
				fmt.Fprintf(&report, "[-]%s failed: reason withheld\n", one.Name)
				continue
			}
			fmt.Fprintf(&report, "[+]%s ok\n", one.Name)
		}
		if failed {
			http.Error(w, report.String()+path+" check failed", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		body := "ok"
		if req.URL.Query().Has("verbose") {
			body = report.String() + path + " check passed\n"
		}
		_, _ = w.Write([]byte(body)) // a probe that has gone needs no answer
	}
}

// Shared returns what runs a check once for all who ask at the same time or shortly after: anybody may
// ask, as often as they like. They wait for their turn until their ctx ends. The check itself does
// not end with it, as its outcome is for others, too: it must end by itself.
func Shared(run func(context.Context) error) func(context.Context) error {
	turn := make(chan struct{}, 1) // whoever has sent to it may run, and use the rest
	var ended time.Time
	var outcome error
	return func(ctx context.Context) error {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return ctx.Err()
		}
		if time.Since(ended) > freshness {
			outcome = run(context.WithoutCancel(ctx))
			ended = time.Now()
		}
		return outcome
	}
}
