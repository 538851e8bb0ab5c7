package main

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// tokenPool hands out tokens one after the other. A token is known by its index alone; the
// token itself leaves the pool only in the header of a request. It is safe for concurrent
// use.
type tokenPool struct {
	headers  []string // values of Authorization; "" for requests without a token
	replacer *strings.Replacer

	mu    sync.Mutex
	next  int
	until []time.Time // before which a token is not to be used
}

// newTokenPool makes a pool of tokens. Without any, all requests go out without a token and
// count as those of token 0.
func newTokenPool(tokens []string) *tokenPool {
	p := &tokenPool{headers: []string{""}}
	var names []string
	if len(tokens) > 0 {
		p.headers = nil
	}
	byLength := make([]int, len(tokens))
	for i, token := range tokens {
		p.headers = append(p.headers, "Bearer "+token)
		byLength[i] = i
	}
	// The longer one first: else a token that another one begins with would leave its rest.
	slices.SortStableFunc(byLength, func(a, b int) int { return len(tokens[b]) - len(tokens[a]) })
	for _, i := range byLength {
		names = append(names, tokens[i], tokenName(i))
	}
	p.replacer = strings.NewReplacer(names...)
	p.until = make([]time.Time, len(p.headers))
	return p
}

// tokenName is what a token is called wherever a user can see it.
func tokenName(index int) string { return "#" + strconv.Itoa(index+1) }

// redact replaces each token in a text by its name.
func (p *tokenPool) redact(text string) string { return p.replacer.Replace(text) }

func (p *tokenPool) size() int { return len(p.headers) }

// take returns the next token, and whether it may be used at now. One that may not has had
// its turn all the same, so that the others get no more requests for it.
func (p *tokenPool) take(now time.Time) (index int, usable bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	index = p.next
	p.next = (p.next + 1) % len(p.headers)
	return index, !now.Before(p.until[index])
}

// hold keeps a token from being used before t.
func (p *tokenPool) hold(index int, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.After(p.until[index]) {
		p.until[index] = t
	}
}

// authorize puts a token into the header of a request.
func (p *tokenPool) authorize(h http.Header, index int) {
	if p.headers[index] != "" {
		h.Set("Authorization", p.headers[index])
	}
}

// maxRetryAfter bounds what a server can ask for, so that no header stops a run for good.
const maxRetryAfter = time.Hour

// retryAfter returns how long an answer asks to wait, 0 where it does not say. It takes both
// forms of RFC 9110, section 10.2.3: seconds and a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if n, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(date.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// statusName is how an answer is counted by its token.
func statusName(code int) string {
	if code == 0 {
		return "no answer"
	}
	return fmt.Sprint(code)
}
