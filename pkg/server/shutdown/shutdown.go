// Package shutdown is how a server takes leave of its clients: what it says about its readiness,
// which requests it refuses, and which connections it asks to close.
package shutdown

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// retryAfter is when a refused client should come back, in seconds: behind a proxy it meets
// another server then.
const retryAfter = 1

// errStopping is why a server that stops is not ready.
var errStopping = errors.New("the server is shutting down")

// Stages are those of a server's end, each of which includes the ones before.
type Stages struct {
	notReady, leaving, noWatches, closed atomic.Bool

	inProgress atomic.Int64  // requests, without watches
	idle       chan struct{} // closed when there are none and closed is set
	setIdle    func()
}

// New returns those of a server that serves everything.
func New() *Stages {
	idle := make(chan struct{})
	return &Stages{idle: idle, setIdle: sync.OnceFunc(func() { close(idle) })}
}

// NotReady has Ready return an error.
func (s *Stages) NotReady() { s.notReady.Store(true) }

// Leave has every answer ask its connection to close, so that clients go on elsewhere.
func (s *Stages) Leave() {
	s.NotReady()
	s.leaving.Store(true)
}

// RefuseWatches refuses watches.
func (s *Stages) RefuseWatches() {
	s.Leave()
	s.noWatches.Store(true)
}

// Refuse refuses everything, and returns a channel that is closed when the requests that were
// admitted before have ended.
func (s *Stages) Refuse() (idle <-chan struct{}) {
	s.RefuseWatches()
	s.closed.Store(true)
	if s.inProgress.Load() == 0 {
		s.setIdle()
	}
	return s.idle
}

// Ready returns why no more requests should be sent here; nil: they should.
func (s *Stages) Ready() error {
	if s.notReady.Load() {
		return errStopping
	}
	return nil
}

// Admit admits a request or says why not. done must be called when it has ended; a watch is not
// waited for.
func (s *Stages) Admit(watch bool) (done func(), err error) {
	if watch {
		if s.noWatches.Load() {
			return nil, errRefused()
		}
		return func() {}, nil
	}
	s.inProgress.Add(1)
	if s.closed.Load() { // looked at after the count, which Refuse reads after it has set this
		s.leave()
		return nil, errRefused()
	}
	return s.leave, nil
}

// leave ends a request.
func (s *Stages) leave() {
	if s.inProgress.Add(-1) == 0 && s.closed.Load() {
		s.setIdle()
	}
}

// errRefused is kube-apiserver's answer to what comes too late.
func errRefused() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusServiceUnavailable, Reason: metav1.StatusReasonServiceUnavailable,
		Message: "apiserver is shutting down", Details: &metav1.StatusDetails{RetryAfterSeconds: retryAfter},
	}}
}

// CloseConnection reports whether the answer should ask its connection to close: with HTTP/2 that
// is a GOAWAY, after which the streams in progress go on. chance is how probable that is for a
// request over HTTP/2 while the server does not stop.
func (s *Stages) CloseConnection(req *http.Request, chance float64) bool {
	return s.leaving.Load() || chance > 0 && req.ProtoMajor == 2 && rand.Float64() < chance
}
