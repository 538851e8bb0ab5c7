package unary

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestRequest(t *testing.T) {
	c, p, s := pair(t)
	// The second time the headers are references into the table of the first.
	for revision := range int64(2) {
		request := put(50_000) // more than three frames
		done := call(t.Context(), c, request)
		id, fields, message := p.request()
		p.must(p.WriteWindowUpdate(0, uint32(len(message))))
		p.answer(id, revision)
		succeeds(t, done, revision)
		want := map[string]string{
			":method": "POST", ":scheme": "http", ":path": method, ":authority": s.listener.Addr().String(),
			"content-type": "application/grpc", "te": "trailers", "user-agent": "berth", "hasleader": "true",
		}
		if d := cmp.Diff(want, fields); d != "" {
			t.Errorf("headers (-want +got)\n%s", d)
		}
		if d := cmp.Diff(prefixed(request), message); d != "" {
			t.Errorf("message (-want +got)\n%s", d)
		}
	}
}

// Answers to several calls come in any order, in pieces of any size.
func TestSplitAnswers(t *testing.T) {
	c, p, _ := pair(t)
	first, second := call(t.Context(), c, put(1)), call(t.Context(), c, put(1))
	a, _, _ := p.request()
	b, _, _ := p.request()
	block := p.encode(":status", "200", "content-type", "application/grpc")
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: b, BlockFragment: block[:1]}))
	p.must(p.WriteContinuation(b, false, nil))
	p.must(p.WriteContinuation(b, true, block[1:]))
	for _, piece := range prefixed(answer(7)) {
		p.must(p.WriteDataPadded(b, false, []byte{piece}, make([]byte, 3)))
	}
	p.answer(a, 8)
	block = p.encode("grpc-status", "0", "grpc-message", "")
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: b, BlockFragment: block[:2], EndStream: true}))
	p.must(p.WriteContinuation(b, true, block[2:]))
	// Which of the two came first is not said.
	got := []int64{ends(t, first).revision, ends(t, second).revision}
	if !cmp.Equal(got, []int64{7, 8}) && !cmp.Equal(got, []int64{8, 7}) {
		t.Errorf("got revisions %v, want 7 and 8", got)
	}
}

// A connection that is cut leaves open what becomes of the calls on it, and is replaced.
func TestConnectionCut(t *testing.T) {
	c, p, s := pair(t)
	before := c.current.Load()
	done := call(t.Context(), c, put(1))
	p.request()
	p.conn.Close()
	if got := ends(t, done); errors.Is(got.err, ErrNotSent) || status.Code(got.err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", got)
	}
	p = s.accept()
	connected(t, c, before)
	done = call(t.Context(), c, put(1))
	id, _, _ := p.request()
	p.answer(id, 3)
	succeeds(t, done, 3)
}

// What is above the last stream of a GOAWAY was not processed; what is below goes on.
func TestGoAway(t *testing.T) {
	c, p, s := pair(t)
	before := c.current.Load()
	accepted := call(t.Context(), c, put(1))
	id, _, _ := p.request()
	refused := call(t.Context(), c, put(1))
	p.request()
	p.must(p.WriteGoAway(id, http2.ErrCodeNo, nil))
	if got := ends(t, refused); !errors.Is(got.err, ErrNotSent) {
		t.Errorf("above the last stream: got %v, want ErrNotSent", got)
	}
	next := s.accept()
	connected(t, c, before)
	p.answer(id, 4)
	succeeds(t, accepted, 4)
	if _, err := p.ReadFrame(); err == nil {
		t.Error("the drained connection is still there")
	}
	done := call(t.Context(), c, put(1))
	id, _, _ = next.request()
	next.answer(id, 5)
	succeeds(t, done, 5)
}

// manualContext ends when the test says so.
type manualContext struct {
	context.Context
	done chan struct{}
	err  error
}

func (c *manualContext) Done() <-chan struct{} { return c.done }

func (c *manualContext) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

func TestContextEnds(t *testing.T) {
	c, p, _ := pair(t)
	for _, end := range []struct {
		err  error
		want codes.Code
	}{{context.Canceled, codes.Canceled}, {context.DeadlineExceeded, codes.DeadlineExceeded}} {
		ctx := &manualContext{Context: t.Context(), done: make(chan struct{}), err: end.err}
		done := call(ctx, c, put(1))
		id, _, _ := p.request()
		close(ctx.done)
		if got := ends(t, done); errors.Is(got.err, ErrNotSent) || status.Code(got.err) != end.want {
			t.Errorf("got %v, want %v", got, end.want)
		}
		if reset := frame[*http2.RSTStreamFrame](p); reset.StreamID != id || reset.ErrCode != http2.ErrCodeCancel {
			t.Errorf("got %v, want a reset of stream %d", reset, id)
		}
		p.answer(id, 1) // too late
		if got := ends(t, call(ctx, c, put(1))); !errors.Is(got.err, ErrNotSent) || !errors.Is(got.err, end.err) {
			t.Errorf("after its end: got %v, want ErrNotSent", got)
		}
		done = call(t.Context(), c, put(1))
		id, _, _ = p.request()
		p.answer(id, 2)
		succeeds(t, done, 2)
	}
}

func TestDeadline(t *testing.T) {
	c, p, _ := pair(t)
	done := make(chan error, 1)
	go func() {
		_, err := c.Invoke(t.Context(), time.Now().Add(50*time.Millisecond), method, NewRequest(0))
		done <- err
	}()
	id, _, _ := p.request()
	if err := <-done; errors.Is(err, ErrNotSent) || status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	if reset := frame[*http2.RSTStreamFrame](p); reset.StreamID != id {
		t.Errorf("stream %d was reset, want %d", reset.StreamID, id)
	}
}

// A call that ends without one frame from the server for long has the connection replaced.
func TestSilence(t *testing.T) {
	c, p, s := pair(t)
	before := c.current.Load()
	frame[*http2.SettingsFrame](p)
	ctx, cancel := context.WithCancel(t.Context())
	done := call(ctx, c, put(1))
	id, _, _ := p.request()
	before.mu.Lock()
	before.streams[id].since = time.Now().Add(-silence)
	before.mu.Unlock()
	cancel()
	ends(t, done)
	s.accept()
	connected(t, c, before)
}

// A member that says that it is unavailable is left for the next.
func TestNextEndpoint(t *testing.T) {
	first, next := newServer(t), newServer(t)
	c := newConn(t, first.url(), next.url())
	var p *peer
	select { // whichever it begins with
	case conn := <-first.conns:
		p = greet(t, conn)
	case conn := <-next.conns:
		p, next = greet(t, conn), first
	}
	before := connected(t, c, nil)
	done := call(t.Context(), c, put(1))
	id, _, _ := p.request()
	p.headers(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "14", "grpc-message", "etcdserver: no leader")
	if got := ends(t, done); status.Code(got.err) != codes.Unavailable || errors.Is(got.err, ErrNotSent) {
		t.Errorf("got %v, want Unavailable", got)
	}
	p = next.accept()
	connected(t, c, before)
	done = call(t.Context(), c, put(1))
	id, _, _ = p.request()
	p.answer(id, 9)
	succeeds(t, done, 9)
}

// The stream ids of a connection run out after some days.
func TestStreamIDsRunOut(t *testing.T) {
	c, p, s := pair(t)
	before := c.current.Load()
	before.mu.Lock()
	before.nextID = 1<<31 - 2*maxStreams - 1
	before.mu.Unlock()
	done := call(t.Context(), c, put(1))
	id, _, _ := p.request()
	s.accept()
	connected(t, c, before)
	p.answer(id, 6)
	succeeds(t, done, 6)
}

func TestClose(t *testing.T) {
	c, p, _ := pair(t)
	done := call(t.Context(), c, put(1))
	p.request()
	c.Close()
	if got := ends(t, done); status.Code(got.err) != codes.Unavailable || errors.Is(got.err, ErrNotSent) {
		t.Errorf("under way: got %v, want Unavailable", got)
	}
	if _, err := c.Invoke(t.Context(), time.Now().Add(time.Minute), method, NewRequest(0)); !errors.Is(err, ErrNotSent) {
		t.Errorf("afterwards: got %v, want ErrNotSent", err)
	}
	c.Close()
}

// Nobody accepts, or nobody greets: Close need not wait for it.
func TestCloseWhileConnecting(t *testing.T) {
	s := newServer(t)
	c := newConn(t, s.url())
	defer (<-s.conns).Close()
	if got := ends(t, call(t.Context(), c, put(1))); !errors.Is(got.err, ErrNotSent) {
		t.Errorf("got %v, want ErrNotSent", got)
	}
	c.Close()
}

func TestNewRefuses(t *testing.T) {
	for _, endpoints := range [][]string{
		nil, {""}, {"127.0.0.1:2379"}, {"http://127.0.0.1"}, {"unix://etcd:2379"}, {"http://a:1", "b:2"}, {"http://%"},
	} {
		if c, err := New(endpoints, nil); err == nil {
			c.Close()
			t.Errorf("%q: no error", endpoints)
		}
	}
}
