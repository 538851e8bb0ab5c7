package server

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/object"
)

// While the server stops, each stage refuses what it must and serves the rest.
func TestStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := newTestServer(t, testConfig(t, &fakeResource{
			list: func(context.Context) (*object.List, []string, error) {
				return &object.List{Type: endpointsType}, nil, nil
			},
			get: func(context.Context) (*object.Object, error) {
				<-release
				return named(t, "slow", 0), nil
			},
		}))
		defer s.Close()
		expect := func(stage, path string, code int, leave bool, parts ...string) {
			t.Helper()
			w := serveOnce(s, newRequest(t, http.MethodGet, path, ""))
			if w.Code != code || (w.Header().Get("Connection") == "close") != leave || (w.Header().Get("Retry-After") == "1") != (code == http.StatusServiceUnavailable) {
				t.Errorf("%s: GET %s: got %d %v %s, want %d", stage, path, w.Code, w.Header(), w.Body, code)
			}
			for _, part := range parts {
				if !strings.Contains(w.Body.String(), part) {
					t.Errorf("%s: GET %s: got %s, want %s", stage, path, w.Body, part)
				}
			}
		}
		expect("before", "/readyz?verbose", http.StatusOK, false, "[+]shutdown ok\n")
		go s.TakeLeave(t.Context(), 10*time.Second, 0)
		synctest.Wait()
		expect("delay", "/readyz", http.StatusInternalServerError, false, "[-]shutdown failed: reason withheld\n", "[+]etcd ok\n")
		expect("delay", "/livez", http.StatusOK, false)
		expect("delay", "/healthz", http.StatusOK, false)
		expect("delay", testPath, http.StatusOK, false)
		<-time.After(5 * time.Second)
		synctest.Wait()
		expect("second half", testPath, http.StatusOK, true)
		<-time.After(5 * time.Second)
		synctest.Wait()
		expect("watches end", testPath, http.StatusOK, true)
		expect("watches end", testPath+"?watch=1", http.StatusServiceUnavailable, true, `"message":"apiserver is shutting down"`, `"reason":"ServiceUnavailable"`, `"retryAfterSeconds":1`)
		slow := make(chan int, 1)
		go func() { slow <- serveOnce(s, newRequest(t, http.MethodGet, testPath+"/slow", "")).Code }()
		synctest.Wait()
		refused := make(chan struct{})
		go func() { s.Refuse(t.Context()); close(refused) }()
		synctest.Wait()
		expect("end", testPath, http.StatusServiceUnavailable, true, metav1.StatusFailure)
		expect("end", "/livez", http.StatusOK, true)
		select {
		case <-refused:
			t.Error("a request in progress was not waited for")
		default:
		}
		close(release)
		synctest.Wait()
		select {
		case <-refused:
		default:
			t.Error("nothing is in progress, and is waited for")
		}
		if code := <-slow; code != http.StatusOK {
			t.Errorf("the request in progress got %d", code)
		}
	})
}

// A GOAWAY leaves the request and its stream alone; the next request has another connection.
func TestGoaway(t *testing.T) {
	for chance, reuses := range map[float64]bool{0: true, 1: false} {
		cfg := testConfig(t, &fakeResource{})
		cfg.GoawayChance = chance
		web := start(t, newTestServer(t, cfg), true)
		reused := false
		for range 3 {
			req := clientRequest(t, web.URL+"/version")
			trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
			answer, _, err := send(t, web, req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
			if err != nil || answer.code != http.StatusOK {
				t.Fatalf("chance %v: %v, %v", chance, answer.code, err)
			}
			if connection := answer.header.Get("Connection"); connection != "" {
				t.Errorf("the answer over HTTP/2 has Connection: %s", connection)
			}
		}
		if reused != reuses {
			t.Errorf("chance %v: the connection was reused: %v", chance, reused)
		}
	}
}
