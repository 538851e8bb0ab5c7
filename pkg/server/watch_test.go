package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/object"
)

// sequence is a resource whose watch is what play yields, with the context that it gets.
func sequence(play func(ctx context.Context, yield func([]object.Event, error) bool)) *fakeResource {
	return &fakeResource{watch: func(ctx context.Context) iter.Seq2[[]object.Event, error] {
		return func(yield func([]object.Event, error) bool) { play(ctx, yield) }
	}}
}

// line is an event of an added object as JSON.
func line(obj *object.Object) string {
	return `{"type":"ADDED","object":` + string(obj.JSON()) + "}\n"
}

// shortTimeouts has clients that do not read given up soon.
func shortTimeouts(t *testing.T) {
	before := writeTimeout
	writeTimeout = 100 * time.Millisecond
	t.Cleanup(func() { writeTimeout = before })
}

// versions runs a test over both versions of HTTP.
func versions(t *testing.T, test func(t *testing.T, http2 bool)) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) { test(t, http2) })
	}
}

// eventually waits for what a test has to see.
func eventually(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal(what)
	}
}

// The time that a client has for reading does not run while there is nothing to read.
func TestWatchesOutliveThePausesBetweenEvents(t *testing.T) {
	shortTimeouts(t)
	a, b := named(t, "a", 0), named(t, "b", 0)
	web := start(t, newTestServer(t, testConfig(t, sequence(func(_ context.Context, yield func([]object.Event, error) bool) {
		if yield([]object.Event{added(a)}, nil) {
			<-time.After(3 * writeTimeout)
			yield([]object.Event{added(b)}, nil)
		}
	}))), true)
	_, got, err := send(t, web, clientRequest(t, web.URL+testPath+"?watch=1"))
	if err != nil || string(got) != line(a)+line(b) {
		t.Errorf("got %q, %v", got, err)
	}
}

// The end of a watch is told, however long ago the last event was.
func TestTheEndOfAWatch(t *testing.T) {
	shortTimeouts(t)
	a, large := named(t, "a", 0), named(t, "b", 200_000)
	web := httptest.NewServer(newTestServer(t, testConfig(t, sequence(func(_ context.Context, yield func([]object.Event, error) bool) {
		yield([]object.Event{added(a), added(large)}, nil)
		<-time.After(3 * writeTimeout)
	}))))
	defer web.Close()
	for _, proto := range []string{"HTTP/1.0", "HTTP/1.1"} {
		for _, headers := range []string{"", "Accept-Encoding: gzip\r\n"} {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", web.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "GET %s?watch=1 %s\r\nHost: test\r\nX-Auth-Token: %s\r\n%s\r\n", testPath, proto, testToken, headers)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			conn.Close()
			if err != nil || headers == "" && string(got) != line(a)+line(large) {
				t.Errorf("%s %q: got %d bytes, %v", proto, headers, len(got), err)
			}
		}
	}
	versions(t, func(t *testing.T, http2 bool) {
		web := start(t, newTestServer(t, testConfig(t, sequence(func(_ context.Context, yield func([]object.Event, error) bool) {
			yield([]object.Event{added(large)}, nil)
			<-time.After(3 * writeTimeout)
		}))), http2)
		_, got, err := send(t, web, clientRequest(t, web.URL+testPath+"?watch=1")) // which unpacks
		if err != nil || string(got) != line(large) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
}

// A client that reads on, however slowly, gets all of a batch.
func TestClientsThatReadSlowly(t *testing.T) {
	shortTimeouts(t)
	writeTimeout = 800 * time.Millisecond // in which a slow machine still moves a piece
	versions(t, func(t *testing.T, http2 bool) {
		large := named(t, "a", 1<<20)
		batch := slices.Repeat([]object.Event{added(large)}, 12)
		web := start(t, newTestServer(t, testConfig(t, sequence(func(_ context.Context, yield func([]object.Event, error) bool) {
			yield(batch, nil)
		}))), http2)
		resp, err := web.Client().Do(clientRequest(t, web.URL+testPath+"?watch=1", "Accept-Encoding", "identity"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		total := 0
		for buf := make([]byte, 1<<20); err == nil; {
			<-time.After(writeTimeout / 4)
			var n int
			n, err = io.ReadFull(resp.Body, buf)
			total += n
		}
		if want := len(batch) * len(line(large)); total != want {
			t.Errorf("got %d bytes of %d, %v", total, want, err)
		}
	})
}

// A client that does not read is given up, and its watch ends.
func TestClientsThatDoNotRead(t *testing.T) {
	shortTimeouts(t)
	versions(t, func(t *testing.T, http2 bool) {
		ended := make(chan struct{})
		large := named(t, "a", 1<<20)
		web := start(t, newTestServer(t, testConfig(t, sequence(func(_ context.Context, yield func([]object.Event, error) bool) {
			for yield([]object.Event{added(large)}, nil) {
			}
			close(ended)
		}))), http2)
		resp, err := web.Client().Do(clientRequest(t, web.URL+testPath+"?watch=1", "Accept-Encoding", "identity"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		eventually(t, "the watch goes on", ended)
	})
}

// A watch whose client has gone ends, though there is nothing to write.
func TestWatchesEndWithTheirClients(t *testing.T) {
	versions(t, func(t *testing.T, http2 bool) {
		ended := make(chan struct{})
		web := start(t, newTestServer(t, testConfig(t, sequence(func(ctx context.Context, _ func([]object.Event, error) bool) {
			<-ctx.Done()
			close(ended)
		}))), http2)
		resp, err := web.Client().Do(clientRequest(t, web.URL+testPath+"?watch=1"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		eventually(t, "the watch goes on", ended)
	})
}

// A server that ends its streams ends watches as their time would, and those to come.
func TestEndStreams(t *testing.T) {
	versions(t, func(t *testing.T, http2 bool) {
		a := named(t, "a", 0)
		s := newTestServer(t, testConfig(t, sequence(func(ctx context.Context, yield func([]object.Event, error) bool) {
			yield([]object.Event{added(a)}, nil)
			<-ctx.Done()
		})))
		web := start(t, s, http2)
		resp, err := web.Client().Do(clientRequest(t, web.URL+testPath+"?watch=1"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		s.EndStreams()
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != line(a) {
			t.Errorf("got %q, %v", got, err)
		}
		if _, got, err := send(t, web, clientRequest(t, web.URL+testPath+"?watch=1")); err != nil || string(got) != line(a) {
			t.Errorf("afterwards: got %q, %v", got, err)
		}
	})
}

// A watch lives for as long as its client asks, up to an hour.
func TestWatchTime(t *testing.T) {
	for query, want := range map[string][2]time.Duration{
		"":                                    {minWatchTime, 2 * minWatchTime},
		"&timeoutSeconds=0":                   {minWatchTime, 2 * minWatchTime},
		"&timeoutSeconds=-5":                  {minWatchTime, 2 * minWatchTime},
		"&timeoutSeconds=90":                  {90 * time.Second, 90 * time.Second},
		"&timeoutSeconds=3601":                {maxWatchTime, maxWatchTime},
		"&timeoutSeconds=90&timeout=5s":       {90 * time.Second, 90 * time.Second}, // of the request, not the watch
		"&timeoutSeconds=9223372036854775807": {maxWatchTime, maxWatchTime},
	} {
		var left time.Duration
		s := newTestServer(t, testConfig(t, sequence(func(ctx context.Context, _ func([]object.Event, error) bool) {
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
		})))
		if w := serveOnce(s, newRequest(t, http.MethodGet, testPath+"?watch=1"+query, "")); w.Code != http.StatusOK {
			t.Errorf("%q: got %d %s", query, w.Code, w.Body)
		}
		if left > want[1] || left < want[0]-time.Minute {
			t.Errorf("%q: it lives for %v, want %v", query, left, want)
		}
	}
}

// Errors of a watch are told, and hide what is the server's own.
func TestWatchErrors(t *testing.T) {
	a := named(t, "a", 0)
	for name, tc := range map[string]struct {
		err      error
		contains string
	}{
		"expired":  {apierrors.NewResourceExpired("too old"), `"reason":"Expired","code":410`},
		"internal": {errors.New("disk /dev/sda1 is gone"), `"reason":"InternalError"`},
	} {
		versions(t, func(t *testing.T, http2 bool) {
			web := start(t, newTestServer(t, testConfig(t, sequence(func(_ context.Context, yield func([]object.Event, error) bool) {
				if yield([]object.Event{added(a)}, nil) && yield(nil, tc.err) {
					t.Error("the watch goes on")
				}
			}))), http2)
			_, got, err := send(t, web, clientRequest(t, web.URL+testPath+"?watch=1"))
			rest, ok := strings.CutPrefix(string(got), line(a)+`{"type":"ERROR","object":{"kind":"Status"`)
			if err != nil || !ok || !strings.Contains(rest, tc.contains) || strings.Contains(rest, "sda1") {
				t.Errorf("%s: got %q, %v", name, got, err)
			}
		})
	}
}

// An event that cannot be shown does not take away those before it, and is told.
func TestEventsThatCannotBeShownEndAWatchWithAnError(t *testing.T) {
	bad := withCells(named(t, "b", 0), func(runtime.Object) []any { return []any{func() {}} })
	events := []object.Event{added(named(t, "a", 0)), added(bad), added(named(t, "c", 0))}
	resource := sequence(func(_ context.Context, yield func([]object.Event, error) bool) { yield(events, nil) })
	web := start(t, newTestServer(t, testConfig(t, resource)), false)
	_, got, err := send(t, web, clientRequest(t, web.URL+testPath+"?watch=1", "Accept", "application/json;as=Table;g=meta.k8s.io;v=v1"))
	lines := strings.Split(strings.TrimSpace(string(got)), "\n")
	if err != nil || len(lines) != 2 || !strings.Contains(lines[0], `"cells":["a","\u003cunknown\u003e"]`) || !strings.HasPrefix(lines[1], `{"type":"ERROR","object":{"kind":"Status"`) {
		t.Errorf("got %q, %v", got, err)
	}
}

// A panic cuts off the one answer, which its client notices, and nothing else.
func TestWatchesThatPanic(t *testing.T) {
	versions(t, func(t *testing.T, http2 bool) {
		var log strings.Builder
		a := named(t, "a", 0)
		cfg := testConfig(t, sequence(func(_ context.Context, yield func([]object.Event, error) bool) {
			yield([]object.Event{added(a)}, nil)
			panic("so that the log has it")
		}))
		cfg.Logger = zerolog.New(zerolog.SyncWriter(&log))
		web := start(t, newTestServer(t, cfg), http2)
		_, got, err := send(t, web, clientRequest(t, web.URL+testPath+"?watch=1"))
		if err == nil {
			t.Errorf("got %q, want an answer that is cut off", got)
		}
		web.Close()
		if !strings.Contains(log.String(), "so that the log has it") {
			t.Errorf("logged %s", log.String())
		}
	})
}

// The events are read, and so ended, even where the client has gone at once.
func TestEventsAreReadWhereTheClientHasGone(t *testing.T) {
	read := false
	s := newTestServer(t, testConfig(t, sequence(func(context.Context, func([]object.Event, error) bool) { read = true })))
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

// A watch does not take the place of a request in progress, and its form is settled before
// it begins.
func TestWatchesAreNotCounted(t *testing.T) {
	a := named(t, "a", 0)
	open := make(chan struct{})
	resource := sequence(func(ctx context.Context, yield func([]object.Event, error) bool) {
		yield([]object.Event{added(a)}, nil)
		close(open)
		<-ctx.Done()
	})
	resource.get = func(context.Context) (*object.Object, error) { return a, nil }
	cfg := testConfig(t, resource)
	cfg.MaxRequestsInFlight = 1
	web := start(t, newTestServer(t, cfg), true)
	resp, err := web.Client().Do(clientRequest(t, web.URL+testPath+"?watch=1"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	eventually(t, "there are no events", open)
	if resp, body, err := send(t, web, clientRequest(t, web.URL+testPath+"/a")); err != nil || resp.code != http.StatusOK {
		t.Errorf("beside a watch: got %v %s, %v", resp, body, err)
	}
	if resp, body, err := send(t, web, clientRequest(t, web.URL+testPath+"?watch=1", "Accept", "application/yaml")); err != nil || resp.code != http.StatusNotAcceptable {
		t.Errorf("in YAML: got %v %s, %v", resp, body, err)
	}
}

// selected is a resource that notes the field selector of its watch.
type selected struct {
	*fakeResource
	selector string
}

func (s *selected) Watch(_ context.Context, _ string, opts *metav1.ListOptions) (iter.Seq2[[]object.Event, error], object.WatchCost, error) {
	s.selector = opts.FieldSelector
	return func(func([]object.Event, error) bool) {}, object.WatchCost{}, nil
}

// A watch of one object selects it by its name, whatever characters that has, and takes a
// field selector of the client that does so, too.
func TestWatchesOfOneObject(t *testing.T) {
	const of = "/api/v1/watch/namespaces/default/endpoints/"
	for name, tc := range map[string]struct {
		name, given string
		code        int
		want        string
	}{
		"no selector":           {"a", "", 200, "metadata.name=a"},
		"a name with a comma":   {"a,metadata.namespace=b", "", 200, `metadata.name=a\,metadata.namespace\=b`},
		"the same name":         {"a", "metadata.name=a", 200, "metadata.name=a"},
		"the same name and one": {"a", "metadata.name=a,metadata.namespace=b", 200, "metadata.name=a,metadata.namespace=b"},
		"another name":          {"a", "metadata.name=b", 400, ""},
		"not a name":            {"a", "metadata.name!=b", 400, ""},
		"no name":               {"a", "metadata.namespace=default", 400, ""},
		"not a selector":        {"a", "metadata.name", 200, "metadata.name"}, // which the resource refuses
	} {
		t.Run(name, func(t *testing.T) {
			resource := &selected{fakeResource: &fakeResource{}}
			query := url.Values{"fieldSelector": {tc.given}}
			w := serveOnce(newTestServer(t, testConfig(t, resource)), newRequest(t, http.MethodGet, of+url.PathEscape(tc.name)+"?"+query.Encode(), ""))
			if w.Code != tc.code || resource.selector != tc.want {
				t.Errorf("got %d and the selector %q, want %d and %q", w.Code, resource.selector, tc.code, tc.want)
			}
			if tc.code == http.StatusBadRequest && !strings.Contains(w.Body.String(), "fieldSelector metadata.name doesn't match requested name") {
				t.Errorf("got %s", w.Body)
			}
		})
	}
}
