package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// setupTimeout bounds each step before and after a run, but for the preparation of
	// objects, which goes on as long as there is progress.
	setupTimeout = time.Minute
	// callTimeout bounds one call, with all its retries.
	callTimeout = 30 * time.Second
	// preparers is how many objects are created at the same time.
	preparers = 16
	// maxAnswer is how much of an answer is read, in bytes.
	maxAnswer = 1 << 20
)

// api makes the calls before and after a run, which are not measured.
type api struct {
	client *http.Client
	server string
	tokens *tokenPool
	turn   atomic.Uint64
}

// answerError is an answer with a status code other than 2xx, or none. Its text has no token.
type answerError struct {
	code  int // 0: no answer
	fault fault
}

func (e *answerError) Error() string { return e.fault.kind + ": " + e.fault.message }

func newAnswerError(resp *http.Response, tokens *tokenPool) *answerError {
	// What cannot be read is missing in the message, and the code says the most.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBodyKept))
	return &answerError{resp.StatusCode, answerFault(resp.StatusCode, body, tokens)}
}

func hasCode(err error, code int) bool {
	answer, ok := errors.AsType[*answerError](err)
	return ok && answer.code == code
}

// call sends a request and returns the body of its answer, or as much of it as maxAnswer. It
// tries again after a 429, and a 503 that says when, for callTimeout in all. Any other end
// but a 2xx is an *answerError.
func (a *api) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		token := int(a.turn.Add(1) % uint64(a.tokens.size()))
		answer, pause, err := a.try(ctx, method, path, body, token)
		if err == nil || pause == 0 || !wait(ctx, pause) {
			return answer, err
		}
	}
}

// try sends a request once. pause is how long to wait before it is worth another try, 0 if
// it never is.
func (a *api) try(ctx context.Context, method, path string, body []byte, token int) (answer []byte, pause time.Duration, err error) {
	req, err := a.request(ctx, method, path, body, token)
	if err != nil {
		return nil, 0, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, 0, &answerError{fault: brokenFault(err, a.tokens)}
	}
	defer resp.Body.Close()
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests:
		return nil, max(retryAfter(resp.Header, time.Now()), firstPause), newAnswerError(resp, a.tokens)
	case code == http.StatusServiceUnavailable:
		return nil, retryAfter(resp.Header, time.Now()), newAnswerError(resp, a.tokens)
	case code < 200 || code > 299:
		return nil, 0, newAnswerError(resp, a.tokens)
	}
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return answer, 0, err
}

func (a *api) request(ctx context.Context, method, path string, body []byte, token int) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.server+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	a.tokens.authorize(req.Header, token)
	return req, nil
}

// version returns what the server calls its version, "" where it does not tell.
func (a *api) version(ctx context.Context) string {
	body, err := a.call(ctx, http.MethodGet, "/version", nil)
	var info struct{ GitVersion string }
	if err != nil || json.Unmarshal(body, &info) != nil {
		return ""
	}
	return clip(a.tokens.redact(info.GitVersion), 80)
}

// ensureNamespace creates a namespace where it is not there. It waits for one to be gone that
// is being deleted.
func (a *api) ensureNamespace(ctx context.Context, name string) (created bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	for {
		body, err := a.call(ctx, http.MethodGet, "/api/v1/namespaces/"+name, nil)
		if hasCode(err, http.StatusNotFound) {
			break
		}
		var namespace struct{ Status struct{ Phase string } }
		if err == nil {
			err = json.Unmarshal(body, &namespace)
		}
		if err != nil || namespace.Status.Phase != "Terminating" {
			return false, err
		}
		if !wait(ctx, firstPause) {
			return false, fmt.Errorf("the namespace %s is being deleted, and was not gone in time", name)
		}
	}
	body := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q}}`, name)
	_, err = a.call(ctx, http.MethodPost, "/api/v1/namespaces", body)
	if hasCode(err, http.StatusConflict) {
		return false, nil // another one was faster
	}
	return err == nil, err
}

// prepare creates the objects that a run works on. It calls done with how many there are,
// one call at a time.
func (a *api) prepare(ctx context.Context, w *workload, done func(count int)) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var preparing sync.WaitGroup
	var next atomic.Int64
	var mu sync.Mutex
	finished := 0
	for range min(preparers, w.objects) {
		preparing.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= w.objects {
					return
				}
				body := w.bodies.of(&operation{verb: verbCreate, name: w.preparedName(i)})
				if _, err := a.call(ctx, http.MethodPost, w.path, body); err != nil {
					fail(err)
					return
				}
				mu.Lock()
				finished++
				done(finished)
				mu.Unlock()
			}
		})
	}
	preparing.Wait()
	return context.Cause(ctx)
}

// cleanUp deletes what a run has left: the namespace if it is the run's own, and else the
// objects.
func (a *api) cleanUp(ctx context.Context, w *workload, namespace string, own bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), setupTimeout)
	defer cancel()
	path := w.path + "?labelSelector=" + runLabel + "%3D" + w.run
	if own {
		path = "/api/v1/namespaces/" + namespace
	}
	_, err := a.call(ctx, http.MethodDelete, path, nil)
	return err
}
