package client

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Token is a bearer token, and where it was given.
type Token struct{ Value, Source string }

// Tokens hands out tokens in turn. A token is known by its index alone; the token itself
// leaves only in the header of a request. It is safe for concurrent use.
type Tokens struct {
	given    []Token
	headers  []string // values of Authorization; "" for requests without a token
	replacer *strings.Replacer

	mu    sync.Mutex
	next  int
	until []time.Time // before which a token is not to be used
}

// NewTokens returns tokens to take in turn. Without any, all requests go out without a token
// and count as those of token 0.
func NewTokens(tokens []Token) *Tokens {
	p := &Tokens{given: tokens}
	byLength := make([]int, len(tokens))
	for i, token := range tokens {
		p.headers = append(p.headers, "Bearer "+token.Value)
		byLength[i] = i
	}
	if len(tokens) == 0 {
		p.headers = []string{""}
	}
	// Longer ones first: a token that begins with a shorter one would otherwise leave its rest.
	slices.SortStableFunc(byLength, func(a, b int) int { return len(tokens[b].Value) - len(tokens[a].Value) })
	var names []string
	for _, i := range byLength {
		names = append(names, tokens[i].Value, tokenName(i))
	}
	p.replacer = strings.NewReplacer(names...)
	p.until = make([]time.Time, len(p.headers))
	return p
}

// tokenName is what a token is called wherever a user can see it.
func tokenName(index int) string { return "#" + strconv.Itoa(index+1) }

// Names returns what the tokens are called, by index.
func (p *Tokens) Names() []string {
	names := make([]string, len(p.headers))
	for i := range names {
		names[i] = tokenName(i)
	}
	return names
}

// Sources returns where each of several tokens was given, by index. It is safe to print.
func (p *Tokens) Sources() []string {
	if len(p.given) < 2 {
		return nil
	}
	var sources []string
	for _, token := range p.given {
		sources = append(sources, p.redact(token.Source))
	}
	return sources
}

// describe says which of several tokens one is, "" if it is the only one.
func (p *Tokens) describe(index int) string {
	if len(p.given) < 2 {
		return ""
	}
	return fmt.Sprintf("token %s (%s)", tokenName(index), p.redact(p.given[index].Source))
}

func (p *Tokens) redact(s string) string { return p.replacer.Replace(s) }

// Given returns how many tokens there are, 0 if requests carry none.
func (p *Tokens) Given() int { return len(p.given) }

// Size returns how many indices there are, at least 1.
func (p *Tokens) Size() int { return len(p.headers) }

// Take returns the next token, and whether it may be used at now. A token that may not has
// had its turn all the same, so that the others do not get more requests instead.
func (p *Tokens) Take(now time.Time) (index int, usable bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	index = p.next
	p.next = (p.next + 1) % len(p.headers)
	return index, !now.Before(p.until[index])
}

// Hold keeps a token from being used before t.
func (p *Tokens) Hold(index int, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.After(p.until[index]) {
		p.until[index] = t
	}
}

// authorize puts a token into the header of a request.
func (p *Tokens) authorize(h http.Header, index int) {
	if p.headers[index] != "" {
		h.Set("Authorization", p.headers[index])
	}
}

// maxRetryAfter bounds what a server can ask for, so that no header stops a run forever.
const maxRetryAfter = time.Hour

// RetryAfter returns how long an answer asks to wait, 0 if it does not say and an hour at
// most. It takes both forms of RFC 9110, section 10.2.3: seconds and a date.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if n, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(date.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
