package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/ratelimit"
)

// A path that is longer than any other is not looked for.
func TestLongPaths(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{}))
	for slashes, want := range map[int]int{1000: http.StatusOK, 60_000: http.StatusNotFound} {
		path := "/version" + strings.Repeat("/", slashes)
		if w := serveOnce(s, newRequest(t, http.MethodGet, path, "")); w.Code != want {
			t.Errorf("%d slashes: got %d %s, want %d", slashes, w.Code, w.Body, want)
		}
	}
	if w := serveOnce(s, newRequest(t, http.MethodGet, "/version"+strings.Repeat("/", 60_000), "", "X-Auth-Token", "")); w.Code != http.StatusUnauthorized {
		t.Errorf("without a token: got %d %s", w.Code, w.Body)
	}
}

// Probes are admitted generously, and each path by itself. Beyond that a valid token still passes, within its own limit.
func TestProbesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t, &fakeResource{})
		if err := cfg.Authenticator.(*auth.Tokens).Set(testToken, auth.User{Name: "limited"}); err != nil {
			t.Fatal(err)
		}
		limited := &ratelimit.Limit{QPS: 0.001, Burst: 2}
		cfg.Limiter = ratelimit.New(&ratelimit.Config{Defaults: ratelimit.Defaults{Read: limited}})
		s := newTestServer(t, cfg)
		paths := []string{"/livez", "/livez/ping"}
		get := func(i int, token, from string) *httptest.ResponseRecorder {
			path := paths[i%len(paths)]
			req := newRequest(t, http.MethodGet, path, "", "X-Auth-Token", token)
			req.RemoteAddr = from
			return serveOnce(s, req)
		}
		const flooder, other = "192.0.2.1:1", "192.0.2.2:1"
		for i := range 600 {
			want := http.StatusOK
			if i >= 400 {
				want = http.StatusTooManyRequests
			}
			w := get(i, "", flooder)
			if w.Code != want || (want != http.StatusOK) != (w.Header().Get("Retry-After") == "1") {
				t.Fatalf("request %d: got %d %v %s", i, w.Code, w.Header(), w.Body)
			}
		}
		for i, want := range []int{http.StatusOK, http.StatusOK, http.StatusTooManyRequests} {
			if w := get(i, testToken, flooder); w.Code != want {
				t.Errorf("valid token, request %d: got %d %s, want %d", i, w.Code, w.Body, want)
			}
		}
		for _, path := range []string{"/readyz", "/version", "/healthz/etcd"} {
			req := newRequest(t, http.MethodGet, path, "", "X-Auth-Token", "")
			req.RemoteAddr = flooder
			if w := serveOnce(s, req); w.Code != http.StatusOK {
				t.Errorf("%s of the same address: got %d %s", path, w.Code, w.Body)
			}
		}
		if w := get(0, "", other); w.Code != http.StatusOK {
			t.Errorf("another address: got %d %s", w.Code, w.Body)
		}
		<-time.After(5 * time.Millisecond)
		if w := get(0, "", flooder); w.Code != http.StatusOK {
			t.Errorf("a moment later: got %d %s", w.Code, w.Body)
		}
	})
}
