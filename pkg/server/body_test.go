package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/ratelimit"
)

// A body that stops half-way is given up when the request's time is up; the next request
// finds the server as it was.
func TestBodyThatStops(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{create: echo}))
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			web := start(t, s, http2)
			reader, writer := io.Pipe()
			req := clientRequest(t, web.URL+testPath+"?timeout=50ms")
			req.Method, req.Body = http.MethodPost, reader
			go func() { _, _ = io.WriteString(writer, `{"metadata":`) }()
			resp, answer, err := send(t, web, req)
			writer.Close()
			if err != nil || resp.code != http.StatusGatewayTimeout || !strings.Contains(string(answer), `"reason":"Timeout"`) || resp.header.Get("Retry-After") != "1" {
				t.Fatalf("got %v %s, %v", resp, answer, err)
			}
			checkCreates(t, web, testToken)
		})
	}
}

func checkCreates(t *testing.T, web *httptest.Server, user string) {
	t.Helper()
	next := clientRequest(t, web.URL+testPath)
	next.Header.Set("X-Auth-Token", user)
	next.Method, next.Body = http.MethodPost, io.NopCloser(strings.NewReader(`{}`))
	resp, answer, err := send(t, web, next)
	if err != nil || resp.code != http.StatusCreated {
		t.Errorf("the next request got %v %s, %v", resp, answer, err)
	}
}

// The large bodies of a user are worked on as far as its share of memory goes. Small ones, and
// those of others, do not wait for them.
func TestLargeBodiesTakeTurns(t *testing.T) {
	working, release := make(chan struct{}, 2), make(chan struct{})
	cfg := testConfig(t, &fakeResource{create: func(ctx context.Context, obj runtime.Object, opts *metav1.CreateOptions) (*object.Object, []string, error) {
		if _, ok := obj.(metav1.Object).GetAnnotations()["large"]; ok {
			working <- struct{}{}
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return echo(ctx, obj, opts)
	}})
	withUsers(t, &cfg)
	web := start(t, newTestServer(t, cfg), true)
	large := `{"metadata":{"annotations":{"large":""}},"subsets":[{"addresses":[{}` + strings.Repeat(",{}", 190_000) + `]}]}`
	post := func(user, query string) int {
		req := clientRequest(t, web.URL+testPath+query)
		req.Header.Set("X-Auth-Token", user)
		req.Method, req.Body = http.MethodPost, io.NopCloser(strings.NewReader(large))
		resp, answer, err := send(t, web, req)
		if err != nil {
			t.Error(err)
			return 0
		}
		if resp.code == http.StatusGatewayTimeout && !strings.Contains(string(answer), "while it waited for memory to decode objects") {
			t.Errorf("got %s", answer)
		}
		return resp.code
	}
	var all sync.WaitGroup
	for _, user := range []string{"alice", "bob"} {
		all.Go(func() {
			if code := post(user, ""); code != http.StatusCreated {
				t.Errorf("a large body of %s got %d", user, code)
			}
		})
		eventually(t, "no large body is worked on", working)
	}
	if code := post("alice", "?timeout=500ms"); code != http.StatusGatewayTimeout {
		t.Errorf("a second large body of alice got %d", code)
	}
	checkCreates(t, web, "alice")
	close(release)
	all.Wait()
	if code := post("alice", ""); code != http.StatusCreated {
		t.Errorf("a large body afterwards got %d", code)
	}
}

// Large bodies of one connection are received side by side: one that had to wait would keep
// the others from coming.
func TestLargeBodiesOfOneConnection(t *testing.T) {
	cfg := testConfig(t, &fakeResource{create: echo})
	withUsers(t, &cfg)
	cfg.Limiter = ratelimit.New(&ratelimit.Config{Overrides: []ratelimit.Override{{Users: []string{"alice"}, Exempt: true}}})
	web := start(t, newTestServer(t, cfg), true)
	large := `{"metadata":{"annotations":{"large":"` + strings.Repeat("x", maxBodyBytes-1000) + `"}}}`
	var all sync.WaitGroup
	for range maxUploadBytes / inFlightShare / maxBodyBytes {
		all.Go(func() {
			req := clientRequest(t, web.URL+testPath)
			req.Header.Set("X-Auth-Token", "alice")
			req.Method, req.Body = http.MethodPost, io.NopCloser(strings.NewReader(large))
			if resp, answer, err := send(t, web, req); err != nil || resp.code != http.StatusCreated {
				t.Errorf("got %v %.300s, %v", resp, answer, err)
			}
		})
	}
	all.Wait()
}

// A body beyond the limit is refused, whether it tells its length or not; one at the limit
// is read.
func TestBodyLimit(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{create: echo}))
	web := start(t, s, false)
	for _, tc := range []struct {
		size int
		code int
	}{{maxBodyBytes, http.StatusCreated}, {maxBodyBytes + 1, http.StatusRequestEntityTooLarge}, {4 * maxBodyBytes, http.StatusRequestEntityTooLarge}} {
		for _, told := range []bool{true, false} {
			body := "{}" + strings.Repeat(" ", tc.size-2)
			req := clientRequest(t, web.URL+testPath)
			req.Method, req.Body = http.MethodPost, io.NopCloser(strings.NewReader(body))
			if told {
				req.ContentLength = int64(len(body))
			} else {
				req.ContentLength = -1
			}
			resp, answer, err := send(t, web, req)
			if err != nil { // the server may be gone before the client has sent everything
				if tc.code == http.StatusCreated {
					t.Errorf("%d bytes, told %v: %v", tc.size, told, err)
				}
				continue
			}
			if resp.code != tc.code || tc.code != http.StatusCreated && !strings.Contains(string(answer), "limit is 3145728") {
				t.Errorf("%d bytes, told %v: got %d %.200s", tc.size, told, resp.code, answer)
			}
		}
		checkCreates(t, web, testToken)
	}
}

// A body of many small elements is refused before it is decoded, whatever it is of.
func TestBodyElements(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{}))
	list := "[" + strings.Repeat("1,", 400_000) + "1]"
	for name, req := range map[string]*http.Request{
		"a create":            newRequest(t, http.MethodPost, testPath, `{"subsets":`+list+`}`),
		"an update":           newRequest(t, http.MethodPut, testPath+"/a", `{"subsets":`+list+`}`),
		"a JSON patch":        newRequest(t, http.MethodPatch, testPath+"/a", list, "Content-Type", "application/json-patch+json"),
		"an apply":            newRequest(t, http.MethodPatch, testPath+"/a?fieldManager=m", "subsets: "+list, "Content-Type", "application/apply-patch+yaml"),
		"options of a delete": newRequest(t, http.MethodDelete, testPath+"/a", `{"dryRun":`+list+`}`),
	} {
		got := serveOnce(s, req)
		if got.Code != http.StatusRequestEntityTooLarge || !strings.Contains(got.Body.String(), "names and values, the limit is 400000") {
			t.Errorf("%s: got %d %.300s", name, got.Code, got.Body)
		}
	}
}
