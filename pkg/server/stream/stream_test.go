package stream_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

// sizes lie around those at which the writer does something else.
func sizes() []int {
	all := []int{0, 1, 511, 512, 513, 1 << 20}
	for _, border := range []int{16 << 10, 64 << 10, stream.Threshold, 256 << 10} {
		all = append(all, border-1, border, border+1)
	}
	return all
}

// write is one way to write a body.
type write struct {
	name    string
	expects bool // so that its length is known
	run     func(w *stream.Writer, body []byte)
}

var writes = []write{
	{"at once", false, func(w *stream.Writer, body []byte) { _, _ = w.Write(body) }},
	{"in small pieces", false, func(w *stream.Writer, body []byte) {
		for len(body) > 0 {
			n := min(len(body), 700)
			_, _ = w.Write(body[:n])
			body = body[n:]
		}
	}},
	{"expected", true, func(w *stream.Writer, body []byte) {
		w.Expect(len(body))
		_, _ = w.Write(body)
	}},
	{"expected, as blocks", true, func(w *stream.Writer, body []byte) {
		half := len(body) / 2
		if w.Expect(len(body)) {
			w.WriteString(string(body[:half]))
			w.Block(object.Compress(body[half:]))
		} else {
			w.WriteString(string(body[:half]))
			_, _ = w.Write(body[half:])
		}
	}},
}

// start starts a server that runs one handler over either version of HTTP.
func start(t *testing.T, http2 bool, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	web := httptest.NewUnstartedServer(handler)
	web.EnableHTTP2 = http2
	web.StartTLS()
	t.Cleanup(web.Close)
	return web
}

// reply is an answer; its body is closed with the test.
type reply struct {
	code   int
	header http.Header
	body   io.ReadCloser
}

// get sends a request that leaves unpacking to the caller.
func get(t *testing.T, web *httptest.Server) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, web.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := web.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return reply{resp.StatusCode, resp.Header, resp.Body}
}

// forms runs a test for every version of HTTP, with and without gzip.
func forms(t *testing.T, test func(t *testing.T, http2, compress bool)) {
	for _, http2 := range []bool{false, true} {
		for _, compress := range []bool{false, true} {
			t.Run(fmt.Sprintf("http2=%v gzip=%v", http2, compress), func(t *testing.T) { test(t, http2, compress) })
		}
	}
}

// Whatever its size and the way it is written, a client reads the body, compressed where it
// is large and may be.
func TestBodies(t *testing.T) {
	forms(t, func(t *testing.T, http2, compress bool) {
		var body []byte
		var how write
		web := start(t, http2, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/test")
			w := stream.New(rw, http.StatusCreated, compress)
			defer w.Release()
			how.run(w, body)
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
		for _, size := range sizes() {
			body = content(size)
			for _, how = range writes {
				checkBody(t, get(t, web), body, how, compress && size > stream.Threshold)
			}
		}
	})
}

func checkBody(t *testing.T, resp reply, want []byte, how write, compressed bool) {
	t.Helper()
	got, err := io.ReadAll(resp.body)
	if err != nil {
		t.Fatalf("%d bytes %s: %v", len(want), how.name, err)
	}
	encoding, vary := "", ""
	if compressed {
		encoding, vary, got = "gzip", "Accept-Encoding", unzip(t, got)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes %s: read %d others", len(want), how.name, len(got))
	}
	header := resp.header
	if resp.code != http.StatusCreated || header.Get("Content-Type") != "text/test" || header.Get("Content-Encoding") != encoding || header.Get("Vary") != vary {
		t.Errorf("%d bytes %s: got %d %v", len(want), how.name, resp.code, header)
	}
	if length := header.Get("Content-Length"); length != "" && (compressed || length != strconv.Itoa(len(want))) || how.expects && !compressed && length == "" {
		t.Errorf("%d bytes %s: Content-Length is %q", len(want), how.name, length)
	}
}

// What has stayed small is held until the end, and has its length.
func TestSmallBodiesHaveTheirLength(t *testing.T) {
	for _, size := range []int{1, 5000, stream.Threshold} {
		recorder := httptest.NewRecorder()
		w := stream.New(recorder, http.StatusOK, true)
		_, _ = w.Write(content(size))
		if w.Begun() {
			t.Errorf("%d bytes: the answer has begun before it was clear whether it is compressed", size)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		w.Release()
		if got := recorder.Header().Get("Content-Length"); got != strconv.Itoa(size) {
			t.Errorf("%d bytes: Content-Length is %q", size, got)
		}
	}
}

func TestExpect(t *testing.T) {
	for _, tc := range []struct {
		accepts bool
		size    int
		want    bool
	}{
		{false, 1, false},
		{false, stream.Threshold + 1, false},
		{false, stream.Unbounded, false},
		{true, 0, false},
		{true, stream.Threshold, false},
		{true, stream.Threshold + 1, true},
		{true, stream.Unbounded, true},
	} {
		w := stream.New(httptest.NewRecorder(), http.StatusOK, tc.accepts)
		if w.Compressed() {
			t.Errorf("%+v: compressed before anything is known", tc)
		}
		if got := w.Expect(tc.size); got != tc.want || w.Compressed() != tc.want {
			t.Errorf("%+v: got %v, compressed %v", tc, got, w.Compressed())
		}
		w.Release()
	}
}

// An answer that fails before its first byte is out leaves nothing in the header: another
// is given instead.
func TestErrorsBeforeTheHeader(t *testing.T) {
	for name, prepare := range map[string]func(w *stream.Writer){
		"expected":         func(w *stream.Writer) { w.Expect(stream.Threshold + 1) },
		"expected, small":  func(w *stream.Writer) { w.Expect(100) },
		"some bytes":       func(w *stream.Writer) { _, _ = w.Write(content(1000)) },
		"expected, bytes":  func(w *stream.Writer) { w.Expect(stream.Threshold + 1); w.WriteString("{") },
		"many zeros":       func(w *stream.Writer) { _, _ = w.Write(make([]byte, stream.Threshold+1)) },
		"expected, blocks": func(w *stream.Writer) { w.Expect(stream.Unbounded); w.Block(object.Compress(content(100))) },
	} {
		t.Run(name, func(t *testing.T) {
			forms(t, func(t *testing.T, http2, _ bool) {
				web := start(t, http2, func(rw http.ResponseWriter, _ *http.Request) {
					w := stream.New(rw, http.StatusOK, true)
					defer w.Release()
					prepare(w)
					if w.Begun() {
						t.Error("the header is out")
						return
					}
					rw.WriteHeader(http.StatusInternalServerError)
					_, _ = io.WriteString(rw, "broken")
				})
				resp := get(t, web)
				body, err := io.ReadAll(resp.body)
				if err != nil || resp.code != http.StatusInternalServerError || string(body) != "broken" || resp.header.Get("Content-Encoding") != "" {
					t.Errorf("got %d %v %q, %v", resp.code, resp.header, body, err)
				}
			})
		})
	}
}

// A decoder delivers everything that was flushed, without what follows.
func TestFlush(t *testing.T) {
	forms(t, func(t *testing.T, http2, compress bool) {
		next := make(chan []byte)
		web := start(t, http2, func(rw http.ResponseWriter, _ *http.Request) {
			w := stream.New(rw, http.StatusOK, compress)
			defer w.Release()
			for body := range next {
				w.WriteString("<")
				if w.Compressed() {
					w.Block(object.Compress(body))
				} else {
					_, _ = w.Write(body)
				}
				w.WriteString(">")
				if err := w.Flush(); err != nil {
					t.Error(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
		go func() { next <- nil }()
		resp := get(t, web)
		var r io.Reader = resp.body
		if got := resp.header.Get("Content-Encoding") == "gzip"; got != compress {
			t.Fatalf("compressed: %v, want %v", got, compress)
		}
		if compress {
			var err error
			if r, err = gzip.NewReader(resp.body); err != nil {
				t.Fatal(err)
			}
		}
		for i, size := range []int{0, 1, 100, 600, 10_000, 300_000, 3} {
			body := content(size)
			if i > 0 {
				next <- body
			}
			got := make([]byte, size+2)
			if _, err := io.ReadFull(r, got); err != nil || string(got) != "<"+string(body)+">" {
				t.Fatalf("%d bytes: got others, %v", size, err)
			}
		}
		close(next)
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
			t.Errorf("at the end %d bytes, %v", len(rest), err)
		}
	})
}

// A flush before anything was written sends the header.
func TestFlushOfNothing(t *testing.T) {
	forms(t, func(t *testing.T, http2, compress bool) {
		done := make(chan struct{})
		web := start(t, http2, func(rw http.ResponseWriter, _ *http.Request) {
			w := stream.New(rw, http.StatusOK, compress)
			defer w.Release()
			if err := w.Flush(); err != nil || !w.Begun() {
				t.Errorf("flush: %v, begun %v", err, w.Begun())
			}
			<-done
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
		resp := get(t, web) // returns with the header
		close(done)
		body, err := io.ReadAll(resp.body)
		if err != nil {
			t.Fatal(err)
		}
		if compress {
			body = unzip(t, body)
		}
		if len(body) > 0 {
			t.Errorf("got %q", body)
		}
	})
}

// A client that goes away is noticed, and every later call says so.
func TestClientsThatGo(t *testing.T) {
	forms(t, func(t *testing.T, http2, compress bool) {
		failed := make(chan error, 1)
		web := start(t, http2, func(rw http.ResponseWriter, _ *http.Request) {
			w := stream.New(rw, http.StatusOK, compress)
			defer w.Release()
			block := content(100_000)
			var err error
			for deadline := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(deadline); {
				if w.Compressed() {
					w.Block(object.Compress(block))
				} else {
					_, _ = w.Write(block)
				}
				err = w.Flush()
			}
			if _, again := w.Write([]byte("x")); again == nil || w.Flush() == nil || w.Close() == nil {
				err = nil
			}
			failed <- err
		})
		resp := get(t, web)
		if _, err := io.ReadFull(resp.body, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		resp.body.Close()
		if err := <-failed; err == nil {
			t.Error("nobody noticed")
		}
	})
}

// failing is a connection that takes so many writes.
type failing struct {
	*httptest.ResponseRecorder
	writes int
}

var errGone = errors.New("gone")

func (f *failing) Write(p []byte) (int, error) {
	if f.writes--; f.writes < 0 {
		return 0, errGone
	}
	return f.ResponseRecorder.Write(p)
}

// After the first error nothing is written, and no buffer grows.
func TestErrorsLast(t *testing.T) {
	for _, compress := range []bool{false, true} {
		conn := &failing{httptest.NewRecorder(), 1}
		w := stream.New(conn, http.StatusOK, compress)
		w.Expect(stream.Unbounded)
		for range 100 {
			_, _ = w.Write(content(50_000))
		}
		if err := w.Close(); !errors.Is(err, errGone) {
			t.Errorf("gzip %v: got %v", compress, err)
		}
		if conn.writes != -1 {
			t.Errorf("gzip %v: %d writes after the one that failed", compress, -1-conn.writes)
		}
		w.Release()
	}
}

// What a writer that was released has not sent does not reach the next one.
func TestRelease(t *testing.T) {
	for range 100 {
		w := stream.New(httptest.NewRecorder(), http.StatusOK, true)
		w.Expect(stream.Unbounded)
		w.WriteString("left over")
		w.Release()
		recorder := httptest.NewRecorder()
		w = stream.New(recorder, http.StatusOK, true)
		w.WriteString("mine")
		if err := w.Close(); err != nil || recorder.Body.String() != "mine" {
			t.Fatalf("got %q, %v", recorder.Body, err)
		}
		w.Release()
	}
}
