package server

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// detached is the answer to a watch of HTTP/1.1 whose connection net/http has given up. A
// watch waits for most of its life, and most of its memory would be what net/http keeps
// meanwhile: buffers, the request, and the stack of a TLS handshake. The connection ends
// with the watch.
type detached struct {
	conn   net.Conn
	header http.Header
	err    error // of writing
}

var (
	_ http.ResponseWriter = (*detached)(nil)

	chunks = sync.Pool{New: func() any {
		const most = len("2000\r\n") + smallPiece + len("\r\n")
		buf := make([]byte, 0, most)
		return &buf
	}}
)

// Header is what WriteHeader will write.
func (d *detached) Header() http.Header { return d.header }

// WriteHeader writes the header at once.
func (d *detached) WriteHeader(code int) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", code, http.StatusText(code))
	d.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	d.header.Del("Content-Length")
	d.header.Set("Transfer-Encoding", "chunked")
	d.header.Set("Connection", "close")
	_ = d.header.Write(&b) // a buffer takes it all
	b.WriteString("\r\n")
	d.header = nil
	d.write(b.Bytes())
}

// Write writes p as one chunk.
func (d *detached) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, d.err
	}
	if len(p) > smallPiece { // too much to be copied, and a burst gathers it anyway
		d.write(append(strconv.AppendUint(nil, uint64(len(p)), 16), "\r\n"...))
		d.write(p)
		d.write([]byte("\r\n"))
	} else {
		buf := chunks.Get().(*[]byte)
		chunk := append(strconv.AppendUint((*buf)[:0], uint64(len(p)), 16), "\r\n"...)
		chunk = append(chunk, p...)
		d.write(append(chunk, "\r\n"...))
		chunks.Put(buf)
	}
	if d.err != nil {
		return 0, d.err
	}
	return len(p), nil
}

func (d *detached) write(p []byte) {
	if d.err == nil {
		_, d.err = d.conn.Write(p)
	}
}

// end writes the chunk that ends the answer.
func (d *detached) end() { d.write([]byte("0\r\n\r\n")) }

// FlushError has nothing to do: nothing is held back.
func (d *detached) FlushError() error { return d.err }

// SetWriteDeadline is for http.ResponseController.
func (d *detached) SetWriteDeadline(deadline time.Time) error {
	return d.conn.SetWriteDeadline(deadline)
}

// detachments are the detached connections of a server.
type detachments struct {
	running sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	ended  bool // no more may come
	closed bool // those that are there are cut off
}

// detach takes the connection of a request, which is over HTTP/1.1 and without a body, and
// has answer write the answer after the handler has returned. gone is called when the
// connection has ended, by whomever. false: it stays net/http's, and neither is called.
func (s *Server) detach(rec *record, gone func(), answer func()) bool {
	ds := &s.detachments
	if rec.req.ProtoMajor != 1 || rec.req.ProtoMinor < 1 || rec.req.ContentLength != 0 || !ds.enter() {
		return false
	}
	conn, _, err := http.NewResponseController(rec).Hijack()
	if err != nil {
		ds.running.Done()
		return false // as over a connection that is no network's
	}
	d := &detached{conn: conn, header: maps.Clone(rec.Header())}
	rec.ResponseWriter, rec.detached = d, true
	rec.startTimeout(time.Now()) // of the header
	// What is logged of the request is all that is kept of it.
	rec.req = &http.Request{Method: rec.req.Method, URL: &url.URL{Path: rec.req.URL.Path}, ProtoMajor: 1, ProtoMinor: 1}
	rec.vars = nil
	ds.add(conn)
	ds.running.Go(func() {
		// The client has nothing more to say on this connection: if it does, nobody listens.
		var err error
		for unheard := make([]byte, 64); err == nil; {
			_, err = conn.Read(unheard)
		}
		gone()
	})
	go func() {
		defer ds.running.Done()
		defer ds.remove(conn)
		s.answerDetached(rec, d, answer)
	}()
	return true
}

// answerDetached has answer write the answer and closes the connection. As with net/http,
// an answer that a panic cuts off has no last chunk.
func (s *Server) answerDetached(rec *record, d *detached, answer func()) {
	defer d.conn.Close()
	defer func() {
		if aborted := s.finish(rec, recover()); !aborted {
			d.end()
		}
	}()
	answer()
}

// enter makes room for one more in running; false: no more may come.
func (ds *detachments) enter() bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.ended {
		return false
	}
	ds.running.Add(1)
	return true
}

func (ds *detachments) add(conn net.Conn) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.conns[conn] = struct{}{}
	if ds.closed {
		cutOff(conn)
	}
}

// cutOff closes a connection at once. TLS would first send its farewell, for which it may
// wait.
func cutOff(conn net.Conn) { belowTLS(conn).Close() }

func (ds *detachments) remove(conn net.Conn) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	delete(ds.conns, conn)
}

// end waits until all are done, to which more do not come. When ctx ends first it closes
// their connections and returns ctx's error.
func (ds *detachments) end(ctx context.Context) error {
	ds.mu.Lock()
	ds.ended = true
	ds.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		ds.running.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.closed = true
	for conn := range ds.conns {
		cutOff(conn)
	}
	return ctx.Err()
}
