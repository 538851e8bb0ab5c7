package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"unicode"
	"unicode/utf8"
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

// evil is what a terminal or a browser obeys: escape sequences with ESC and with a C1 control
// as a character and as a byte, characters that turn the order of the text around or print
// nothing, and no UTF-8.
const evil = "\x1b]0;title\x07\x1b[2J\u009b31m\r\b\u202e\u2066\u200f\u061c\u2028\U000e0041\x9b\xff"

// expectPrintable fails where anything in text could do more than be read.
func expectPrintable(t *testing.T, text string) {
	t.Helper()
	obeyed := func(c rune) bool { return c != '\n' && (c == utf8.RuneError || !unicode.IsGraphic(c)) }
	if i := strings.IndexFunc(text, obeyed); i >= 0 {
		t.Errorf("a control character was printed: %q", text[max(0, i-40):min(i+10, len(text))])
	}
}

// Nothing that a server sends reaches the terminal as an escape sequence.
func TestRunPrintsNoControlCharacters(t *testing.T) {
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
	expectPrintable(t, r.all())

	f.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		writeStatus(w, http.StatusUnauthorized, "Who"+evil, "go away"+evil)
		return true
	}
	if r := runTool(t, f); r.stderr != "loadtest: cannot use "+f.URL+": namespace loadtest: 401 Who ]0;title [2J 31m: go away ]0;title [2J 31m\n" {
		t.Errorf("status %d: %q", r.status, r.stderr)
	}
}

// Nor does what is not even an answer: it gets into the errors of net/http.
func TestRunPrintsNoBrokenAnswer(t *testing.T) {
	for name, answer := range map[string]string{
		"a status line":    evil + "\r\n\r\n",
		"a reason":         "HTTP/1.1 403 " + evil + "\r\nContent-Length: 0\r\n\r\n",
		"a code":           "HTTP/1.1 4" + evil + " Bad\r\n\r\n",
		"a header":         "HTTP/1.1 200 OK\r\n" + evil + "\r\n\r\n",
		"a length":         "HTTP/1.1 200 OK\r\nContent-Length: " + strings.ReplaceAll(evil, "\r", "") + "\r\n\r\n",
		"an encoding":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + strings.ReplaceAll(evil, "\r", "") + "\r\n\r\n",
		"a redirection":    "HTTP/1.1 302 Found\r\nLocation: https://" + strings.ReplaceAll(evil, "\r", "") + "/\r\nContent-Length: 0\r\n\r\n",
		"another protocol": "SSH-2.0-" + evil + "\r\n",
		"a warning":        "HTTP/1.1 503 Busy\r\nWarning: 299 - \"" + strings.ReplaceAll(evil, "\r", "") + "\"\r\nContent-Length: 20\r\n\r\n" + evil[:20],
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t)
			f.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if !isLoad(r) {
					return false
				}
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return true
				}
				fmt.Fprint(conn, answer)
				conn.Close()
				return true
			}
			r := runTool(t, f, "--http2=false", "--rate=50", "--duration=100ms")
			if r.status == statusOK {
				t.Errorf("status %d of a run in which nothing succeeded", r.status)
			}
			expectPrintable(t, r.all())
		})
	}
}
