package api

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"testing"

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
			challenge := a.header.Get("WWW-Authenticate")
			if (a.code == 401) != (challenge == `Bearer realm="berth"`) {
				t.Errorf("%d with WWW-Authenticate %q", a.code, challenge)
			}
			if a.code == 401 {
				if status := decode[*metav1.Status](t, a); status.Reason != metav1.StatusReasonUnauthorized || status.Message != "Unauthorized" {
					t.Errorf("got %v", status)
				}
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

// Guesses from an address are few. A token that is in use from there goes on, and other
// addresses do not notice.
func TestGuessing(t *testing.T) {
	const burst = 4
	server := startServer(t, apitest.Config{
		Tokens:     tokens(),
		RateLimits: &ratelimit.Config{Anonymous: &ratelimit.Limit{QPS: 0.01, Burst: burst}},
	})
	get := func(client *http.Client, token string) *answer {
		t.Helper()
		return send(t, client, newRequest(t, server, http.MethodGet, "/api/v1/namespaces/default", nil, "X-Auth-Token", token))
	}
	client, elsewhere := newClient(t, server, true), newClient(t, server, true)
	elsewhere.Transport.(*http.Transport).DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext
	checkCode(t, get(client, aliceToken), 200, "")
	for i := range burst {
		checkCode(t, get(client, fmt.Sprintf("%s-guess-%d", secret, i)), 401, "Unauthorized")
	}
	for _, token := range []string{unknownToken, noToken, largeToken} { // the last is good, but new here
		a := get(client, token)
		checkCode(t, a, 429, "too many requests without a valid token from this address")
		status := decode[*metav1.Status](t, a)
		if after := a.header.Get("Retry-After"); status.Reason != metav1.StatusReasonTooManyRequests || after != strconv.Itoa(int(status.Details.RetryAfterSeconds)) || status.Details.RetryAfterSeconds < 90 || status.Details.RetryAfterSeconds > 100 {
			t.Errorf("Retry-After %q, details %v", after, status.Details)
		}
	}
	for range 3 * burst {
		checkCode(t, get(client, aliceToken), 200, "")
	}
	checkCode(t, get(elsewhere, largeToken), 200, "")
	checkCode(t, get(elsewhere, unknownToken), 401, "")
}
