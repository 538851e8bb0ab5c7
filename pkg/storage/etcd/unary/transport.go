package unary

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// maxStreams bounds the calls at a time; the server may allow less.
	maxStreams = 1000
	// maxQueueBytes bounds the requests that wait to be written, and the frames that the
	// server has us send while it reads none.
	maxQueueBytes = 1 << 20
	// maxFrameBytes is the largest payload that every peer takes (RFC 9113, section 4.2).
	maxFrameBytes = 16 << 10
	// defaultWindow is a peer's until it says otherwise (RFC 9113, section 6.9.2).
	defaultWindow = 1<<16 - 1
	// receiveWindow lets the largest response through without more credit for its stream;
	// the connection's is renewed when half of it is used.
	receiveWindow = prefixBytes + maxResponse
	// silence is how long a call has to have waited without one frame from the server for
	// its end to be a reason to give up the connection.
	silence = time.Second
)

var (
	errNoRoom  = fmt.Errorf("%w: flow control has no room for it", ErrNotSent)
	errBusy    = fmt.Errorf("%w: too many are under way", ErrNotSent)
	errRefused = fmt.Errorf("%w: the server refused it", ErrNotSent)
	errDrained = errors.New("the last call has ended")
)

// transport is one connection. Once retired it takes no calls, and is closed when those
// under way have ended.
type transport struct {
	conn    net.Conn
	scheme  string
	host    string
	reader  *http2.Framer
	decoder *hpack.Decoder
	fields  fields        // of the headers that are being read
	wake    chan struct{} // signals that there is something to write
	retired chan struct{}
	gone    chan struct{} // closed when the connection is

	mu        sync.Mutex // guards what follows
	err       error      // why the connection is gone; nil: it is not
	streams   map[uint32]*stream
	nextID    uint32
	queue     []*stream // still to be written, in this order
	queued    int       // bytes of their messages
	out       []byte    // frames to be written
	encoder   *hpack.Encoder
	block     bytes.Buffer // what encoder has encoded
	window    int          // bytes that may be sent on the connection
	perStream int          // bytes that may be sent on a new stream
	capacity  int          // of streams
	received  int          // frames
	consumed  uint32       // bytes received that no credit was given for
}

// stream is one call.
type stream struct {
	method  string
	message []byte
	done    chan struct{} // closed when response and err are final

	// Guarded by the transport's mu.
	id       uint32 // 0: it has not been written
	response []byte
	err      error

	since    time.Time // when the call began
	received int       // the transport's, then
}

func newTransport(conn net.Conn, scheme, host string) *transport {
	t := &transport{
		conn: conn, scheme: scheme, host: host,
		wake: make(chan struct{}, 1), retired: make(chan struct{}), gone: make(chan struct{}),
		streams: map[uint32]*stream{}, nextID: 1, capacity: maxStreams,
		window: defaultWindow, perStream: defaultWindow,
	}
	t.encoder = hpack.NewEncoder(&t.block)
	t.reader = http2.NewFramer(nil, bufio.NewReaderSize(conn, 2*maxFrameBytes))
	t.reader.SetMaxReadFrameSize(maxFrameBytes)
	t.reader.SetReuseFrames()
	t.decoder = hpack.NewDecoder(4096, t.field) // the size that a server assumes
	t.decoder.SetMaxStringLength(maxFrameBytes)
	return t
}

// handshake introduces the two ends to each other. ctx bounds it.
func (t *transport) handshake(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { t.conn.Close() })()
	hello := bytes.NewBufferString(http2.ClientPreface)
	framer := http2.NewFramer(hello, nil)
	if err := errors.Join(
		framer.WriteSettings(
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: receiveWindow}),
		framer.WriteWindowUpdate(0, receiveWindow-defaultWindow),
	); err != nil {
		return err
	}
	if _, err := t.conn.Write(hello.Bytes()); err != nil {
		return err
	}
	f, err := t.reader.ReadFrame()
	if err != nil {
		return err
	}
	settings, ok := f.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		return fmt.Errorf("unary: the server begins with %v", f.Header())
	}
	return t.handle(settings)
}

// send queues a call. A request of one frame waits until the server has credit for it. A
// larger one has to find it there: servers keep credit back until enough has come together.
func (t *transport) send(method string, message []byte) (*stream, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	size, queued := len(message), t.queued+len(message)
	switch {
	case t.isRetired():
		return nil, errNoConnection
	case size > t.perStream, size > maxFrameBytes && queued > t.window, queued > maxQueueBytes:
		return nil, errNoRoom
	case len(t.streams)+len(t.queue) >= t.capacity:
		return nil, errBusy
	}
	s := &stream{method: method, message: message, done: make(chan struct{}), since: time.Now(), received: t.received}
	t.queued = queued
	t.queue = append(t.queue, s)
	t.signal()
	return s, nil
}

// abandon ends a call whose context has ended, for the cause, unless it has just ended.
func (t *transport) abandon(s *stream, cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.queue, s); i >= 0 {
		t.queue = slices.Delete(t.queue, i, i+1)
		t.queued -= len(s.message)
		t.end(s, fmt.Errorf("%w: %w", ErrNotSent, cause))
	} else if t.streams[s.id] == s {
		t.reset(s, http2.ErrCodeCancel, status.FromContextError(cause).Err())
	} else {
		return
	}
	if s.received == t.received && time.Since(s.since) >= silence {
		t.retire()
	}
}

// reset ends a call that the server still works on. mu is held.
func (t *transport) reset(s *stream, code http2.ErrCode, err error) {
	t.control(http2.FrameRSTStream, 0, s.id, uint32(code))
	t.end(s, err)
}

// end hands a call its error; nil: it has its response. mu is held.
func (t *transport) end(s *stream, err error) {
	delete(t.streams, s.id)
	s.err = err
	close(s.done)
	t.closeIfDrained()
}

func (t *transport) isRetired() bool {
	select {
	case <-t.retired:
		return true
	default:
		return false
	}
}

// retire takes no more calls, and sends none that is still queued. mu is held.
func (t *transport) retire() {
	if t.isRetired() {
		return
	}
	close(t.retired)
	queue := t.queue
	t.queue, t.queued = nil, 0
	for _, s := range queue {
		t.end(s, errNoConnection)
	}
	t.closeIfDrained()
}

func (t *transport) closeIfDrained() {
	if len(t.streams) == 0 && t.isRetired() {
		t.close(errDrained)
	}
}

// close has reader and writer end. mu is held. TLS would first send its farewell, which may
// take as long as the other end likes.
func (t *transport) close(err error) {
	if t.err != nil {
		return
	}
	t.err = err
	close(t.gone)
	if c, ok := t.conn.(*tls.Conn); ok {
		c.NetConn().Close()
		return
	}
	t.conn.Close()
}

// fail closes the connection and ends all calls.
func (t *transport) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.close(err)
	t.retire()
	for _, s := range t.streams {
		t.end(s, status.Errorf(codes.Unavailable, "the connection to etcd broke: %v", t.err))
	}
}

func (t *transport) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// control sends a frame whose payload consists of numbers. mu is held.
func (t *transport) control(kind http2.FrameType, flags http2.Flags, id uint32, payload ...uint32) {
	var data []byte
	for _, number := range payload {
		data = binary.BigEndian.AppendUint32(data, number)
	}
	t.frame(kind, flags, id, data)
	t.signal()
}

// frame adds a frame to those to be written. mu is held.
func (t *transport) frame(kind http2.FrameType, flags http2.Flags, id uint32, payload []byte) {
	n := len(payload)
	t.out = append(t.out, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	t.out = binary.BigEndian.AppendUint32(t.out, id)
	t.out = append(t.out, payload...)
}
