package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"k8s.io/apimachinery/pkg/watch"
)

// sequence is a watch of the events that play yields, with the context that it gets.
func sequence(play func(ctx context.Context, yield func([]watch.Event, error) bool)) *fakeResource {
	return &fakeResource{watch: func(ctx context.Context) iter.Seq2[[]watch.Event, error] {
		return func(yield func([]watch.Event, error) bool) { play(ctx, yield) }
	}}
}

// watchAnswer is an answer whose header has been read.
type watchAnswer struct {
	closes bool // its connection, as it says
	header http.Header
	body   io.Reader
}

// dialWatch sends a watch over a connection of its own.
func dialWatch(t *testing.T, web *httptest.Server, proto, body string) (net.Conn, watchAnswer) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s?watch=1 %s\r\nHost: test\r\nX-Auth-Token: %s\r\nContent-Length: %d\r\n\r\n%s", testPath, proto, testToken, len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return conn, watchAnswer{resp.Close, resp.Header, resp.Body}
}

func TestDetachedWatch(t *testing.T) {
	defer func(timeout time.Duration) { writeTimeout = timeout }(writeTimeout)
	writeTimeout = 100 * time.Millisecond
	large := strings.Repeat("x", 3*smallPiece)
	log := &bytes.Buffer{}
	cfg := testConfig(t, sequence(func(_ context.Context, yield func([]watch.Event, error) bool) {
		yield([]watch.Event{named("a"), named(large), named("b")}, nil)
		<-time.After(3 * writeTimeout) // the end must be told, however long nothing was
	}))
	cfg.Logger = zerolog.New(log)
	s := newTestServer(t, cfg)
	want := ""
	for _, name := range []string{"a", large, "b"} {
		want += `{"type":"ADDED","object":{"name":"` + name + `"}}` + "\n"
	}
	web := httptest.NewServer(s)
	defer web.Close()
	for _, tc := range []struct {
		proto, body string
		closes      bool
	}{{"HTTP/1.1", "", true}, {"HTTP/1.1", large, false}, {"HTTP/1.0", "", true}} {
		_, answer := dialWatch(t, web, tc.proto, tc.body)
		got, err := io.ReadAll(answer.body)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %d bytes, %v, want %d: %.100s", tc.proto, len(got), err, len(want), got)
		}
		if answer.closes != tc.closes || answer.header.Get("Date") == "" || answer.header.Get("Audit-Id") == "" {
			t.Errorf("%s: answered with %+v", tc.proto, answer)
		}
	}
	web.Close() // waits for the answers of net/http, as EndStreams for the others
	if err := s.EndStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, fmt.Sprintf(`"verb":"watch","path":"%s","code":200,"bytes":%d`, testPath, len(want))) {
			t.Errorf("logged %s", line)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 3 {
		t.Errorf("logged %d lines, want 3", n)
	}
}

// A watch whose client has gone ends, though there is nothing to write.
func TestDetachedWatchEndsWithItsClient(t *testing.T) {
	ended := make(chan struct{})
	web := httptest.NewServer(newTestServer(t, testConfig(t, sequence(func(ctx context.Context, _ func([]watch.Event, error) bool) {
		<-ctx.Done()
		close(ended)
	}))))
	defer web.Close()
	conn, answer := dialWatch(t, web, "HTTP/1.1", "")
	if !answer.closes {
		t.Error("the connection was left to net/http")
	}
	fmt.Fprint(conn, "this is not heard")
	conn.Close()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the watch goes on")
	}
}

// A panic cuts off the one answer, which its client notices, and nothing else.
func TestDetachedWatchPanics(t *testing.T) {
	log := &bytes.Buffer{}
	cfg := testConfig(t, sequence(func(_ context.Context, yield func([]watch.Event, error) bool) {
		yield([]watch.Event{named("a")}, nil)
		panic("so that the log has it")
	}))
	cfg.Logger = zerolog.New(log)
	s := newTestServer(t, cfg)
	web := httptest.NewServer(s)
	defer web.Close()
	_, answer := dialWatch(t, web, "HTTP/1.1", "")
	if got, err := io.ReadAll(answer.body); !answer.closes || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v, want an unexpected EOF", got, err)
	}
	if err := s.EndStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "so that the log has it") {
		t.Errorf("logged %s", log)
	}
}

// Clients that do not read do not keep the server from coming to an end, wherever their
// connections are stuck: in TLS, or in a burst below it.
func TestEndStreams(t *testing.T) {
	for name, size := range map[string]int{"burst": 50 << 10, "TLS": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, testConfig(t, sequence(func(_ context.Context, yield func([]watch.Event, error) bool) {
				for yield([]watch.Event{named(strings.Repeat("x", size))}, nil) {
				}
			})))
			web := httptest.NewUnstartedServer(s)
			web.Listener, web.Config.ConnContext = NewListener(web.Listener), ConnContext
			web.StartTLS()
			defer web.Close()
			for range 2 {
				req := clientRequest(t, web.URL+testPath+"?watch=1")
				req.Header.Set("Accept-Encoding", "identity")
				resp, err := web.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close() // unread
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			if err := s.EndStreams(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want that clients were cut off", err)
			}
			if took := time.Since(start); took > 4*time.Second { // TLS waits for 5
				t.Errorf("it took %v", took)
			}
			if err := s.EndStreams(t.Context()); err != nil { // nothing is left
				t.Error(err)
			}
		})
	}
}
