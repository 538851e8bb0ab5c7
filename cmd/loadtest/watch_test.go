package main

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// Large events are read to their end, and compressed ones are unpacked.
func TestRunReadsWatches(t *testing.T) {
	for name, flag := range map[string]string{"plain": "--watch-gzip=false", "gzip": "--watch-gzip"} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t)
			r := runTool(t, f, "--rate=50", "--duration=500ms", "--mix=create=1,update=2,delete=1", "--watchers=2", "--addresses=300", flag)
			w := r.report.Watch
			if r.status != statusOK || w.Events == 0 || w.Events != w.Expected || w.Delay.Count != int64(w.Events) || len(w.Errors) > 0 {
				t.Fatalf("status %d, watch %+v: %s", r.status, w, r.stderr)
			}
			// An object of 300 addresses is of some 50 kB, and so is its event.
			if perEvent := w.BytesReceived / int64(w.Events); (perEvent > 20_000) != (name == "plain") {
				t.Errorf("an event took %d bytes", perEvent)
			}
		})
	}
}

// Watches that are refused for good end the run before it begins.
func TestRunWithoutWatches(t *testing.T) {
	f := newFakeAPI(t)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" {
			return false
		}
		writeStatus(w, http.StatusForbidden, "Forbidden", "no watching here")
		return true
	}
	r := runTool(t, f, "--watchers=3")
	if r.status != statusFailed || !strings.Contains(r.stderr, "only 0 of 3 watches could be opened: 403 Forbidden: no watching here") || len(f.namespaces) > 0 {
		t.Errorf("status %d, namespaces %v: %s", r.status, f.namespaces, r.stderr)
	}
}

// A watch that ends is opened again where it ended, and one whose version has expired at the
// present one.
func TestRunResumesWatches(t *testing.T) {
	f := newFakeAPI(t)
	var opened, cut, expired atomic.Int64
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" {
			return false
		}
		switch opened.Add(1) {
		case 1: // ended after the first event
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			f.watch(&cutAfterEvent{ResponseWriter: w, cut: cancel}, r.WithContext(ctx))
			cut.Add(1)
		case 2: // too many of them for the moment
			w.Header().Set("Retry-After", "0")
			writeStatus(w, http.StatusTooManyRequests, "TooManyRequests", "slow down")
		case 3: // the version has expired
			f.mu.Lock()
			defer f.mu.Unlock()
			writeObject(w, http.StatusOK, map[string]any{"type": "ERROR", "object": map[string]any{"kind": "Status", "code": 410}})
			expired.Add(1)
		default:
			return false
		}
		return true
	}
	r := runTool(t, f, "--rate=50", "--duration=2s", "--mix=update=1", "--watchers=1")
	w := r.report.Watch
	if r.status != statusOK || cut.Load() != 1 || expired.Load() != 1 {
		t.Fatalf("status %d, %d streams were cut, %d expired: %s", r.status, cut.Load(), expired.Load(), r.stderr)
	}
	if w.Reopened != 2 || w.Expired != 1 || w.Events == 0 || w.Delay.Count == 0 {
		t.Errorf("the watch has %+v, want 2 reopened, 1 of them expired, and events", w)
	}
	if len(w.Errors) != 1 || w.Errors[0].Kind != "429 TooManyRequests" {
		t.Errorf("the watch's errors are %+v", w.Errors)
	}
}

// cutAfterEvent ends a watch after its first event.
type cutAfterEvent struct {
	http.ResponseWriter
	cut func()
}

func (c *cutAfterEvent) Write(p []byte) (int, error) {
	defer c.cut()
	return c.ResponseWriter.Write(p)
}

func (c *cutAfterEvent) Flush() { c.ResponseWriter.(http.Flusher).Flush() }
