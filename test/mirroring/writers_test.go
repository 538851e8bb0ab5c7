package mirroring

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-project/berth/test/views"
)

// endpoint is where a writer sends its requests: it changes when a server starts again.
type endpoint struct {
	url, token string
	client     *http.Client
}

// writer sends requests and counts their answers.
type writer struct {
	at      *atomic.Pointer[endpoint]
	answers *answers
}

// answers are how many there were.
type answers struct {
	byCode [600]atomic.Int64 // by status code; those without one at 0
	left   atomic.Int64      // how many more are enough
	enough chan struct{}     // closed once there are; nil if left is 0 from the start
}

func (a *answers) add(code int) {
	a.byCode[code].Add(1)
	if a.left.Add(-1) == 0 {
		close(a.enough)
	}
}

func (a *answers) String() string {
	var counts []string
	for code := range a.byCode {
		if n := a.byCode[code].Load(); n > 0 {
			counts = append(counts, fmt.Sprintf("%d: %d", code, n))
		}
	}
	return strings.Join(counts, ", ")
}

// run has n requests sent at random.
func (w *writer) run(ctx context.Context, t *testing.T, random *rand.Rand, n int) {
	writes := views.Writer{Random: random, Namespaces: []string{"default", "kube-public"}, Send: func(ctx context.Context, method, path, contentType, body string) (int, []byte) {
		return w.sendAs(ctx, t, method, path, contentType, body)
	}}
	for range n {
		if ctx.Err() != nil {
			return
		}
		writes.Step(ctx)
	}
}

// send is sendAs with the content type that a method has most often.
func (w *writer) send(ctx context.Context, t testing.TB, method, path, body string) (code int, answer []byte) {
	contentType := "application/json"
	if method == http.MethodPatch {
		contentType = "application/merge-patch+json"
	}
	return w.sendAs(ctx, t, method, path, contentType, body)
}

// sendAs sends a request; an outcome that is not among those of a server that may be killed at any
// time, or that refuses what contradicts, fails the test.
func (w *writer) sendAs(ctx context.Context, t testing.TB, method, path, contentType, body string) (code int, answer []byte) {
	at := w.at.Load()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, at.url+path, bytes.NewBufferString(body))
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	req.Header.Set("Authorization", "Bearer "+at.token)
	req.Header.Set("Content-Type", contentType)
	resp, err := at.client.Do(req)
	if err != nil {
		w.answers.add(0)
		return 0, nil
	}
	defer resp.Body.Close()
	answer, _ = io.ReadAll(resp.Body)
	w.answers.add(resp.StatusCode)
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusForbidden, http.StatusNotFound, http.StatusConflict:
	default:
		t.Errorf("%s %s %s: %d %s", method, path, body, resp.StatusCode, answer)
	}
	return resp.StatusCode, answer
}
