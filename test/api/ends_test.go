package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/test/apitest"
)

// promptly is how long an answer may take that has nothing to wait for. It is less than the
// server waits for the rest of a body that it does not read.
const promptly = 4 * time.Second

// sendOn sends a request and returns its answer, and the connection that it went over.
func sendOn(t *testing.T, client *http.Client, req *http.Request) (*answer, net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(req.Context(), 30*time.Second)
	defer cancel()
	var conn net.Conn
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { conn = info.Conn }}
	a, err := try(client, req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	return a, conn, err
}

// checkServes checks that the next requests of a client are answered right and soon, and
// returns the connection that the first of them went over.
func checkServes(t *testing.T, client *http.Client, ns, name string) net.Conn {
	t.Helper()
	var first net.Conn
	for _, tc := range []struct {
		method, path string
		body         []byte
		code         int
		text         string
	}{
		{http.MethodGet, endpointsPath(ns, "there"), nil, 200, `"name":"there"`},
		{http.MethodGet, endpointsPath(ns, ""), nil, 200, `"items":[{`},
		{http.MethodPost, endpointsPath(ns, ""), body(name), 201, `"name":"` + name + `"`},
	} {
		start := time.Now()
		a, conn, err := sendOn(t, client, newRequest(t, shared, tc.method, tc.path, tc.body))
		if err != nil {
			t.Fatalf("%s %s: %v", tc.method, tc.path, err)
		}
		if first == nil {
			first = conn
		}
		checkCode(t, a, tc.code, tc.text)
		if took := time.Since(start); took > promptly {
			t.Errorf("%s %s took %v", tc.method, tc.path, took)
		}
	}
	checkWatches(t, client, ns)
	return first
}

// checkWatches checks that a watch tells what there is.
func checkWatches(t *testing.T, client *http.Client, ns string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), promptly)
	defer cancel()
	resp, err := client.Do(newRequest(t, shared, http.MethodGet, endpointsPath(ns, "")+"?watch=1", nil).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, `{"type":"ADDED"`) {
		t.Errorf("a watch began with %q and %v", line, err)
	}
}

// endingClient is a client for a test of what is left of a connection after a request has
// ended early: with a connection that is in use, and an object in a namespace of its own.
func endingClient(t *testing.T, client *http.Client) (ns string, conn net.Conn) {
	t.Helper()
	ns = newNamespace(t, shared)
	a, conn, err := sendOn(t, client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body("there")))
	if err != nil {
		t.Fatal(err)
	}
	checkCode(t, a, 201, "")
	return ns, conn
}

// padded is a body that has the size. One of more than 4 KB does not come in one piece.
func padded(sent []byte, size int) []byte {
	return append(sent, strings.Repeat(" ", size-len(sent))...)
}

// A request that ends early, whyever, leaves behind a connection that serves the next ones,
// or none. A small body that nobody reads does not cost the connection.
func TestEarlyEnds(t *testing.T) {
	const small, large = 1000, 1 << 20
	send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath("default", ""), body("spent"), "X-Auth-Token", spentToken))
	posts := []struct {
		name    string
		query   string
		size    int
		headers []string
		code    int
		text    string
	}{
		{"timeout", "?timeout=1ns", small, nil, 504, "its time ended before its body was read"},
		{"timeout", "?timeout=1ns", large, nil, 504, "its time ended before its body was read"},
		{"timeout while etcd is waited for", "?timeout=20ms", small, []string{"fault", "held"}, 504, "etcd ended while the request was under way"},
		{"panic", "", small, []string{"fault", "panic"}, 500, "InternalError"},
		{"invalid timeout", "?timeout=x", small, nil, 400, "invalid timeout"},
		{"no token", "", small, []string{"X-Auth-Token", noToken}, 401, "Unauthorized"},
		{"no token", "", large, []string{"X-Auth-Token", noToken}, 401, "Unauthorized"},
		{"forbidden", "", small, []string{"X-Auth-Token", deniedToken}, 403, "cannot create"},
		{"forbidden", "", large, []string{"X-Auth-Token", deniedToken}, 403, "cannot create"},
		{"rate limit", "", small, []string{"X-Auth-Token", spentToken}, 429, "limit for write requests"},
		{"rate limit", "", large, []string{"X-Auth-Token", spentToken}, 429, "limit for write requests"},
		{"media type", "", small, []string{"Content-Type", "text/plain"}, 415, "unknown format"},
		{"media type", "", large, []string{"Content-Type", "text/plain"}, 415, "unknown format"},
		{"too large", "", maxBody + 1, nil, 413, "limit is 3145728"},
		{"too large by far", "", 2 * maxBody, nil, 413, "limit is 3145728"},
	}
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		for i, tc := range posts {
			for _, chunked := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %d bytes, chunked %v", tc.name, tc.size, chunked), func(t *testing.T) {
					ns, before := endingClient(t, client)
					if len(tc.headers) > 0 && tc.headers[0] == "fault" {
						faults.on(t, ns, "padded", endings[tc.headers[1]])
					}
					for range 3 {
						req := newRequest(t, shared, http.MethodPost, endpointsPath(ns, "")+tc.query, padded(body("padded"), tc.size), tc.headers...)
						if chunked {
							req.ContentLength = -1
						}
						start := time.Now()
						a, _, err := sendOn(t, client, req)
						if err != nil {
							t.Fatal(err)
						}
						checkCode(t, a, tc.code, tc.text)
						if took := time.Since(start); took > promptly {
							t.Errorf("answered after %v", took)
						}
					}
					after := checkServes(t, client, ns, fmt.Sprintf("new-%d-%v", i, chunked))
					if kept := before == after; !kept && (tc.size == small || isHTTP2(before)) {
						t.Error("the connection was given up")
					}
				})
			}
		}
	})
}

// endings are what becomes of writes that reach etcd.
var endings = map[string]writeFault{
	"held": func(ctx context.Context, _ func() (storage.WriteResponse, error)) (storage.WriteResponse, error) {
		<-ctx.Done()
		return storage.WriteResponse{}, storage.ErrUnknownOutcome
	},
	"panic": func(context.Context, func() (storage.WriteResponse, error)) (storage.WriteResponse, error) {
		panic("so that the request ends")
	},
}

func isHTTP2(conn net.Conn) bool {
	return conn.(*tls.Conn).ConnectionState().NegotiatedProtocol == "h2"
}

// However often writes time out at once, and with however short a time.
func TestWritesThatTimeOutLeaveTheirConnection(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns, before := endingClient(t, client)
		timeouts := []string{"1ns", "1us", "20us", "100us", "300us", "1ms"}
		for i := range 60 {
			query, size := "?timeout="+timeouts[i%len(timeouts)], 1000+i*200
			for _, req := range []*http.Request{
				newRequest(t, shared, http.MethodPost, endpointsPath(ns, "")+query, padded(body("a"), size)),
				newRequest(t, shared, http.MethodPut, endpointsPath(ns, "there")+query, padded(body("there"), size)),
				newRequest(t, shared, http.MethodPatch, endpointsPath(ns, "there")+query, padded([]byte(`{}`), size), "Content-Type", "application/merge-patch+json"),
				newRequest(t, shared, http.MethodDelete, endpointsPath(ns, "missing")+query, padded([]byte(`{}`), size)),
			} {
				a, _, err := sendOn(t, client, req)
				if err != nil {
					t.Fatal(err)
				}
				if a.code >= 500 && a.code != 504 {
					t.Errorf("%s: %d %s", req.Method, a.code, a.body)
				}
				get, _, err := sendOn(t, client, newRequest(t, shared, http.MethodGet, endpointsPath(ns, "there"), nil))
				if err != nil {
					t.Fatal(err)
				}
				checkCode(t, get, 200, "")
			}
		}
		if after := checkServes(t, client, ns, "new"); isHTTP2(before) && before != after {
			t.Error("the connection was given up")
		}
	})
}

// stalling is the beginning of a body, of which no more comes until its client closes it.
type stalling struct {
	begin   strings.Reader
	stalled chan struct{} // closed once the beginning has been sent
	closed  chan struct{}
	once    [2]sync.Once
}

func newStalling(begin string) *stalling {
	return &stalling{begin: *strings.NewReader(begin), stalled: make(chan struct{}), closed: make(chan struct{})}
}

func (s *stalling) Read(p []byte) (int, error) {
	if n, err := s.begin.Read(p); err == nil {
		return n, nil
	}
	s.once[0].Do(func() { close(s.stalled) })
	<-s.closed
	return 0, io.ErrUnexpectedEOF
}

func (s *stalling) Close() error {
	s.once[1].Do(func() { close(s.closed) })
	return nil
}

// A body that does not come within the time of its request costs its connection of HTTP/1.1,
// but nothing else, and is answered at once.
func TestTimeoutWithinABody(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		for _, length := range []int64{-1, 1000} {
			ns, before := endingClient(t, client)
			req := newRequest(t, shared, http.MethodPost, endpointsPath(ns, "")+"?timeout=100ms", nil)
			req.Body, req.ContentLength = newStalling(`{"metadata":`), length
			start := time.Now()
			a, _, err := sendOn(t, client, req)
			req.Body.Close() // net/http's client goes on reading it
			if err != nil {
				t.Fatal(err)
			}
			checkCode(t, a, 504, "its time ended while its body was being read")
			if took := time.Since(start); took > promptly {
				t.Errorf("answered after %v", took)
			}
			if after := checkServes(t, client, ns, "new"); isHTTP2(before) && after != before {
				t.Error("the connection was given up")
			}
		}
	})
}

// The rest of a body that comes when its request has timed out is no reason to go on with
// the connection.
func TestBodyAfterItsTimeout(t *testing.T) {
	for range 5 {
		ns := newNamespace(t, shared)
		conn, sent, id := dial(t, shared), string(body("late")), "late-body-"+ns
		begin := strings.Replace(head(ns, fmt.Sprintf("Content-Length: %d", len(sent)), "Audit-Id: "+id), "endpoints HTTP", "endpoints?timeout=50ms HTTP", 1)
		if _, err := io.WriteString(conn, begin+sent[:20]); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of the request", func() bool { return len(logs.lines(id)) > 0 })
		_, _ = io.WriteString(conn, sent[20:]) // the server may have closed the connection
		r := bufio.NewReader(conn)
		checkCode(t, readAnswer(t, r), 504, "its time ended while its body was being read")
		checkFitOrClosed(t, conn, r, ns)
	}
}

// A body that breaks off is the client's fault, and told where the client still listens.
func TestBodyThatBreaksOff(t *testing.T) {
	for _, header := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
		for _, sent := range []string{"", "5\r\n{\"met"} {
			ns := newNamespace(t, shared)
			conn := dial(t, shared)
			if _, err := io.WriteString(conn, head(ns, header)+sent); err != nil {
				t.Fatal(err)
			}
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			checkCode(t, readAnswer(t, conn), 400, "the body of the request could not be read")
		}
	}
	for _, malformed := range []string{"x\r\n", "5\r\n{\"metadata\"", "2\r\n{}\r\n0\r\nno trailer\r\n\r\n"} {
		ns := newNamespace(t, shared)
		conn := dial(t, shared)
		if _, err := io.WriteString(conn, head(ns, "Transfer-Encoding: chunked")+malformed); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		checkCode(t, readAnswer(t, r), 400, "the body of the request could not be read")
		checkFitOrClosed(t, conn, r, ns)
	}
}

// checkFitOrClosed checks that a connection of HTTP/1.1 answers a list with 200, or not at
// all.
func checkFitOrClosed(t *testing.T, conn *tls.Conn, r *bufio.Reader, ns string) {
	t.Helper()
	_, err := io.WriteString(conn, "GET "+endpointsPath(ns, "")+" HTTP/1.1\r\nHost: example.com\r\nX-Auth-Token: "+apitest.Token+"\r\n\r\n")
	if err != nil {
		return
	}
	resp, err := http.ReadResponse(r, nil)
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		t.Error("the connection is neither served nor closed")
	case err == nil:
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("the next request on the connection got %d", resp.StatusCode)
		}
	}
}

// A client that gives a request up, in its body or while it is served, can go on over
// HTTP/2 with the same connection.
func TestAbandonedRequests(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns, before := endingClient(t, client)
		for i := range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			entered := make(chan struct{})
			name := fmt.Sprintf("held-%d", i)
			faults.on(t, ns, name, func(ctx context.Context, _ func() (storage.WriteResponse, error)) (storage.WriteResponse, error) {
				close(entered)
				<-ctx.Done()
				return storage.WriteResponse{}, storage.ErrUnknownOutcome
			})
			req := newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body(name))
			if i%2 == 1 {
				req = newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), nil)
				half := newStalling(`{"metadata":`)
				req.Body, req.ContentLength, entered = half, 1000, half.stalled
			}
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				_, _ = try(client, req.WithContext(ctx)) // an error, except for an answer that overtakes it
			}()
			<-entered
			cancel()
			req.Body.Close() // net/http's client waits for a read of it
			<-gone
		}
		after := checkServes(t, client, ns, "new")
		if isHTTP2(before) && after != before {
			t.Error("the connection was given up")
		}
	})
}

// A request that is only read may have a body, too, which nobody reads.
func TestBodiesOfReads(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns, before := endingClient(t, client)
		for _, size := range []int{1, 10 << 10, 1 << 20} {
			for _, query := range []string{"", "?timeout=1ns"} {
				req := newRequest(t, shared, http.MethodGet, endpointsPath(ns, "there")+query, bytes.Repeat([]byte(" "), size))
				a, _, err := sendOn(t, client, req)
				if err != nil {
					t.Fatal(err)
				}
				if query == "" {
					checkCode(t, a, 200, "")
					if got := decode[*corev1.Endpoints](t, a).Name; got != "there" {
						t.Errorf("got %s", got)
					}
				} else {
					checkCode(t, a, 504, "The time allotted to the request ended before etcd was asked")
				}
			}
			after := checkServes(t, client, ns, fmt.Sprintf("new-%d", size))
			if size < 1<<20 && after != before && isHTTP2(before) {
				t.Error("the connection was given up")
			}
		}
	})
}
