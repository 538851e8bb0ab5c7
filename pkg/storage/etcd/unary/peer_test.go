package unary

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	method   = "/etcdserverpb.KV/Txn"
	patience = 20 * time.Second
)

// peer is the server's side of one connection, played by hand.
type peer struct {
	*http2.Framer
	t       *testing.T
	conn    net.Conn
	block   bytes.Buffer
	encoder *hpack.Encoder
}

// server accepts the connections that a test plays.
type server struct {
	t        *testing.T
	listener net.Listener
	conns    chan net.Conn
}

func newServer(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &server{t, l, make(chan net.Conn, 10)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.conns <- conn
		}
	}()
	return s
}

func (s *server) url() string { return "http://" + s.listener.Addr().String() }

// accept greets the next connection with the settings.
func (s *server) accept(settings ...http2.Setting) *peer {
	s.t.Helper()
	select {
	case conn := <-s.conns:
		return greet(s.t, conn, settings...)
	case <-time.After(patience):
		s.t.Fatal("nobody connects")
		return nil
	}
}

func greet(t *testing.T, conn net.Conn, settings ...http2.Setting) *peer {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	p := newPeer(t, conn)
	p.must(conn.SetDeadline(time.Now().Add(patience)))
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil || string(preface) != http2.ClientPreface {
		t.Fatalf("the client began with %q, %v", preface, err)
	}
	p.must(p.WriteSettings(settings...))
	return p
}

func newPeer(t *testing.T, conn net.Conn) *peer {
	p := &peer{Framer: http2.NewFramer(conn, conn), t: t, conn: conn}
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.encoder = hpack.NewEncoder(&p.block)
	return p
}

func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// frame returns the next frame of a type, the ones before it being of no interest.
func frame[F http2.Frame](p *peer) F {
	p.t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			p.t.Fatalf("waiting for a %T: %v", *new(F), err)
		}
		if f, ok := f.(F); ok {
			return f
		}
	}
}

// request reads a whole request.
func (p *peer) request() (id uint32, fields map[string]string, message []byte) {
	p.t.Helper()
	headers := frame[*http2.MetaHeadersFrame](p)
	fields = map[string]string{}
	for _, f := range headers.Fields {
		fields[f.Name] = f.Value
	}
	for {
		data := frame[*http2.DataFrame](p)
		if data.StreamID != headers.StreamID {
			p.t.Fatalf("stream %d within %d", data.StreamID, headers.StreamID)
		}
		message = append(message, data.Data()...)
		if data.StreamEnded() {
			return headers.StreamID, fields, message
		}
	}
}

// encode returns a header block of names and values.
func (p *peer) encode(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.must(p.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(p.block.Bytes())
}

func (p *peer) headers(id uint32, last bool, fields ...string) {
	p.t.Helper()
	p.must(p.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: p.encode(fields...), EndHeaders: true, EndStream: last,
	}))
}

// answer is a whole response with the revision.
func (p *peer) answer(id uint32, revision int64) {
	p.t.Helper()
	p.headers(id, false, ":status", "200", "content-type", "application/grpc")
	p.must(p.WriteData(id, false, prefixed(answer(revision))))
	p.headers(id, true, "grpc-status", "0")
}

func answer(revision int64) *etcdserverpb.TxnResponse {
	return &etcdserverpb.TxnResponse{Header: &etcdserverpb.ResponseHeader{Revision: revision}}
}

func prefixed(m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(data))), data...)
}

// put is a transaction whose message has some size bytes.
func put(size int) *etcdserverpb.TxnRequest {
	return &etcdserverpb.TxnRequest{Success: []*etcdserverpb.RequestOp{{Request: &etcdserverpb.RequestOp_RequestPut{
		RequestPut: &etcdserverpb.PutRequest{Value: make([]byte, size)},
	}}}}
}

func newConn(t *testing.T, endpoints ...string) *Conn {
	t.Helper()
	c, err := New(endpoints, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// connected waits until c has another connection than before.
func connected(t *testing.T, c *Conn, before *transport) *transport {
	t.Helper()
	return eventually(t, "connected", func() (*transport, bool) {
		now := c.current.Load()
		return now, now != nil && now != before
	})
}

func eventually[T any](t *testing.T, what string, condition func() (T, bool)) T {
	t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	deadline := time.After(patience)
	for {
		if value, ok := condition(); ok {
			return value
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("not %s after %v", what, patience)
		}
	}
}

// pair is a connection with both of its ends.
func pair(t *testing.T, settings ...http2.Setting) (*Conn, *peer, *server) {
	t.Helper()
	s := newServer(t)
	c := newConn(t, s.url())
	p := s.accept(settings...)
	connected(t, c, nil)
	return c, p, s
}

// result is what became of a call.
type result struct {
	revision int64
	err      error
}

// call begins a call; its result is sent when it returns.
func call(ctx context.Context, c *Conn, request proto.Message) <-chan result {
	done := make(chan result, 1)
	go func() {
		response, err := invoke(ctx, c, request)
		done <- result{response.GetHeader().GetRevision(), err}
	}()
	return done
}

func invoke(ctx context.Context, c *Conn, request proto.Message) (*etcdserverpb.TxnResponse, error) {
	message, err := proto.MarshalOptions{}.MarshalAppend(NewRequest(0), request)
	if err != nil {
		return nil, err
	}
	if message, err = c.Invoke(ctx, time.Now().Add(time.Minute), method, message); err != nil {
		return nil, err
	}
	response := new(etcdserverpb.TxnResponse)
	return response, proto.Unmarshal(message, response)
}

// ends returns the result of a call that has to return now.
func ends(t *testing.T, done <-chan result) result {
	t.Helper()
	select {
	case r := <-done:
		return r
	case <-time.After(patience):
		t.Fatal("the call does not return")
		return result{}
	}
}

// succeeds wants the call to have the revision.
func succeeds(t *testing.T, done <-chan result, revision int64) {
	t.Helper()
	if got := ends(t, done); got.err != nil || got.revision != revision {
		t.Errorf("got %+v, want revision %d", got, revision)
	}
}

func (r result) String() string { return fmt.Sprintf("revision %d, error %v", r.revision, r.err) }
