package api

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/test/apitest"
)

const maxBody = 3 << 20

// dial opens a connection for HTTP/1.1 on which a test writes what no client would.
func dial(t *testing.T, server *apitest.Server) *tls.Conn {
	t.Helper()
	config := server.Client.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"http/1.1"}
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(server.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*tls.Conn)
}

// head is the beginning of a create, without the last line of its header.
func head(ns string, headers ...string) string {
	return "POST " + endpointsPath(ns, "") + " HTTP/1.1\r\nHost: example.com\r\nX-Auth-Token: " + apitest.Token + "\r\n" +
		strings.Join(headers, "\r\n") + "\r\n\r\n"
}

// readAnswer reads the answer to a POST.
func readAnswer(t *testing.T, conn io.Reader) *answer {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodPost})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &answer{code: resp.StatusCode, header: resp.Header, body: data}
}

func TestBodyUpToTheLimit(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns := newNamespace(t, shared)
		for _, chunked := range []bool{false, true} {
			for size, code := range map[int]int{maxBody: 201, maxBody + 1: 413} {
				sent := body(fmt.Sprintf("e-%v-%d", chunked, size))
				sent = append(sent, strings.Repeat(" ", size-len(sent))...)
				req := newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), sent)
				if chunked {
					req.ContentLength = -1
				}
				a := send(t, client, req)
				if a.code != code {
					t.Errorf("%d bytes, chunked %v: got %d %s, want %d", size, chunked, a.code, a.body, code)
				}
			}
		}
	})
}

// A body that says that it is too long is refused before a byte of it comes.
func TestContentLengthBeyondTheLimit(t *testing.T) {
	for _, headers := range [][]string{
		{fmt.Sprintf("Content-Length: %d", maxBody+1)},
		{fmt.Sprintf("Content-Length: %d", 1<<60), "Expect: 100-continue"},
	} {
		conn := dial(t, shared)
		if _, err := io.WriteString(conn, head(newNamespace(t, shared), headers...)); err != nil {
			t.Fatal(err)
		}
		checkCode(t, readAnswer(t, conn), 413, "Request entity too large: limit is 3145728")
	}
}

// endless is a body without an end that counts what is read of it.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.read.Add(int64(len(p)))
	return len(p), nil
}

// A body that does not say its length is refused once it is too long.
func TestEndlessBody(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		source := &endless{}
		req := newRequest(t, shared, http.MethodPost, endpointsPath(newNamespace(t, shared), ""), nil)
		req.Body, req.ContentLength = io.NopCloser(source), -1
		a, err := try(client, req)
		if err != nil {
			t.Fatal(err)
		}
		checkCode(t, a, 413, "limit is 3145728")
		if read := source.read.Load(); read < maxBody || read > 4*maxBody {
			t.Errorf("%d bytes were read", read)
		}
	})
}

func TestTimeouts(t *testing.T) {
	ns := newNamespace(t, shared)
	faults.on(t, ns, "slow", func(ctx context.Context, _ func() (storage.WriteResponse, error)) (storage.WriteResponse, error) {
		<-ctx.Done()
		return storage.WriteResponse{}, storage.ErrUnknownOutcome
	})
	for _, tc := range []struct {
		name, timeout string
		code          int
		message       string
		retryAfter    string
	}{
		{"a", "abc", 400, `invalid timeout specified in the request URL - time: invalid duration \"abc\"`, ""},
		{"a", "1ns", 504, "did not complete within the allotted timeout", "1"},
		{"slow", "50ms", 504, `"reason":"Timeout"`, ""}, // it may have been written
		{"a", "30s", 201, "", ""},
		{"b", "-1s", 201, "", ""},
		{"c", "0", 201, "", ""},
	} {
		a := send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, "")+"?timeout="+tc.timeout, body(tc.name)))
		checkCode(t, a, tc.code, tc.message)
		if got := a.header.Get("Retry-After"); got != tc.retryAfter {
			t.Errorf("timeout=%s: Retry-After %q, want %q", tc.timeout, got, tc.retryAfter)
		}
	}
}

// A body that comes slowly is waited for; one that stops is not, beyond the time-out.
func TestSlowBody(t *testing.T) {
	ns := newNamespace(t, shared)
	conn, sent := dial(t, shared), string(body("slow"))
	parts := append([]string{head(ns, fmt.Sprintf("Content-Length: %d", len(sent)))}, strings.SplitAfter(sent, ",")...)
	for _, part := range parts {
		wait(t, 10*time.Millisecond)
		if _, err := io.WriteString(conn, part); err != nil {
			t.Fatal(err)
		}
	}
	checkCode(t, readAnswer(t, conn), 201, "")

	conn = dial(t, shared)
	stops := strings.Replace(head(ns, "Content-Length: 1000"), "endpoints HTTP", "endpoints?timeout=100ms HTTP", 1)
	if _, err := io.WriteString(conn, stops+`{"metadata":`); err != nil {
		t.Fatal(err)
	}
	checkCode(t, readAnswer(t, conn), 504, "did not complete within the allotted timeout")
}

// A client that goes away in the middle of its body, or of its request, leaves nothing
// behind.
func TestClientGoesAway(t *testing.T) {
	var faulty faultyStorage
	server := startServer(t, apitest.Config{Wrap: faulty.wrap})
	ns := newNamespace(t, server)
	conn := dial(t, server)
	if _, err := io.WriteString(conn, head(ns, "Content-Length: 1000", "Audit-Id: half-"+ns)+`{"metadata":{"name":"half"}}`); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	eventually(t, "the end of the half request", func() bool { return len(logs.lines("half-"+ns)) > 0 })
	eachProtocol(t, server, func(t *testing.T, client *http.Client) {
		entered, left := make(chan struct{}), make(chan struct{})
		faulty.on(t, ns, "held", func(ctx context.Context, _ func() (storage.WriteResponse, error)) (storage.WriteResponse, error) {
			close(entered)
			<-ctx.Done()
			close(left)
			return storage.WriteResponse{}, ctx.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req := newRequest(t, server, http.MethodPost, endpointsPath(ns, ""), body("held")).WithContext(ctx)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = try(client, req) // an error, unless the answer overtakes the end of the connection
		}()
		<-entered
		cancel()
		<-gone
		select {
		case <-left:
		case <-time.After(30 * time.Second):
			t.Fatal("the server goes on without its client")
		}
	})
	eventually(t, "an idle server", func() bool {
		return scrape(t, server)[`apiserver_current_inflight_requests{request_kind="mutating"}`] == 0
	})
	list := send(t, server.Client, newRequest(t, server, http.MethodGet, endpointsPath(ns, ""), nil))
	checkCode(t, list, 200, `"items":[]`)
}
