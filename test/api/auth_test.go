package api

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/test/apitest"
)

func TestTokens(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		for _, tc := range []struct {
			header, value string
			code          int
		}{
			{"X-Auth-Token", aliceToken, 200},
			{"x-auth-token", aliceToken, 200},
			{"X-Auth-Token", largeToken, 200},
			{"Authorization", "Bearer " + aliceToken, 200},
			{"Authorization", "bearer " + aliceToken, 200},
			{"Authorization", "BEARER " + aliceToken, 200},
			{"Authorization", "Bearer " + largeToken, 200},
			{"Authorization", "Bearer", 401},
			{"Authorization", "Basic " + aliceToken, 401},
			{"Authorization", aliceToken, 401},
			{"Authorization", "Bearer " + unknownToken, 401},
			{"Authorization", "Bearer " + aliceToken + "x", 401},
			{"X-Auth-Token", unknownToken, 401},
			{"X-Auth-Token", "Bearer " + aliceToken, 401},
			{"X-Auth-Token", largeToken[:len(largeToken)-1], 401},
			{"X-Other", aliceToken, 401},
		} {
			req := newRequest(t, shared, http.MethodGet, endpointsPath("default", ""), nil, "X-Auth-Token", noToken, tc.header, tc.value)
			a := send(t, client, req)
			if a.code != tc.code {
				t.Errorf("%s: %.30s…: got %d %s, want %d", tc.header, tc.value, a.code, a.body, tc.code)
			}
			challenge := ""
			if a.code == 401 {
				message := "Unauthorized"
				challenge = `Bearer realm="berth", error="invalid_token", error_description="the token is not known"`
				if tc.value == "Bearer" || tc.header == "X-Other" || !strings.HasPrefix(tc.value, "Bearer ") && tc.header == "Authorization" {
					challenge, message = `Bearer realm="berth"`, "Unauthorized: no token was sent, in X-Auth-Token or Authorization: Bearer"
				}
				if status := decode[*metav1.Status](t, a); status.Reason != metav1.StatusReasonUnauthorized || status.Message != message {
					t.Errorf("%s: %.30s…: got %v", tc.header, tc.value, status)
				}
			}
			if got := a.header.Get("WWW-Authenticate"); got != challenge {
				t.Errorf("%s: %.30s…: %d with WWW-Authenticate %q", tc.header, tc.value, a.code, got)
			}
		}
	})
}

func TestHeadersTooLarge(t *testing.T) {
	req := newRequest(t, shared, http.MethodGet, endpointsPath("default", ""), nil, "X-Auth-Token", largeToken+largeToken+largeToken+largeToken+largeToken)
	if a := send(t, newClient(t, shared, false), req); a.code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", a.code)
	}
}

// Guesses from an address are answered with 401 for the burst and then with 429. A valid token
// passes beside them, also one that is used for the first time, as after a restart or behind a
// proxy that everybody shares, and other addresses do not notice.
func TestGuessing(t *testing.T) {
	const burst, workers, guesses = 4, 8, 250
	server := startServer(t, apitest.Config{
		Tokens: tokens(),
		RateLimits: &ratelimit.Config{
			Defaults:  ratelimit.Defaults{Read: &ratelimit.Limit{QPS: 1e6, Burst: 1e6}},
			Anonymous: &ratelimit.Limit{QPS: 0.01, Burst: burst},
		},
	})
	request := func(token string) *http.Request {
		return newRequest(t, server, http.MethodGet, "/api/v1/namespaces/default", nil, "X-Auth-Token", token)
	}
	var mu sync.Mutex
	codes := map[int]int{}
	var last *answer
	var guessing sync.WaitGroup
	for worker := range workers {
		client := newClient(t, server, true)
		guessing.Go(func() {
			for i := range guesses {
				a, err := try(client, request(fmt.Sprintf("%s-guess-%d-%d", secret, worker, i)))
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
	go func() { guessing.Wait(); close(done) }()
	client, valid := newClient(t, server, true), []string{aliceToken, largeToken, slowerToken}
	for guessed := false; !guessed; {
		select {
		case <-done:
			guessed = true
		default:
		}
		for _, token := range valid {
			checkCode(t, send(t, client, request(token)), 200, "")
		}
	}
	if codes[401] != burst || codes[429] != workers*guesses-burst {
		t.Errorf("answered %v, want 401 %d times and then 429", codes, burst)
	}
	checkCode(t, last, 429, "the limit for requests without a valid token from this address is reached")
	if after := retryAfter(t, last); after < 90*time.Second || after > 100*time.Second {
		t.Errorf("told to wait %v", after)
	}
	checkCode(t, send(t, client, request(noToken)), 429, "")
	elsewhere := newClient(t, server, true)
	elsewhere.Transport.(*http.Transport).DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext
	checkCode(t, send(t, elsewhere, request(unknownToken)), 401, "")
}
