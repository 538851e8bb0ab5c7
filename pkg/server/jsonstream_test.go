package server

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// stalled is a client that does not read until it is told to.
type stalled struct {
	http.ResponseWriter
	writing, read chan struct{}
}

func (s *stalled) Write(p []byte) (int, error) {
	close(s.writing)
	<-s.read
	return len(p), nil
}

// Clients that do not read do not keep others from their turn.
func TestTurnIsGivenUp(t *testing.T) {
	client := &stalled{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	j := newJSONStream(newRecord(client, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)), http.StatusOK, false)
	for len(turns) < cap(turns)-1 {
		turns <- struct{}{}
		defer func() { <-turns }()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		j.writePiece(make([]byte, burstThreshold+1))
	}()
	<-client.writing
	select {
	case turns <- struct{}{}:
		<-turns
	case <-time.After(20 * time.Second):
		t.Fatal("a client that does not read keeps its turn")
	}
	close(client.read)
	<-done
	if j.err != nil || !j.hurried || len(turns) != cap(turns)-1 {
		t.Errorf("got error %v, hurried %t, %d turns taken of %d", j.err, j.hurried, len(turns), cap(turns))
	}
}
