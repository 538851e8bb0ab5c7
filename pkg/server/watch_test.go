package server

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// watched is an event's object: finished, or broken.
type watched struct {
	runtime.Object
	testObject
	err error
}

func (w *watched) Finished() (head, rest []byte, err error) {
	if w.err != nil {
		return nil, nil, w.err
	}
	return w.testObject.Finished()
}

func named(name string) watch.Event {
	return watch.Event{Type: watch.Added, Object: &watched{testObject: testObject{head: "{", rest: `"name":"` + name + `"}`}}}
}

// readWatch returns all that a watch of the events delivers.
func readWatch(t *testing.T, http2 bool, events func(ctx context.Context) iter.Seq2[[]watch.Event, error]) (string, error) {
	t.Helper()
	web := httptest.NewUnstartedServer(newTestServer(t, testConfig(t, &fakeResource{watch: events})))
	web.EnableHTTP2 = http2
	web.StartTLS()
	defer web.Close()
	resp, err := web.Client().Do(clientRequest(t, web.URL+testPath+"?watch=1"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if (resp.ProtoMajor == 2) != http2 {
		t.Fatalf("served over %s", resp.Proto)
	}
	data, err := io.ReadAll(resp.Body)
	return string(data), err
}

// The time that a client has for reading does not run while there is nothing to read. (A
// stream of HTTP/2 ends when it is over, whatever goes on.)
func TestWatchesOutliveThePausesBetweenEvents(t *testing.T) {
	defer func(timeout time.Duration) { writeTimeout = timeout }(writeTimeout)
	writeTimeout = 100 * time.Millisecond
	got, err := readWatch(t, true, func(context.Context) iter.Seq2[[]watch.Event, error] {
		return func(yield func([]watch.Event, error) bool) {
			if yield([]watch.Event{named("a")}, nil) {
				<-time.After(3 * writeTimeout)
				yield([]watch.Event{named("b")}, nil)
			}
		}
	})
	want := `{"type":"ADDED","object":{"name":"a"}}` + "\n" + `{"type":"ADDED","object":{"name":"b"}}` + "\n"
	if err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// An event that cannot be shown does not take away those before it, and is told.
func TestEventsThatCannotBeShownEndAWatchWithAnError(t *testing.T) {
	got, err := readWatch(t, false, func(context.Context) iter.Seq2[[]watch.Event, error] {
		return func(yield func([]watch.Event, error) bool) {
			broken := watch.Event{Type: watch.Added, Object: &watched{err: errors.New("broken")}}
			yield([]watch.Event{named("a"), broken, named("c")}, nil)
		}
	})
	if err != nil || !strings.HasPrefix(got, `{"type":"ADDED","object":{"name":"a"}}`+"\n"+`{"type":"ERROR","object":{"kind":"Status"`) || strings.Contains(got, `"c"`) {
		t.Errorf("got %q, %v", got, err)
	}
}

// The events are read, and so ended, even where the client has gone at once.
func TestEventsAreReadWhereTheClientHasGone(t *testing.T) {
	read := false
	s := newTestServer(t, testConfig(t, &fakeResource{watch: func(context.Context) iter.Seq2[[]watch.Event, error] {
		return func(func([]watch.Event, error) bool) { read = true }
	}}))
	req := clientRequest(t, testPath+"?watch=1")
	req.RequestURI = req.URL.RequestURI()
	s.ServeHTTP(&goneWriter{httptest.NewRecorder()}, req)
	if !read {
		t.Error("nobody read the events")
	}
}

// goneWriter is the answer to a client that has gone.
type goneWriter struct{ *httptest.ResponseRecorder }

func (goneWriter) Write([]byte) (int, error) { return 0, http.ErrAbortHandler }
func (goneWriter) FlushError() error         { return http.ErrAbortHandler }
