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
			checkCreates(t, web)
		})
	}
}

func checkCreates(t *testing.T, web *httptest.Server) {
	t.Helper()
	next := clientRequest(t, web.URL+testPath)
	next.Method, next.Body = http.MethodPost, io.NopCloser(strings.NewReader(`{}`))
	resp, answer, err := send(t, web, next)
	if err != nil || resp.code != http.StatusCreated {
		t.Errorf("the next request got %v %s, %v", resp, answer, err)
	}
}

// Large bodies are worked on a few at a time, and small ones do not wait for them.
func TestLargeBodiesTakeTurns(t *testing.T) {
	working, release := make(chan struct{}, 3), make(chan struct{})
	s := newTestServer(t, testConfig(t, &fakeResource{create: func(ctx context.Context, obj runtime.Object, opts *metav1.CreateOptions) (*object.Object, []string, error) {
		if _, ok := obj.(metav1.Object).GetAnnotations()["large"]; ok {
			working <- struct{}{}
			<-release
		}
		return echo(ctx, obj, opts)
	}}))
	web := start(t, s, true)
	post := func(query string, size int) int {
		req := clientRequest(t, web.URL+testPath+query)
		req.Method, req.Body = http.MethodPost, io.NopCloser(strings.NewReader(`{"metadata":{"annotations":{"large":"`+strings.Repeat("x", size)+`"}}}`))
		resp, answer, err := send(t, web, req)
		if err != nil {
			t.Error(err)
			return 0
		}
		if resp.code == http.StatusGatewayTimeout && !strings.Contains(string(answer), "which is large") {
			t.Errorf("got %s", answer)
		}
		return resp.code
	}
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if code := post("", maxBodyBytes-1000); code != http.StatusCreated {
				t.Errorf("a large body got %d", code)
			}
		})
		<-working
	}
	if code := post("?timeout=500ms", largeBody); code != http.StatusGatewayTimeout {
		t.Errorf("a third large body got %d", code)
	}
	checkCreates(t, web)
	close(release)
	all.Wait()
	if code := post("", maxBodyBytes-1000); code != http.StatusCreated {
		t.Errorf("a large body afterwards got %d", code)
	}
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
		checkCreates(t, web)
	}
}
