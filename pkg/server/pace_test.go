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
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/test/harness"
)

// An answer has writeTimeout for each write, but no more in all than its bytes have earned.
func TestAnswerPace(t *testing.T) {
	begin := time.Now()
	type write struct {
		at   time.Duration
		n    int
		want time.Duration
	}
	for name, writes := range map[string][]write{
		"at once":        {{0, 1 << 20, writeTimeout}},
		"fast":           {{0, 1 << 20, writeTimeout}, {time.Second, 1 << 20, time.Second + writeTimeout}, {time.Hour, 1 << 30, time.Hour + writeTimeout}},
		"nothing":        {{0, 0, writeTimeout}, {writeTimeout / 2, 0, writeTimeout}},
		"a few bytes":    {{0, 1, writeTimeout}, {50 * time.Second, minAnswerRate, 61 * time.Second}, {60 * time.Second, minAnswerRate, 62 * time.Second}},
		"slow, then not": {{0, 1, writeTimeout}, {50 * time.Second, 1 << 20, 110 * time.Second}},
	} {
		var pace answerPace
		for _, w := range writes {
			got := pace.next(begin.Add(w.at), w.n).Sub(begin)
			if diff := got - w.want; diff < 0 || diff > 10*time.Millisecond {
				t.Errorf("%s: after %v: got %v, want %v", name, w.at, got, w.want)
			}
		}
	}
}

// shortGrace has bodies that come slowly given up soon.
func shortGrace(t *testing.T) {
	before := bodyGrace
	bodyGrace = 500 * time.Millisecond
	t.Cleanup(func() { bodyGrace = before })
}

// creating returns a server that creates Endpoints.
func creating(t *testing.T, http2 bool) *httptest.Server {
	t.Helper()
	resource := &fakeResource{create: echo}
	return start(t, newTestServer(t, testConfig(t, resource)), http2)
}

// post sends a body as it is written, of which length bytes are announced, -1: none.
func post(t *testing.T, web *httptest.Server, query string, length int64, write func(io.Writer)) (int, string) {
	t.Helper()
	r, w := io.Pipe()
	req := clientRequest(t, web.URL+testPath+query, "Content-Type", "application/json")
	req.Method, req.Body, req.ContentLength = http.MethodPost, r, length
	go write(w)
	resp, err := web.Client().Do(req)
	w.Close() // net/http's client goes on reading it
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// A body that comes a byte at a time is given up, and one that comes at a good pace is not,
// though it takes longer.
func TestSlowBodies(t *testing.T) {
	shortGrace(t)
	versions(t, func(t *testing.T, http2 bool) {
		web, length := creating(t, http2), int64(10_000)
		if http2 {
			length = -1
		}
		code, body := post(t, web, "", length, func(w io.Writer) {
			for range 10_000 {
				if _, err := w.Write([]byte(" ")); err != nil {
					return
				}
				<-time.After(bodyGrace / 100)
			}
		})
		if code != http.StatusGatewayTimeout || !strings.Contains(body, "came too slowly: less than 1024 bytes a second") {
			t.Errorf("got %d %s", code, body)
		}
		code, body = post(t, web, "?timeout=20ms", -1, func(w io.Writer) { _, _ = w.Write([]byte(" ")) })
		if code != http.StatusGatewayTimeout || !strings.Contains(body, "while its body was being read") {
			t.Errorf("got %d %s", code, body)
		}
		code, body = post(t, web, "", -1, func(w io.Writer) {
			_, _ = io.WriteString(w, `{"metadata":{"name":"a"}}`)
			for range 5 {
				_, _ = io.WriteString(w, strings.Repeat(" ", 4<<10))
				<-time.After(bodyGrace / 4)
			}
			w.(io.Closer).Close()
		})
		if code != http.StatusCreated {
			t.Errorf("got %d %s", code, body)
		}
	})
}

// large returns a server whose one object is large, over HTTP/2 with TLS and HTTP/1.1 without: for
// crypto/tls would wait 5 s more to tell a connection that it ends. ended is closed once the
// object has been asked for and answered.
func large(t *testing.T, http2 bool) (web *httptest.Server, ended <-chan struct{}) {
	t.Helper()
	obj := named(t, "a", 16<<20)
	done := make(chan struct{})
	cfg := testConfig(t, &fakeResource{get: func(context.Context) (*object.Object, error) { return obj, nil }})
	s := newTestServer(t, cfg)
	web = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		defer close(done)
		defer func() {
			families, err := cfg.Metrics.Gather()
			counted := false
			for _, family := range families {
				counted = counted || family.GetName() == "apiserver_request_aborts_total"
			}
			if err != nil || !counted {
				t.Errorf("the answer is not counted as cut off (%v)", err)
			}
		}()
		s.ServeHTTP(w, req)
	}))
	if web.EnableHTTP2 = http2; http2 {
		web.StartTLS()
	} else {
		web.Start()
	}
	t.Cleanup(web.Close)
	return web, done
}

// A client does not get more time by reading a few bytes now and then.
func TestClientsThatTrickle(t *testing.T) {
	shortTimeouts(t)
	t.Run("windows of HTTP/2", func(t *testing.T) {
		web, ended := large(t, true)
		config := web.Client().Transport.(*http.Transport).TLSClientConfig
		conn := harness.DialHTTP2(t, web.URL, config, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		conn.Get(1, testPath+"/a", "x-auth-token", testToken)
		for reset := false; !reset; {
			if err := conn.WriteWindowUpdate(1, 1); err != nil {
				t.Fatal(err)
			}
			frame, err := conn.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch frame := frame.(type) {
			case *http2.RSTStreamFrame:
				reset = true
			case *http2.DataFrame:
				if frame.StreamEnded() {
					t.Fatal("all was answered")
				}
				<-time.After(writeTimeout / 20)
			}
		}
		eventually(t, "the handler goes on", ended)
	})
	t.Run("HTTP/1.1", func(t *testing.T) {
		web, ended := large(t, false)
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", web.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s/a HTTP/1.1\r\nHost: test\r\nX-Auth-Token: %s\r\n\r\n", testPath, testToken)
		trickle := time.NewTicker(writeTimeout / 20)
		defer trickle.Stop()
		for r, deadline := bufio.NewReaderSize(conn, 16), time.After(20*time.Second); ; {
			select {
			case <-ended:
				return
			case <-deadline:
				t.Fatal("the handler goes on")
			case <-trickle.C:
				_, _ = r.ReadByte()
			}
		}
	})
}

// A watch that is revoked ends soon even if its client does not read, or has much to read.
func TestRevokedWatches(t *testing.T) {
	versions(t, func(t *testing.T, http2 bool) {
		ended := make(chan struct{})
		batch := slices.Repeat([]object.Event{added(named(t, "a", 1<<20))}, 100)
		cfg := testConfig(t, sequence(func(_ context.Context, yield func([]object.Event, error) bool) {
			yield(batch, nil)
			close(ended)
		}))
		web := start(t, newTestServer(t, cfg), http2)
		resp, err := web.Client().Do(clientRequest(t, web.URL+testPath+"?watch=1", "Accept-Encoding", "identity"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := cfg.Authenticator.(*auth.Tokens).Set("another-unit-test-token", auth.User{Name: "admin"}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the watch goes on", ended)
	})
}

// slowly is a client of an answer that lasts: it reads a piece at a time.
type slowly struct {
	body io.ReadCloser
	read int
	err  error
}

func slowAnswer(t *testing.T, web *httptest.Server, query string) *slowly {
	t.Helper()
	resp, err := web.Client().Do(clientRequest(t, web.URL+testPath+query, "Accept-Encoding", "identity"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &slowly{body: resp.Body}
}

func (s *slowly) next() {
	var n int
	n, s.err = io.ReadFull(s.body, make([]byte, 128<<10))
	s.read += n
}

// old is how much of its share of old versions the server's users have.
func old(s *Server) int64 { return s.pools.old.InUse() }

// testLastingAnswers has two answers of 40 MiB each last, to which the query leads: there is
// room for one of them.
func testLastingAnswers(t *testing.T, s *Server, web *httptest.Server, query string, size int) {
	t.Helper()
	tick := time.NewTicker(writeTimeout / 40)
	defer tick.Stop()
	first := slowAnswer(t, web, query)
	for old(s) == 0 && first.err == nil {
		<-tick.C
		first.next()
	}
	taken := old(s)
	second := slowAnswer(t, web, query)
	for second.err == nil && first.err == nil {
		<-tick.C
		first.next()
		second.next()
	}
	if first.err != nil || taken < 40<<20 || old(s) != taken {
		t.Fatalf("the first answer has %d bytes and then %d: %v; %d were read", taken, old(s), first.err, first.read)
	}
	if errors.Is(second.err, io.EOF) || second.read >= size {
		t.Errorf("the second answer ended with %v after %d bytes, want it cut off", second.err, second.read)
	}
	n, err := io.CopyN(io.Discard, first.body, int64(size-first.read))
	if err != nil {
		t.Errorf("the first answer ended with %v after %d bytes of %d", err, first.read+int(n), size)
	}
	for deadline := time.Now().Add(20 * time.Second); old(s) != 0; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are not given back", old(s))
		}
	}
}

// What lasts counts as old versions, which its user may have only so many of.
func TestAnswersThatLast(t *testing.T) {
	shortTimeouts(t)
	writeTimeout = 800 * time.Millisecond // in which a slow machine still moves a piece
	objects := slices.Repeat([]*object.Object{named(t, "a", 1<<20)}, 40)
	versions(t, func(t *testing.T, http2 bool) {
		t.Run("list", func(t *testing.T) {
			list := &object.List{Type: endpointsType, Objects: objects}
			s := newTestServer(t, testConfig(t, &fakeResource{list: func(context.Context) (*object.List, []string, error) { return list, nil, nil }}))
			testLastingAnswers(t, s, start(t, s, http2), "", len(serveOnce(s, newRequest(t, http.MethodGet, testPath, "")).Body.Bytes()))
		})
		if !http2 {
			return
		}
		// Each of its batches is soon read, but together they last.
		t.Run("initial events", func(t *testing.T) {
			resource := sequence(func(ctx context.Context, yield func([]object.Event, error) bool) {
				for _, o := range objects {
					if !yield([]object.Event{added(o)}, nil) {
						return
					}
				}
				<-ctx.Done()
			})
			s := newTestServer(t, testConfig(t, beginning{resource, objects}))
			testLastingAnswers(t, s, start(t, s, http2), "?watch=1", len(objects)*len(line(objects[0])))
		})
		t.Run("batch", func(t *testing.T) {
			resource := sequence(func(ctx context.Context, yield func([]object.Event, error) bool) {
				batch := make([]object.Event, 0, len(objects))
				for _, o := range objects {
					batch = append(batch, added(o))
				}
				if yield(batch, nil) {
					<-ctx.Done()
				}
			})
			s := newTestServer(t, testConfig(t, resource))
			testLastingAnswers(t, s, start(t, s, http2), "?watch=1", len(objects)*len(line(objects[0])))
		})
	})
}

// beginning is a resource whose watches begin with the objects.
type beginning struct {
	*fakeResource
	objects []*object.Object
}

func (b beginning) Watch(ctx context.Context, _ string, _ *metav1.ListOptions) (iter.Seq2[[]object.Event, error], object.WatchCost, error) {
	size := 0
	for _, o := range b.objects {
		size += o.Size()
	}
	return b.watch(ctx), object.WatchCost{Bytes: size}, nil
}
