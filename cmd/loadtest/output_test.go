package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"unicode"
)

// No token may be seen, whatever the server says and however it was given.
func TestRunShowsNoToken(t *testing.T) {
	tokens := []string{"first-secret", "first-secret-longer", "third-secret", "fourth-secret"}
	f := newFakeAPI(t)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/version" {
			writeObject(w, http.StatusOK, map[string]any{"gitVersion": "v1 for " + r.Header.Get("Authorization")})
			return true
		}
		if !isLoad(r) {
			return false
		}
		writeStatus(w, http.StatusForbidden, "Not"+r.Header.Get("Authorization")[7:], "who sent "+strings.Join(tokens, " and ")+" may not")
		return true
	}
	file := t.TempDir() + "/tokens.csv"
	write(t, file, "third-secret,bob,1,\"a,b\"\nfourth-secret,ann,2\n")
	r := runTool(t, f, "--token=first-secret", "--token", "first-secret-longer", "--token-file="+file, "--rate=100", "--duration=200ms", "--watchers=1")
	if r.status != statusMissed {
		t.Errorf("status %d, want %d: %s", r.status, statusMissed, r.stderr)
	}
	for _, token := range tokens {
		if f.count(token) == 0 {
			t.Errorf("the token %s was never used", token)
		}
	}
	all := r.all()
	for _, part := range []string{"secret", "longer", "Bearer"} {
		if strings.Contains(strings.ReplaceAll(all, "tokens.csv", ""), part) {
			if part == "Bearer" && strings.Count(all, "Bearer #") == strings.Count(all, "Bearer") {
				continue // the server's version, which says Bearer itself
			}
			t.Errorf("%q is in the output:\n%s", part, all)
		}
	}
	for _, want := range []string{"#1", "#2", "#3", "#4", "--token=#1", "who sent #1 and #2 and #3 and #4 may not"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not in the text:\n%s", want, r.stdout)
		}
	}
}

// Nothing that a server sends reaches the terminal as an escape sequence.
func TestRunPrintsNoControlCharacters(t *testing.T) {
	const evil = "\x1b]0;title\x07\x1b[2J\u009b31m\r\b\u202e"
	f := newFakeAPI(t)
	var watches atomic.Int64
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/version":
			writeObject(w, http.StatusOK, map[string]any{"gitVersion": "v1" + evil})
		case r.URL.Query().Get("watch") != "" && watches.Add(1) > 1: // the first one opens
			writeStatus(w, http.StatusTooManyRequests, "Slow"+evil, evil)
		case r.URL.Query().Get("watch") != "":
			fmt.Fprintln(w, evil)
		case r.Method == http.MethodDelete:
			writeStatus(w, http.StatusForbidden, "Not"+evil, "cannot delete"+evil)
		case isLoad(r) && r.Method == http.MethodGet:
			http.Error(w, "no Status"+evil, http.StatusBadGateway)
		case isLoad(r):
			writeStatus(w, http.StatusForbidden, "Not"+evil, "may not"+evil)
		default:
			return false
		}
		return true
	}
	r := runTool(t, f, "--rate=100", "--duration=500ms", "--watchers=1")
	if r.status != statusMissed || !strings.Contains(r.stdout, "(v1 ]0;title [2J 31m)") || !strings.Contains(r.stdout, ": may not ]0;title") ||
		!strings.Contains(r.stdout, ": no Status ]0;title") || !strings.Contains(r.stderr, "403 Not ]0;title [2J 31m: cannot delete ]0;title") {
		t.Errorf("status %d, want %d and the server's words in\n%q\n%q", r.status, statusMissed, r.stdout, r.stderr)
	}
	printed := r.stdout + r.stderr
	if i := strings.IndexFunc(printed, func(c rune) bool { return c != '\n' && !unicode.IsGraphic(c) }); i >= 0 {
		t.Errorf("a control character was printed: %q", printed[max(0, i-20):i+10])
	}

	f.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		writeStatus(w, http.StatusUnauthorized, "Who"+evil, "go away"+evil)
		return true
	}
	if r := runTool(t, f); r.stderr != "loadtest: cannot use "+f.URL+": 401 Who ]0;title [2J 31m: go away ]0;title [2J 31m\n" {
		t.Errorf("status %d: %q", r.status, r.stderr)
	}
}
