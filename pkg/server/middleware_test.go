package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/berth-project/berth/pkg/auth"
)

func TestRequestToken(t *testing.T) {
	for _, tc := range []struct {
		x, authorization string
		want             string
	}{
		{"", "", ""},
		{"T", "", "T"},
		{"", "Bearer T", "T"},
		{"", "bearer T", "T"},
		{"", "BEARER   T ", "T"},
		{"", " Bearer T", "T"},
		{"X", "Bearer T", "X"},
		{"", "Basic T", ""},
		{"", "Bearer", ""},
		{"", "BearerT", ""},
		{"", "Bearer ", ""},
		{"", "T", ""},
	} {
		req := newRequest(t, http.MethodGet, testPath, "", "X-Auth-Token", tc.x, "Authorization", tc.authorization)
		if got := requestToken(req); got != tc.want {
			t.Errorf("%+v: got %q", tc, got)
		}
	}
}

func TestFieldManager(t *testing.T) {
	long := strings.Repeat("ä", 100)
	for _, tc := range []struct{ named, agent, want string }{
		{"me", "curl/8", "me"},
		{"", "curl/8 (x)", "curl"},
		{"", "kubectl", "kubectl"},
		{"", "a\tb\x01c/1", "abc"},
		{"", "/1", ""},
		{"", long + "/1", long[:128]},
	} {
		got := fieldManager(tc.named, newRequest(t, http.MethodPost, testPath, "", "User-Agent", tc.agent))
		if got != tc.want || !utf8.ValidString(got) {
			t.Errorf("%+v: got %q", tc, got)
		}
	}
}

func TestHealthPaths(t *testing.T) {
	var log strings.Builder
	newServer := func(ready error) *Server {
		cfg := testConfig(t, &fakeResource{})
		cfg.Logger = zerolog.New(&log)
		cfg.Ready = func(ctx context.Context) error {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("a health check may take for ever")
			}
			return ready
		}
		return newTestServer(t, cfg)
	}
	up, down := newServer(nil), newServer(errors.New("etcd at 10.1.2.3 is gone"))
	for _, tc := range []struct {
		path string
		down bool
		code int
		body string
	}{
		{"/livez", false, 200, "ok"},
		{"/readyz", false, 200, "ok"},
		{"/healthz", false, 200, "ok"},
		{"/livez/ping", false, 200, "ok"},
		{"/readyz/etcd", false, 200, "ok"},
		{"/livez?verbose", false, 200, "[+]ping ok\nlivez check passed\n"},
		{"/readyz?verbose=true", false, 200, "[+]ping ok\n[+]etcd ok\n[+]shutdown ok\nreadyz check passed\n"},
		{"/livez", true, 200, "ok"},
		{"/healthz/ping", true, 200, "ok"},
		{"/readyz", true, 500, "[+]ping ok\n[-]etcd failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n"},
		{"/healthz", true, 500, "[+]ping ok\n[-]etcd failed: reason withheld\nhealthz check failed\n"},
		{"/readyz/etcd", true, 500, "[-]etcd failed: reason withheld\nreadyz check failed\n"},
	} {
		s := up
		if tc.down {
			s = down
		}
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			req := newRequest(t, method, tc.path, "")
			req.Header.Del("X-Auth-Token")
			if w := serveOnce(s, req); w.Code != tc.code || w.Body.String() != tc.body {
				t.Errorf("%s %s, down %v: got %d %q", method, tc.path, tc.down, w.Code, w.Body)
			}
		}
	}
	if !strings.Contains(log.String(), "10.1.2.3") {
		t.Errorf("the log does not say why: %s", log.String())
	}
}

// A method that a health path does not have is refused as everywhere else, and so are strangers.
func TestMethodsOfHealthPaths(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{}))
	for _, path := range []string{"/livez", "/readyz/etcd", "/version"} {
		req := newRequest(t, http.MethodPost, path, "")
		if w := serveOnce(s, req); w.Code != http.StatusMethodNotAllowed || !strings.Contains(w.Body.String(), `"kind":"Status"`) {
			t.Errorf("POST %s: got %d %s", path, w.Code, w.Body)
		}
		req = newRequest(t, http.MethodPost, path, "")
		req.Header.Del("X-Auth-Token")
		if w := serveOnce(s, req); w.Code != http.StatusUnauthorized {
			t.Errorf("POST %s without a token: got %d %s", path, w.Code, w.Body)
		}
	}
}

func TestVersion(t *testing.T) {
	cfg := testConfig(t, &fakeResource{})
	cfg.Version.GitVersion = "v1.2.3"
	req := newRequest(t, http.MethodGet, "/version", "")
	req.Header.Del("X-Auth-Token")
	w := serveOnce(newTestServer(t, cfg), req)
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" || !strings.Contains(w.Body.String(), `"gitVersion": "v1.2.3"`) {
		t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "Resources, Scheme, OpenAPI, Authenticator") {
		t.Errorf("got %v", err)
	}
	cfg := testConfig(t, &fakeResource{})
	cfg.MaxRequestsInFlight = -1
	if _, err := New(cfg); err == nil {
		t.Error("a negative limit was accepted")
	}
	cfg.MaxRequestsInFlight = 0
	newTestServer(t, cfg)
}

func TestMetricVerb(t *testing.T) {
	for verb, want := range map[string]string{
		"create": "POST", "update": "PUT", "get": "GET", "list": "LIST", "delete": "DELETE", "watch": "WATCH",
		"deletecollection": "DELETE", "foo": "other", "": "other", "trace": "other",
	} {
		if got := (&record{attrs: auth.Attributes{Verb: verb}}).metricVerb(); got != want {
			t.Errorf("%q: got %q, want %q", verb, got, want)
		}
	}
}
