package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/cmd/loadtest/internal/load"
	"github.com/berth-project/berth/cmd/loadtest/internal/report"
	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// On a busy machine some of the 200 may not be sent in time, but each is accounted for.
func TestRunSendsWhatIsDue(t *testing.T) {
	for name, protocol := range map[string]string{"HTTP/1.1": "--http2=false", "HTTP/2": "--http2"} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t)
			var sent, other atomic.Int64
			f.answer = func(_ http.ResponseWriter, r *http.Request) bool {
				if got := r.Proto; !strings.HasPrefix(got, strings.TrimSuffix(name, ".1")) {
					t.Errorf("the protocol is %s", got)
				}
				if isLoad(r) {
					sent.Add(1)
				} else {
					other.Add(1)
				}
				return false
			}
			r := runTool(t, f, protocol, "--rate=200", "--duration=1s", "--watchers=3", "--connections=4",
				"--mix=create=3,get=3,update=3,patch=3,apply=3,list=1,delete=2")
			if r.status != statusOK {
				t.Fatalf("status %d: %s", r.status, r.stderr)
			}
			got := r.report.Requests
			if got.Due != 200 || got.Sent+got.Unsent != 200 || got.Sent < 50 || got.Succeeded != got.Sent {
				t.Errorf("requests %+v, want 200 due, all that were sent with success", got)
			}
			if sent.Load() != int64(got.Sent) {
				t.Errorf("the server got %d requests, want %d", sent.Load(), got.Sent)
			}
			// Where nothing was created in time, there was nothing to delete.
			if n := len(r.report.Verbs); n != len(load.Verbs) && (n != len(load.Verbs)-1 || got.SwappedDelete == 0) {
				t.Errorf("the verbs are %v, want all", r.report.Verbs)
			}
			if w := r.report.Watch; w.Events != w.Expected || w.Events == 0 || uint64(w.Delay.Count) != w.Events {
				t.Errorf("the watch has %+v: not every event came, or not in time", w)
			}
			if r.report.Server.Version != "v1.2.3-fake" {
				t.Errorf("the server's version is %q", r.report.Server.Version)
			}
			if diff := cmp.Diff([]string{"/api/v1/namespaces/loadtest"}, f.deleted[len(f.deleted)-1:]); diff != "" || len(f.namespaces) > 0 {
				t.Errorf("the namespace was not removed: %v, %v", f.namespaces, f.deleted)
			}
			if !strings.Contains(r.stdout, fmt.Sprintf("200 due in 1.0 s: %d sent, %d not sent, 0 held back", got.Sent, got.Unsent)) {
				t.Errorf("the text is\n%s", r.stdout)
			}
		})
	}
}

func TestRunInNamespaceOfOthers(t *testing.T) {
	f := newFakeAPI(t, "theirs")
	r := runTool(t, f, "--namespace=theirs", "--rate=50", "--duration=100ms", "--mix=create=1")
	if r.status != statusOK || f.namespaces["theirs"] == nil {
		t.Fatalf("status %d, namespaces %v: %s", r.status, f.namespaces, r.stderr)
	}
	if len(f.deleted) != 1 || !strings.HasPrefix(f.deleted[0], "/api/v1/namespaces/theirs/endpoints?labelSelector=berth-loadtest/run%3D") {
		t.Errorf("deleted were %v, want what has the run's label", f.deleted)
	}
	kept := newFakeAPI(t)
	if r := runTool(t, kept, "--keep", "--rate=50", "--duration=100ms", "--mix=get=1"); r.status != statusOK {
		t.Fatalf("status %d: %s", r.status, r.stderr)
	}
	if len(kept.deleted) > 0 || kept.namespaces["loadtest"] == nil || len(kept.objects) != 5 {
		t.Errorf("with --keep, %v was deleted and %d objects are left, want 5", kept.deleted, len(kept.objects))
	}
}

func TestRunWaitsForNamespaceThatIsBeingDeleted(t *testing.T) {
	f := newFakeAPI(t)
	var looks atomic.Int64
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || r.URL.Path != "/api/v1/namespaces/loadtest" || looks.Add(1) > 2 {
			return false
		}
		writeObject(w, http.StatusOK, map[string]any{"status": map[string]any{"phase": "Terminating"}})
		return true
	}
	if r := runTool(t, f, "--rate=50", "--duration=100ms"); r.status != statusOK || looks.Load() != 4 { // the last one before the clean-up
		t.Errorf("status %d after %d looks: %s", r.status, looks.Load(), r.stderr)
	}
}

// A server that answers one request at a time soon falls behind. The report must show it,
// whatever the requests wait for in this process.
func TestRunDoesNotHideQueues(t *testing.T) {
	for cause, flags := range map[string][]string{
		report.CauseConnections: {"--http2=false", "--connections=1", "--max-workers=1000"},
		report.CauseWorkers:     {"--connections=10", "--max-workers=1"},
	} {
		t.Run(cause, func(t *testing.T) {
			f := newFakeAPI(t)
			turns := time.NewTicker(10 * time.Millisecond)
			defer turns.Stop()
			f.answer = func(_ http.ResponseWriter, r *http.Request) bool {
				if isLoad(r) {
					<-turns.C
				}
				return false
			}
			r := runTool(t, f, append(flags, "--rate=400", "--duration=1s", "--mix=get=1")...)
			rep := r.report
			if r.status != statusOK || rep.Generator.KeptUp || rep.Generator.Cause != cause {
				t.Fatalf("status %d, generator %+v, want one behind because of %s", r.status, rep.Generator, cause)
			}
			if rep.Requests.Due != 400 || rep.Requests.Sent+rep.Requests.Unsent != 400 {
				t.Errorf("requests %+v, want 400 due, and each of them sent or not", rep.Requests)
			}
			// The server answers about 100 of the 400 requests, one every 10 ms.
			if rep.Response.P99 < 400 || rep.Response.P50 < 3*rep.Service.P50 {
				t.Errorf("response time %+v hides the wait that is not in the service time %+v", rep.Response, rep.Service)
			}
			for _, text := range []string{r.stdout, r.html} {
				if !strings.Contains(text, "could not keep up") {
					t.Error("a report does not say that the generator could not keep up")
				}
			}
		})
	}
}

func TestRunHonorsRetryAfter(t *testing.T) {
	f := newFakeAPI(t)
	var mu sync.Mutex
	until, early := time.Time{}, 0
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !isLoad(r) || r.Header.Get("Authorization") != "Bearer limited" {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if now.Before(until) {
			early++
			return false
		}
		until = now.Add(time.Second)
		w.Header().Set("Retry-After", "1")
		writeStatus(w, http.StatusTooManyRequests, "TooManyRequests", "slow down")
		return true
	}
	// One worker: no other request with the same token is in flight when the 429 comes.
	flags := []string{"--token=limited", "--token=free", "--rate=100", "--duration=500ms", "--mix=get=1", "--max-workers=1"}
	r := runTool(t, f, append(flags, "--honor-retry-after")...)
	rep := r.report
	if r.status != statusOK || early > 0 || rep.Requests.RateLimited != 1 || rep.Requests.Failed != 0 {
		t.Errorf("status %d, %d requests too early, %+v", r.status, early, rep.Requests)
	}
	held := rep.Requests.HeldBack
	if held == 0 || rep.Tokens[0].HeldBack != held || rep.Requests.Sent+held+rep.Requests.Unsent != rep.Requests.Due {
		t.Errorf("held back were %+v of %+v", rep.Tokens, rep.Requests)
	}
	if diff := cmp.Diff(map[string]uint64{"429": 1}, rep.Tokens[0].Codes); diff != "" {
		t.Errorf("codes of the limited token (-want +got)\n%s", diff)
	}
	if !strings.Contains(r.stdout, text.Count(held)+" held back") {
		t.Errorf("the text does not say what was held back:\n%s", r.stdout)
	}

	until = time.Time{}
	r = runTool(t, f, flags...)
	if r.report.Requests.HeldBack != 0 || early == 0 {
		t.Errorf("without the flag, %d were held back, and the server saw %d too early", r.report.Requests.HeldBack, early)
	}
}

func TestRunStatus(t *testing.T) {
	failing := func(code, every int) func(http.ResponseWriter, *http.Request) bool {
		var n atomic.Int64
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !isLoad(r) || n.Add(1)%int64(every) != 0 {
				return false
			}
			writeStatus(w, code, "Reason", "the server's words")
			return true
		}
	}
	hangUp := func(_ http.ResponseWriter, r *http.Request) bool {
		if isLoad(r) {
			panic(http.ErrAbortHandler)
		}
		return false
	}
	for name, test := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request) bool
		flags  []string
		status int
		stderr string
	}{
		"few errors":       {failing(500, 4), []string{"--fail-if=errors>30%"}, statusOK, ""},
		"many errors":      {failing(500, 4), nil, statusMissed, "--fail-if errors>1%: 25.0 % (500 Reason: the server's words)"},
		"429 is none":      {failing(429, 2), nil, statusOK, ""},
		"no answer at all": {hangUp, nil, statusFailed, " got an answer: "},
		"no access": {func(w http.ResponseWriter, _ *http.Request) bool {
			writeStatus(w, 401, "Unauthorized", "who?")
			return true
		}, nil, statusFailed, "401 Unauthorized: who?"},
		"no capacity":       {failing(500, 4), []string{"--find-capacity", "--step-duration=1s", "--min-rate=40"}, statusMissed, "not even the lowest rate held: 40/s: "},
		"a flag is wrong":   {nil, []string{"--rate=0"}, statusFailed, "--rate: 0 is not between"},
		"no such directory": {nil, []string{"--output=json=/nonexistent/x"}, statusFailed, "--output: open /nonexistent/x"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t)
			f.answer = test.answer
			flags := []string{"--rate=200", "--duration=200ms", "--mix=get=1"}
			if name == "no capacity" {
				flags = nil
			}
			r := runTool(t, f, append(append(flags, "--max-workers=1"), test.flags...)...)
			if r.status != test.status || !strings.Contains(r.stderr, test.stderr) {
				t.Errorf("status %d, want %d with %q:\n%s", r.status, test.status, test.stderr, r.stderr)
			}
		})
	}
}

// Without TLS it is HTTP/1.1, and a server that has no HTTP/2 is one for --http2=false.
func TestRunWithoutHTTP2(t *testing.T) {
	f := newFakeAPI(t)
	withoutHTTP2 := httptest.NewUnstartedServer(f)
	withoutHTTP2.Config.ErrorLog = f.Config.ErrorLog
	withoutHTTP2.StartTLS()
	t.Cleanup(withoutHTTP2.Close)
	plain := httptest.NewServer(f)
	t.Cleanup(plain.Close)
	flags := []string{"--rate=50", "--duration=100ms", "--mix=get=1", "--insecure-skip-tls-verify"}
	r := runTool(t, f, append(flags, "--server="+withoutHTTP2.URL)...)
	if r.status != statusFailed || !strings.Contains(r.stderr, "no HTTP/2: the server speaks HTTP/1.1 alone: use --http2=false") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
	for _, more := range [][]string{{"--server=" + withoutHTTP2.URL, "--http2=false"}, {"--server=" + plain.URL}} {
		if r := runTool(t, f, append(flags, more...)...); r.status != statusOK || r.report.Settings.HTTP2 || r.report.Settings.Connections != 256 {
			t.Errorf("%v: status %d, settings %+v: %s", more, r.status, r.report.Settings, r.stderr)
		}
	}
}

// With HTTP/2 each token has its own connection, unless the flags ask for a number.
func TestRunSharesConnections(t *testing.T) {
	for number, want := range map[string]int{"0": 2, "5": 5} {
		f := newFakeAPI(t)
		var mu sync.Mutex
		tokens, connections := map[string]map[string]bool{}, map[string]bool{}
		f.answer = func(_ http.ResponseWriter, r *http.Request) bool {
			if isLoad(r) {
				mu.Lock()
				defer mu.Unlock()
				token := r.Header.Get("Authorization")
				if tokens[token] == nil {
					tokens[token] = map[string]bool{}
				}
				tokens[token][r.RemoteAddr], connections[r.RemoteAddr] = true, true
			}
			return false
		}
		r := runTool(t, f, "--token=one", "--token=two", "--connections="+number, "--rate=100", "--duration=300ms", "--mix=get=1")
		if r.status != statusOK || r.report.Settings.Connections != want || len(connections) != want {
			t.Errorf("status %d, %d connections of %d: %s", r.status, len(connections), r.report.Settings.Connections, r.stderr)
		}
		for token, of := range tokens {
			if number == "0" && len(of) != 1 {
				t.Errorf("%s has %d connections", token, len(of))
			}
		}
	}
}

func TestRunWithoutServer(t *testing.T) {
	f := newFakeAPI(t)
	f.Close()
	r := runTool(t, f)
	if r.status != statusFailed || !strings.Contains(r.stderr, "cannot use "+f.URL) || !strings.Contains(r.stderr, "refused") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
}

// A run that a signal ends is reported up to that point and leaves nothing behind. Requests
// in flight are waited for, and those that would have been due meanwhile do not count.
func TestRunEndsEarly(t *testing.T) {
	f := newFakeAPI(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var n atomic.Int64
	f.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		if isLoad(r) && n.Add(1) == 20 {
			cancel()
			<-time.After(3 * time.Second) // an answer that takes its time
		}
		return false
	}
	r := runUntil(ctx, t, f, "--rate=100", "--duration=1h")
	if r.status != statusOK || !r.report.Interrupted {
		t.Fatalf("status %d, interrupted %v: %s", r.status, r.report.Interrupted, r.stderr)
	}
	if got := r.report.Requests; got.Sent < 20 || got.Succeeded != got.Sent || r.report.Response.Max < 3000 {
		t.Errorf("requests %+v, want at least 20 sent, each with success, and the slow one among them", got)
	}
	if due := r.report.Requests.Due; r.report.Seconds > 3 || due > 300 {
		t.Errorf("%d requests were due in %v s, want those alone that were due before the signal", due, r.report.Seconds)
	}
	if !strings.Contains(r.stdout, "ended early") || len(f.namespaces) > 0 {
		t.Errorf("namespaces %v are left, and the text is\n%s", f.namespaces, r.stdout)
	}
}

func TestRunTimesOut(t *testing.T) {
	f := newFakeAPI(t)
	f.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		if isLoad(r) && strings.HasSuffix(r.URL.Path, "-p0") {
			<-r.Context().Done()
		}
		return false
	}
	r := runTool(t, f, "--rate=100", "--duration=200ms", "--mix=get=1", "--timeout=1s", "--fail-if=errors>100%")
	rep := r.report
	if r.status != statusOK || len(rep.Errors) == 0 {
		t.Fatalf("status %d, errors %+v: %s", r.status, rep.Errors, r.stderr)
	}
	for _, e := range rep.Errors {
		if !strings.HasPrefix(e.Kind, "timeout") {
			t.Errorf("error %+v, want only time-outs", e)
		}
	}
	if rep.Response.Max < 1000 || uint64(rep.Response.Count) != rep.Requests.Sent {
		t.Errorf("response time %+v, want the time-outs in it", rep.Response)
	}
}

// The server refuses everything after the 40 requests of the first step and the 80 of the
// second. Each later step is tried twice. A busy machine may lose up to half of a step.
func TestRunFindsCapacity(t *testing.T) {
	f := newFakeAPI(t)
	var n atomic.Int64
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !isLoad(r) || n.Add(1) <= 120 {
			return false
		}
		writeStatus(w, http.StatusTooManyRequests, "TooManyRequests", "full")
		return true
	}
	r := runTool(t, f, "--find-capacity", "--min-rate=40", "--max-rate=1000", "--step-duration=1s", "--p99=1h", "--max-error-share=0.5", "--mix=get=1")
	got := r.report.Capacity
	if r.status != statusOK || got == nil || got.RatePerSecond != 80 {
		t.Fatalf("status %d, capacity %+v: %s", r.status, got, r.stderr)
	}
	if got := r.report.Settings.Schedule; !slices.Equal(got, []string{"1s@80"}) || r.report.Requests.Due != 80 {
		t.Errorf("the numbers are those of %v", got)
	}
	for i, step := range got.Steps {
		if step.Holds != (step.RatePerSecond <= 80) || !strings.Contains(r.stdout, step.String()) || !strings.Contains(r.stderr, step.String()) {
			t.Errorf("step %d is %q, or was not printed", i, step)
		}
	}
	if n := len(got.Steps); n < 6 || n%2 != 0 {
		t.Errorf("there were %d steps", n)
	}
	if !strings.Contains(r.stdout, "Capacity: 80/s") || !strings.Contains(r.html, "Capacity: 80/s") {
		t.Error("the capacity is not in the reports")
	}
}
