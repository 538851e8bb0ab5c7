package client

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testTokens(values ...string) (tokens []Token) {
	for _, value := range values {
		tokens = append(tokens, Token{value, "line 1 of " + value + ".csv"})
	}
	return tokens
}

func TestTokenPool(t *testing.T) {
	now := time.Unix(1000, 0)
	p := NewTokens(testTokens("a-token", "b-token", "c-token"))
	take := func(at time.Time, wantIndex int, wantUsable bool) {
		t.Helper()
		if index, usable := p.Take(at); index != wantIndex || usable != wantUsable {
			t.Errorf("got token %d, usable %v, want %d, %v", index, usable, wantIndex, wantUsable)
		}
	}
	p.Hold(1, now.Add(time.Second))
	p.Hold(1, now.Add(time.Millisecond)) // a shorter wait does not end the longer one
	take(now, 0, true)
	take(now, 1, false)
	take(now, 2, true)
	take(now, 0, true)
	take(now.Add(time.Second), 1, true)

	h := http.Header{}
	p.authorize(h, 2)
	if got := h.Get("Authorization"); got != "Bearer c-token" {
		t.Errorf("the header is %q", got)
	}
	without, h := NewTokens(nil), http.Header{}
	without.authorize(h, 0)
	if without.Size() != 1 || without.Given() != 0 || len(h) > 0 {
		t.Errorf("without tokens there are %d, and the header is %v", without.Size(), h)
	}
	if got := without.redact("a text"); got != "a text" {
		t.Errorf("without tokens the text becomes %q", got)
	}
}

func TestRedact(t *testing.T) {
	p := NewTokens(testTokens("abc", "abcdef", "xyz"))
	if got, want := p.redact("abcdef abc xyzabc abcdefabc"), "#2 #1 #3#1 #2#1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"1":                             time.Second,
		"120":                           2 * time.Minute,
		"99999999":                      maxRetryAfter,
		"-1":                            0,
		"1.5":                           0,
		"soon":                          0,
		"Sun, 22 Nov 2026 12:00:30 GMT": 30 * time.Second,
		"Sun, 22 Nov 2026 11:00:00 GMT": 0,
		"Mon, 22 Nov 2027 12:00:00 GMT": maxRetryAfter,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("Retry-After: %s is %v, want %v", value, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		if got := RetryAfter(http.Header{"Retry-After": {value}}, now); got < 0 || got > maxRetryAfter {
			t.Errorf("Retry-After: %q is %v", value, got)
		}
	})
}

func TestReadTokens(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/lines", "one\n\n two \r\n")
	write(t, dir+"/csv", "three,ann,1,\"a,b\"\n\"four\",bob,2\n")
	write(t, dir+"/empty", "\n")
	write(t, dir+"/odd", "with blank\n")
	got, err := readTokens([]string{"zero"}, []string{dir + "/lines", dir + "/csv"})
	want := []Token{
		{"zero", "--token, number 1"}, {"one", "line 1 of " + dir + "/lines"}, {"two", "line 3 of " + dir + "/lines"},
		{"three", "line 1 of " + dir + "/csv, user ann"}, {"four", "line 2 of " + dir + "/csv, user bob"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	for file, want := range map[string]string{"empty": "contains no token", "odd": "not allowed in a header", "none": "no such file"} {
		_, err := readTokens(nil, []string{dir + "/" + file})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "with blank") {
			t.Errorf("%s: got %v, want %s", file, err, want)
		}
	}
}
