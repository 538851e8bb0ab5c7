package unary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a server can answer with, but for success.
func TestAnswers(t *testing.T) {
	const contentType = "application/grpc"
	whole := prefixed(answer(1))
	for name, tc := range map[string]struct {
		answer func(p *peer, id uint32)
		want   error // nil: ErrNotSent
		is     error // what etcd's client makes of it; nil: nothing
		reset  bool  // the server is told
	}{
		"refused": {answer: func(p *peer, id uint32) { p.must(p.WriteRSTStream(id, http2.ErrCodeRefusedStream)) }},
		"reset": {
			answer: func(p *peer, id uint32) { p.must(p.WriteRSTStream(id, http2.ErrCodeCancel)) },
			want:   status.Error(codes.Unavailable, "the server reset the stream: CANCEL"),
		},
		"trailers only": {
			answer: func(p *peer, id uint32) {
				p.headers(id, true, ":status", "200", "content-type", contentType, "grpc-status", "11",
					"grpc-message", "etcdserver: mvcc: required revision has been compacted")
			},
			want: rpctypes.ErrGRPCCompacted,
			is:   rpctypes.ErrCompacted,
		},
		"error after headers, in percents": {
			answer: func(p *peer, id uint32) {
				p.headers(id, false, ":status", "200", "content-type", contentType)
				p.headers(id, true, "grpc-status", "8", "grpc-message", "etcdserver%3A mvcc: database space exceeded")
			},
			want: rpctypes.ErrGRPCNoSpace,
			is:   rpctypes.ErrNoSpace,
		},
		"wrong percents": {
			answer: func(p *peer, id uint32) {
				p.headers(id, true, ":status", "200", "grpc-status", "2", "grpc-message", "100%!")
			},
			want: status.Error(codes.Unknown, "100%!"),
		},
		"error after a message": {
			answer: func(p *peer, id uint32) {
				p.headers(id, false, ":status", "200", "content-type", contentType)
				p.must(p.WriteData(id, false, whole))
				p.headers(id, true, "grpc-status", "14", "grpc-message", "etcdserver: leader changed")
			},
			want: rpctypes.ErrGRPCLeaderChanged,
			is:   rpctypes.ErrLeaderChanged,
		},
		"HTTP error": {
			answer: func(p *peer, id uint32) { p.headers(id, false, ":status", "502", "content-type", "text/html") },
			want:   status.Error(codes.Unavailable, "the server answered with HTTP status 502"), // and is left
		},
		"no status": {
			answer: func(p *peer, id uint32) { p.headers(id, true, ":status", "200", "content-type", contentType) },
			want:   status.Error(codes.Internal, `the response ends with status ""`),
		},
		"status 00": {
			answer: func(p *peer, id uint32) { p.headers(id, true, ":status", "200", "grpc-status", "00") },
			want:   status.Error(codes.Internal, `the response ends with status "00"`),
		},
		"no trailers": {
			answer: func(p *peer, id uint32) {
				p.headers(id, false, ":status", "200")
				p.must(p.WriteData(id, true, whole))
			},
			want: status.Error(codes.Internal, "the response ends without a status"),
		},
		"no message": {
			answer: func(p *peer, id uint32) { p.headers(id, true, ":status", "200", "grpc-status", "0") },
			want:   status.Error(codes.Internal, "the response of 0 bytes is not one uncompressed message"),
		},
		"half a message": {
			answer: func(p *peer, id uint32) {
				p.headers(id, false, ":status", "200")
				p.must(p.WriteData(id, false, whole[:len(whole)-1]))
				p.headers(id, true, "grpc-status", "0")
			},
			want: status.Error(codes.Internal, "the response of 8 bytes is not one uncompressed message"),
		},
		"compressed": {
			answer: func(p *peer, id uint32) {
				p.headers(id, false, ":status", "200")
				p.must(p.WriteData(id, false, []byte{1, 0, 0, 0, 0}))
				p.headers(id, true, "grpc-status", "0")
			},
			want: status.Error(codes.Internal, "the response of 5 bytes is not one uncompressed message"),
		},
		"more than announced": {
			answer: func(p *peer, id uint32) {
				p.headers(id, false, ":status", "200")
				p.must(p.WriteData(id, false, append(whole, 0)))
			},
			want:  errTooLarge,
			reset: true,
		},
		"announced too much": {
			answer: func(p *peer, id uint32) {
				p.headers(id, false, ":status", "200")
				p.must(p.WriteData(id, false, []byte{0, 4, 0, 0, 1}))
			},
			want:  errTooLarge,
			reset: true,
		},
		"no HTTP status": {
			answer: func(p *peer, id uint32) { p.headers(id, false, "content-type", contentType) },
			want:   status.Error(codes.Internal, "the response begins without an HTTP status"),
			reset:  true,
		},
		"after a hint": {
			answer: func(p *peer, id uint32) {
				p.headers(id, false, ":status", "103")
				p.headers(id, true, ":status", "200", "grpc-status", "14", "grpc-message", "etcdserver: leader changed")
			},
			want: rpctypes.ErrGRPCLeaderChanged,
		},
		"headers with too much padding": {
			answer: func(p *peer, id uint32) {
				p.must(p.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, id, []byte{9, 0x88}))
			},
			want: status.Error(codes.Unavailable, fmt.Sprintf("the connection to etcd broke: %v", http2.StreamError{StreamID: 1, Code: http2.ErrCodeProtocol})),
		},
		"headers in pieces": {
			answer: func(p *peer, id uint32) {
				block := p.encode(":status", "200", "grpc-status", "14", "grpc-message", "etcdserver: leader changed")
				p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:1], EndStream: true}))
				p.must(p.WriteContinuation(id, false, block[1:9]))
				p.must(p.WriteContinuation(id, true, block[9:]))
			},
			want: rpctypes.ErrGRPCLeaderChanged,
			is:   rpctypes.ErrLeaderChanged,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, p, _ := pair(t)
			done := call(t.Context(), c, put(1))
			id, _, _ := p.request()
			tc.answer(p, id)
			got := ends(t, done)
			if tc.want == nil && !errors.Is(got.err, ErrNotSent) {
				t.Errorf("got %v, want ErrNotSent", got)
			}
			if tc.want != nil && (errors.Is(got.err, ErrNotSent) || got.err.Error() != tc.want.Error()) {
				t.Errorf("got %v\nwant %v", got.err, tc.want)
			}
			if tc.is != nil && !errors.Is(rpctypes.Error(got.err), tc.is) {
				t.Errorf("etcd's client takes %v for %v, want %v", got.err, rpctypes.Error(got.err), tc.is)
			}
			if tc.reset {
				if reset := frame[*http2.RSTStreamFrame](p); reset.StreamID != id {
					t.Errorf("stream %d was reset, want %d", reset.StreamID, id)
				}
			}
		})
	}
}

func TestFlowControl(t *testing.T) {
	c, p, _ := pair(t)
	if got := ends(t, call(t.Context(), c, put(defaultWindow))); !errors.Is(got.err, errNoRoom) {
		t.Errorf("more than the window: got %v, want errNoRoom", got)
	}
	first := call(t.Context(), c, put(40_000))
	id, _, message := p.request()
	if got := ends(t, call(t.Context(), c, put(40_000))); !errors.Is(got.err, errNoRoom) {
		t.Errorf("more than is left: got %v, want errNoRoom", got)
	}
	if got, want := window(c), defaultWindow-len(message); got != want {
		t.Errorf("the window has %d bytes, want %d", got, want)
	}

	// A small request waits for credit, and can be abandoned meanwhile.
	second := call(t.Context(), c, put(16_000))
	p.request()
	ctx, cancel := context.WithCancel(t.Context())
	third, fourth := call(t.Context(), c, put(16_001)), call(ctx, c, put(16_002))
	eventually(t, "queued", func() (bool, bool) { return true, queued(c) == 2 })
	cancel()
	if got := ends(t, fourth); !errors.Is(got.err, ErrNotSent) || !errors.Is(got.err, context.Canceled) {
		t.Errorf("abandoned in the queue: got %v, want ErrNotSent", got)
	}
	p.must(p.WriteWindowUpdate(0, 20_000))
	last, _, message := p.request()
	if want := prefixed(put(16_001)); len(message) != len(want) {
		t.Errorf("the next request has %d bytes, want %d", len(message), len(want))
	}
	for i, done := range []<-chan result{first, second, third} {
		p.answer(id+2*uint32(i), int64(i))
		succeeds(t, done, int64(i))
	}
	if last != id+4 {
		t.Errorf("the third request has stream %d, want %d", last, id+4)
	}

	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}))
	for !frame[*http2.SettingsFrame](p).IsAck() {
	}
	if got := ends(t, call(t.Context(), c, put(10))); !errors.Is(got.err, errNoRoom) {
		t.Errorf("more than a stream's window: got %v, want errNoRoom", got)
	}
}

func queued(c *Conn) int {
	t := c.current.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.queue)
}

func window(c *Conn) int {
	t := c.current.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.window
}

func TestMaxConcurrentStreams(t *testing.T) {
	c, p, _ := pair(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	for revision := range int64(3) {
		first := call(t.Context(), c, put(1))
		id, _, _ := p.request()
		if got := ends(t, call(t.Context(), c, put(1))); !errors.Is(got.err, errBusy) {
			t.Errorf("got %v, want errBusy", got)
		}
		p.answer(id, revision)
		succeeds(t, first, revision)
	}
}

func TestHeaderTableSize(t *testing.T) {
	c, p, _ := pair(t, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
	p.ReadMetaHeaders = hpack.NewDecoder(0, nil)
	for revision := range int64(2) {
		done := call(t.Context(), c, put(1))
		id, fields, _ := p.request()
		if fields[":path"] != method {
			t.Errorf("got headers %v", fields)
		}
		p.answer(id, revision)
		succeeds(t, done, revision)
	}
}

func TestPing(t *testing.T) {
	_, p, _ := pair(t)
	data := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	p.must(p.WritePing(true, data)) // nobody asked
	p.must(p.WritePing(false, data))
	if got := frame[*http2.PingFrame](p); !got.IsAck() || got.Data != data {
		t.Errorf("got %v with %v, want it back", got, got.Data)
	}
}

// A large answer is collected whole, and what it took is given back as credit.
func TestLargeAnswer(t *testing.T) {
	c, p, _ := pair(t)
	want := answer(11)
	want.Responses = append(want.Responses, nil)
	done := call(t.Context(), c, put(1))
	id, _, _ := p.request()
	// Unknown fields are as good as any for filling a message.
	data := prefixed(answer(11))
	filling := receiveWindow/2 + maxFrameBytes
	data = append(data, 0xfa, 0x07, byte(filling)|0x80, byte(filling>>7)|0x80, byte(filling>>14)|0x80, byte(filling>>21))
	data = append(data, make([]byte, filling)...)
	size := len(data) - prefixBytes
	data[1], data[2], data[3], data[4] = byte(size>>24), byte(size>>16), byte(size>>8), byte(size)
	p.headers(id, false, ":status", "200")
	for len(data) > 0 {
		n := min(len(data), maxFrameBytes)
		p.must(p.WriteData(id, false, data[:n]))
		data = data[n:]
	}
	p.headers(id, true, "grpc-status", "0")
	succeeds(t, done, 11)
	for {
		// The first is of the handshake.
		if f := frame[*http2.WindowUpdateFrame](p); f.StreamID == 0 && f.Increment != receiveWindow-defaultWindow {
			if f.Increment <= receiveWindow/2 {
				t.Errorf("credit for %d bytes", f.Increment)
			}
			return
		}
	}
}

// hasty is a connection whose deadlines come soon.
type hasty struct {
	net.Conn
	wrote chan time.Time // gets the deadlines
}

func (h hasty) SetWriteDeadline(deadline time.Time) error {
	h.wrote <- deadline
	return h.Conn.SetWriteDeadline(time.Now())
}

// A server that does not read holds up neither callers nor the connection for long.
func TestServerDoesNotRead(t *testing.T) {
	ours, theirs := net.Pipe() // has no buffer at all
	defer theirs.Close()
	conn := hasty{ours, make(chan time.Time)}
	tr := newTransport(conn, "http", "etcd")
	written := make(chan struct{})
	go func() {
		defer close(written)
		tr.write()
	}()
	sent, err := tr.send(method, make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "about to be written", func() (bool, bool) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return true, sent.id != 0
	})
	abandoned, err := tr.send(method, make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	queued, err := tr.send(method, make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	tr.abandon(abandoned, context.Canceled)
	<-abandoned.done
	if !errors.Is(abandoned.err, ErrNotSent) || !errors.Is(abandoned.err, context.Canceled) {
		t.Errorf("abandoned before it was written: got %v, want ErrNotSent", abandoned.err)
	}
	if d := time.Until(<-conn.wrote); d <= 0 || d > keepAliveTimeout {
		t.Errorf("a write may take %v, want %v", d, keepAliveTimeout)
	}
	<-written
	<-sent.done
	<-queued.done
	if status.Code(sent.err) != codes.Unavailable || errors.Is(sent.err, ErrNotSent) {
		t.Errorf("being written: got %v, want Unavailable", sent.err)
	}
	if !errors.Is(queued.err, ErrNotSent) {
		t.Errorf("not yet written: got %v, want ErrNotSent", queued.err)
	}
}

// Nothing that a server sends makes what is held for it grow without a bound.
func TestFloods(t *testing.T) {
	for name, tc := range map[string]struct {
		write func(f *http2.Framer) error
		want  error
	}{
		"pings":    {func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) }, errDeaf},
		"settings": {func(f *http2.Framer) error { return f.WriteSettings() }, errDeaf},
		"credit":   {func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1<<30) }, http2.ConnectionError(http2.ErrCodeFlowControl)},
		"a push": {func(f *http2.Framer) error {
			return f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, http2.ConnectionError(http2.ErrCodeProtocol)},
		"headers": {func(f *http2.Framer) error {
			block := bytes.Repeat([]byte{0x88}, 1000) // of ":status: 200"
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true})
		}, errHeaders},
		"headers of nothing": {func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x80}, EndHeaders: true})
		}, http2.ConnectionError(http2.ErrCodeCompression)},
	} {
		var one bytes.Buffer
		if err := tc.write(http2.NewFramer(&one, nil)); err != nil {
			t.Fatal(err)
		}
		flood := bytes.NewReader(bytes.Repeat(one.Bytes(), maxQueueBytes/8))
		tr := newTransport(recorded{Reader: flood}, "http", "etcd")
		if err := tr.read(); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

// Requests wait within bounds, and what a smaller window has no room for does not wait.
func TestQueue(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	tr := newTransport(ours, "http", "etcd")
	tr.window, tr.perStream = 1<<30, 1<<30
	first, err := tr.send(method, make([]byte, maxQueueBytes))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.send(method, make([]byte, 1)); !errors.Is(err, errNoRoom) {
		t.Errorf("a full queue: got %v, want errNoRoom", err)
	}
	if err := tr.setting(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}); err != nil {
		t.Fatal(err)
	}
	<-first.done
	if !errors.Is(first.err, ErrNotSent) {
		t.Errorf("a smaller window: got %v, want ErrNotSent", first.err)
	}
	if err := tr.setting(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}); err == nil || !strings.Contains(err.Error(), "FLOW") {
		t.Errorf("a window of 2 GiB: got %v", err)
	}
}
