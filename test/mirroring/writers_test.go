package mirroring

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
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
	answers *[600]atomic.Int64 // how many there were, by status code; those without one at 0
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
		w.answers[0].Add(1)
		return 0, nil
	}
	defer resp.Body.Close()
	answer, _ = io.ReadAll(resp.Body)
	w.answers[resp.StatusCode].Add(1)
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusForbidden, http.StatusNotFound, http.StatusConflict:
	default:
		t.Errorf("%s %s %s: %d %s", method, path, body, resp.StatusCode, answer)
	}
	return resp.StatusCode, answer
}
