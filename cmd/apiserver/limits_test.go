package main

import (
	"bytes"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-project/berth/cmd/apiserver/internal/commands"
	"github.com/berth-project/berth/pkg/apiserver"
)

var spaces, tokenID = regexp.MustCompile(` +`), regexp.MustCompile(`rate [0-9a-f]{8} `)

// What a user has used, and what is left, is shown to administrators; and every refusal names the
// same limit and the user.
func TestLimits(t *testing.T) {
	dir := t.TempDir()
	tokens, rates := filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "limits.yaml")
	replace(t, tokens, "a-token-of-the-administrator,root,1,system:masters\nthe-first-token-of-alice,alice,2\nthe-second-token-of-alice,alice,2\na-token-of-robert,bob,3\n")
	replace(t, rates, `{"apiVersion":"berth/v1alpha1","kind":"RateLimitConfiguration","defaults":{"write":{"qps":0.001,"burst":1}},"overrides":[{"users":["bob"],"per":"user","read":{"qps":7,"burst":9}}]}`)
	s := runServer(t, func(c *config) {
		c.TokenAuthFile, c.RateLimitConfig, c.AuthorizationMode = tokens, rates, apiserver.ModeAlwaysAllow
	})
	client := caller(t, s.DataDir.PKI().CACert())

	body := `{"metadata":{"name":"a"}}`
	if code, answer := call(t, client, http.MethodPost, s.url+endpointsPath, "the-first-token-of-alice", body); code != http.StatusCreated {
		t.Fatalf("%d %s", code, answer)
	}
	code, answer := call(t, client, http.MethodPost, s.url+endpointsPath, "the-first-token-of-alice", body)
	if want := `(write-rate of user \"alice\": 0.001 a second, burst 1)`; code != http.StatusTooManyRequests || !strings.Contains(answer, want) {
		t.Errorf("%d %s, want 429 with %s", code, answer, want)
	}

	for user, want := range map[string][]string{
		"alice": {
			"read-rate * 200 400 400.0", "write-rate * 0.001 1 0.0", "write-rate * 0.001 1 1.0",
			"reads-in-progress 0 100 0 400", "watches 0 1000 0 20000", "old-versions 0 67108864 0 no limit",
		},
		"bob": {"read-rate all 7 9 9.0", "write-rate all 0.001 1 1.0"},
		"":    {"none", "are not limited, and not counted"},
	} {
		var out bytes.Buffer
		if err := commands.PrintLimits(t.Context(), s.DataDir, s.url, user, &out); err != nil {
			t.Errorf("%q: %v", user, err)
		}
		got := tokenID.ReplaceAllString(spaces.ReplaceAllString(out.String(), " "), "rate * ")
		for _, row := range want {
			if !strings.Contains(got, row) {
				t.Errorf("of %q there is no %q in\n%s", user, row, out.String())
			}
		}
	}
	if err := commands.PrintLimits(t.Context(), s.DataDir, "", "carol", &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), `users "carol" not found`) {
		t.Errorf("of nobody: %v", err)
	}
	for query, want := range map[string]int{"": http.StatusOK, "?user=alice": http.StatusOK, "?user=bob": http.StatusForbidden, "?user=carol": http.StatusForbidden} {
		if code, answer := call(t, client, http.MethodGet, s.url+"/debug/limits"+query, "the-second-token-of-alice", ""); code != want {
			t.Errorf("alice asks for %q: %d %s, want %d", query, code, answer, want)
		}
	}
}
