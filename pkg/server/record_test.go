package server

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/ratelimit"
)

func TestLoggable(t *testing.T) {
	for text, want := range map[string]string{
		"":               "",
		"/api":           "/api",
		"/ä":             "/ä",
		"/12345678":      "/1234567… (9 bytes)",
		"/123456ä":       "/123456?… (9 bytes)",
		"a\nb\x00c\x7f":  "a?b?c?",
		"\xff\xfe":       "??",
		"\u009b31m":      "?31m",
		"\x00\x00\x00\n": "????",
	} {
		if got := loggable(text, 8); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// logLine is what the tests read of a request's line.
type logLine struct {
	Client, Message, Ended, Cause string
	Omitted                       int
}

func readLines(t *testing.T, log string) []logLine {
	t.Helper()
	var lines []logLine
	for text := range strings.Lines(log) {
		var one logLine
		if err := json.Unmarshal([]byte(text), &one); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		lines = append(lines, one)
	}
	return lines
}

// However much somebody sends that is refused, and however long its fields are, few and short
// lines tell of it, and how many do not. A user's own requests all have one.
func TestRefusalsAreSampled(t *testing.T) {
	const many = 300
	for _, tc := range []struct {
		name, method, path, token string
		lines                     int
	}{
		{"guesses", http.MethodGet, testPath, "a-guess", 10},
		{"long paths", http.MethodGet, "/" + strings.Repeat("%01%22", 10_000), "", 10},
		{"long methods", strings.Repeat("X", 60_000), testPath, "", 10},
		{"slashes", http.MethodGet, "/version" + strings.Repeat("/", 4000), "", 10},
		{"health", http.MethodGet, "/livez", "", 10},
		{"a user", http.MethodGet, "/" + strings.Repeat("x", 60_000), "limited", 5 + 10},
		{"an administrator", http.MethodGet, "/nothing", testToken, many},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				cfg := testConfig(t, &fakeResource{})
				cfg.Logger = zerolog.New(&log)
				if tc.token == "limited" {
					if err := cfg.Authenticator.(*auth.Tokens).Set(tc.token, auth.User{Name: "limited"}); err != nil {
						t.Fatal(err)
					}
				}
				cfg.Limiter = ratelimit.New(&ratelimit.Config{Defaults: ratelimit.Defaults{Read: &ratelimit.Limit{QPS: 0.001, Burst: 5}}})
				s := newTestServer(t, cfg)
				send := func() { serveOnce(s, newRequest(t, tc.method, tc.path, "", "X-Auth-Token", tc.token)) }
				for range many {
					send()
				}
				lines := readLines(t, log.String())
				if len(lines) != tc.lines || lines[0].Client != "192.0.2.1" {
					t.Errorf("%d lines of %d requests, want %d; the first is %+v", len(lines), many, tc.lines, lines[0])
				}
				if perLine := log.Len() / len(lines); perLine > 2500 {
					t.Errorf("a line has %d bytes", perLine)
				}
				<-time.After(time.Second)
				log.Reset()
				send()
				if next := readLines(t, log.String()); len(next) != 1 || next[0].Omitted != many-tc.lines {
					t.Errorf("a second later: %+v, want a line that tells of %d omitted ones", next, many-tc.lines)
				}
				if got := counted(t, cfg.Metrics, "berth_request_log_omitted_total", ""); got != many-tc.lines {
					t.Errorf("%d lines are counted as omitted, want %d", got, many-tc.lines)
				}
			})
		})
	}
}

// counted returns the value of the counter whose labels have the value, "" for one without labels.
func counted(t *testing.T, metrics *prometheus.Registry, name, value string) int {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, one := range family.GetMetric() {
			has := func(l *dto.LabelPair) bool { return l.GetValue() == value }
			if family.GetName() == name && (value == "" || slices.ContainsFunc(one.GetLabel(), has)) {
				return int(one.GetCounter().GetValue())
			}
		}
	}
	t.Fatalf("there is no %s of %q", name, value)
	return 0
}

func TestLoggedAuditID(t *testing.T) {
	var log strings.Builder
	cfg := testConfig(t, &fakeResource{})
	cfg.Logger = zerolog.New(&log)
	s := newTestServer(t, cfg)
	for _, id := range []string{"a\tb", "\xff", "ä", "a\x7f"} {
		w := serveOnce(s, newRequest(t, http.MethodGet, "/nothing", "", "Audit-Id", id))
		if got := w.Header().Get("Audit-Id"); len(got) != 36 || strings.Contains(log.String(), `"auditID":"`+id) {
			t.Errorf("%q became %q", id, got)
		}
	}
}

// The line of a watch that has ended tells why, and so does a counter.
func TestWhyAWatchHasEnded(t *testing.T) {
	expired := apierrors.NewResourceExpired("too old")
	for want, tc := range map[string]struct {
		err error                  // that ends the changes; nil: they end with their context
		act func(*Server, *Config) // once the watch has begun
	}{
		"timeout":  {act: func(*Server, *Config) {}},
		"too old":  {err: expired},
		"error":    {err: errors.New("fault")},
		"shutdown": {act: func(s *Server, _ *Config) { s.EndStreams() }},
		"revoked": {act: func(_ *Server, cfg *Config) {
			if err := cfg.Authenticator.(*auth.Tokens).Set("another", auth.User{Name: "admin"}); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				cfg := testConfig(t)
				var s *Server
				cfg.Resources = []Resource{&fakeResource{watch: func(ctx context.Context) iter.Seq2[[]object.Event, error] {
					return func(yield func([]object.Event, error) bool) {
						if tc.err != nil {
							yield(nil, tc.err)
							return
						}
						tc.act(s, &cfg)
						<-ctx.Done()
					}
				}}}
				cfg.Logger = zerolog.New(&log)
				s = newTestServer(t, cfg)
				serveOnce(s, newRequest(t, http.MethodGet, testPath+"?watch=1&timeoutSeconds=5", ""))
				lines := readLines(t, log.String())
				if len(lines) != 2 || lines[0].Message != "watch begins" || lines[1].Message != "request" || lines[1].Ended != want {
					t.Errorf("logged %+v", lines)
				}
				if (want == "error") != (lines[1].Cause == "fault") {
					t.Errorf("the cause is %q", lines[1].Cause)
				}
				for _, reason := range []string{"timeout", "too old", "error", "shutdown", "revoked", "client gone", "too slow"} {
					got := counted(t, cfg.Metrics, "berth_watches_ended_total", reason)
					if (got == 1) != (reason == want) {
						t.Errorf("%v watches are counted as %s", got, reason)
					}
				}
			})
		})
	}
}
