package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/test/apitest"
)

// retryAfter returns how long a 429 tells to wait. It says so in both places, or fails.
func retryAfter(t *testing.T, a *answer) time.Duration {
	t.Helper()
	status := decode[*metav1.Status](t, a)
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || a.code != 429 || status.Reason != metav1.StatusReasonTooManyRequests || int(status.Details.RetryAfterSeconds) != seconds {
		t.Fatalf("%d with Retry-After %q and details %v", a.code, a.header.Get("Retry-After"), status.Details)
	}
	return time.Duration(seconds) * time.Second
}

func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// A token that is limited to 5 a second floods the server with 1,000 requests. It is told
// how long to wait, which is enough, and another token does not notice.
func TestFlood(t *testing.T) {
	t.Parallel()
	const flood, workers = 1000, 16
	path := endpointsPath("default", "")
	var mu sync.Mutex
	var last *answer
	codes := map[int]int{}
	client, other := newClient(t, shared, true), newClient(t, shared, true)
	start := time.Now()
	var flooding sync.WaitGroup
	for range workers {
		flooding.Go(func() {
			for range flood / workers {
				a, err := try(client, newRequest(t, shared, http.MethodGet, path, nil, "X-Auth-Token", slowToken))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if codes[a.code]++; a.code == 429 {
					last = a
				}
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	go func() { flooding.Wait(); close(done) }()
	var latencies []time.Duration
	for flooded := false; !flooded; {
		before := time.Now()
		checkCode(t, send(t, other, newRequest(t, shared, http.MethodGet, path, nil, "X-Auth-Token", aliceToken)), 200, "")
		latencies = append(latencies, time.Since(before))
		select {
		case <-done:
			flooded = true
		default:
		}
	}
	took := time.Since(start)
	slices.Sort(latencies)
	t.Logf("flood of %v: %v; the other token: %d requests, p99 %v", took, codes, len(latencies), latencies[len(latencies)*99/100])
	if most := slowPerSecond + int(took.Seconds()*slowPerSecond) + 1; codes[200] > most || codes[200] < slowPerSecond || codes[200]+codes[429] != flood/workers*workers {
		t.Fatalf("answered %v in %v, want at most %d times 200 and the rest 429", codes, took, most)
	}
	if after := retryAfter(t, last); after != time.Second {
		t.Errorf("told to wait %v, want 1 s: a fifth of it, rounded up", after)
	}
	wait(t, retryAfter(t, last))
	checkCode(t, send(t, client, newRequest(t, shared, http.MethodGet, path, nil, "X-Auth-Token", slowToken)), 200, "")
}

// Waiting as long as told is enough at the first try, time and again.
func TestRetryAfterIsEnough(t *testing.T) {
	t.Parallel()
	get := func() *answer {
		return send(t, shared.Client, newRequest(t, shared, http.MethodGet, endpointsPath("default", ""), nil, "X-Auth-Token", slowerToken))
	}
	checkCode(t, get(), 200, "")
	for range 2 {
		refused := get()
		after := retryAfter(t, refused)
		if after < time.Second || after > 2*time.Second {
			t.Fatalf("told to wait %v for one request in two seconds", after)
		}
		wait(t, after)
		checkCode(t, get(), 200, "")
	}
}

// A user's share of the requests at once is not taken from the others, by kind; an
// administrator's are not counted, and neither are bodies that are still to come.
func TestRequestsInFlight(t *testing.T) {
	var faulty faultyStorage
	server := startServer(t, apitest.Config{
		Wrap: faulty.wrap, MaxRequestsInFlight: 4, MaxMutatingRequestsInFlight: 2,
		Tokens: apitest.Token + ",admin,1,system:masters\nalice-token,alice,2\nbob-token,bob,3\n",
	})
	ns := newNamespace(t, server)
	for range 3 {
		uploading, upload := io.Pipe()
		defer upload.CloseWithError(io.ErrUnexpectedEOF) // which the client never sends
		req := newRequest(t, server, http.MethodPost, endpointsPath(ns, ""), nil, "X-Auth-Token", "alice-token")
		req.Body = uploading
		go func() {
			if a, err := try(server.Client, req); err == nil {
				t.Errorf("an upload that never ended got %v", a)
			}
		}()
		if _, err := upload.Write([]byte("{")); err != nil { // it is being read
			t.Fatal(err)
		}
	}
	entered, release := make(chan struct{}), make(chan struct{})
	faulty.on(t, ns, "held", func(_ context.Context, write func() (storage.WriteResponse, error)) (storage.WriteResponse, error) {
		close(entered)
		<-release
		return write()
	})
	held := make(chan *answer, 1)
	req := newRequest(t, server, http.MethodPost, endpointsPath(ns, ""), body("held"), "X-Auth-Token", "alice-token")
	go func() {
		a, err := try(server.Client, req)
		if err != nil {
			t.Error(err)
		}
		held <- a
	}()
	<-entered
	post := func(token, name string) *answer {
		return send(t, server.Client, newRequest(t, server, http.MethodPost, endpointsPath(ns, ""), body(name), "X-Auth-Token", token))
	}
	refused := post("alice-token", "a")
	checkCode(t, refused, 429, "the limit of writes in progress, 1 for each user, is reached")
	if after := retryAfter(t, refused); after != time.Second {
		t.Errorf("told to wait %v", after)
	}
	checkCode(t, post("bob-token", "b"), 201, "")
	checkCode(t, post(apitest.Token, "c"), 201, "")
	checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodGet, endpointsPath(ns, ""), nil, "X-Auth-Token", "alice-token")), 200, "")
	metrics := scrape(t, server)
	if got := metrics[`apiserver_current_inflight_requests{request_kind="mutating"}`]; got < 1 {
		t.Errorf("%v writes are in progress, want the held one at least", got)
	}
	if got := metrics[`berth_rejected_requests_total{limit="writes-in-progress",resource="endpoints",share="user"}`]; got != 1 {
		t.Errorf("%v requests are rejected, want 1", got)
	}
	close(release)
	if a := <-held; a == nil || a.code != 201 {
		t.Errorf("the held request got %v", a)
	}
	eventually(t, "room for the next", func() bool {
		name := fmt.Sprintf("b-%d", time.Now().UnixNano())
		return post("alice-token", name).code == 201
	})
}
