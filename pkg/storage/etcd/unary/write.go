package unary

import (
	"math"
	"runtime"
	"slices"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// write writes what there is to be written, until the connection is gone.
func (t *transport) write() {
	var frames []byte
	for {
		select {
		case <-t.wake:
		case <-t.gone:
			return
		}
		// Whoever is about to call gets to do so and shares the write: with 32 callers,
		// three calls make one write, where without this nearly each has its own.
		runtime.Gosched()
		frames = t.take(frames)
		err := t.conn.SetWriteDeadline(time.Now().Add(keepAliveTimeout))
		if err == nil {
			_, err = t.conn.Write(frames)
		}
		if err != nil {
			t.fail(err)
			return
		}
	}
}

// take returns all that is to be written now, of the queue what the server has credit for.
// spare is memory for what comes next.
func (t *transport) take(spare []byte) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, s := range t.queue {
		if len(s.message) > t.window {
			break
		}
		t.window -= len(s.message)
		t.queued -= len(s.message)
		s.id = t.nextID
		t.nextID += 2
		t.streams[s.id] = s
		t.request(s)
		recycle(s.message)
		s.message = nil
		n++
	}
	t.queue = slices.Delete(t.queue, 0, n)
	if t.nextID > math.MaxInt32-2*maxStreams {
		t.retire()
	}
	frames := t.out
	t.out = spare[:0]
	return frames
}

// request adds the frames of a call. mu is held. There is no grpc-timeout: it would be
// another header each time, a timer in the server for each call, and says nothing that the
// stream's reset and etcd's own limit of some 7 s do not.
func (t *transport) request(s *stream) {
	t.block.Reset()
	for _, f := range [...]hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: t.scheme},
		{Name: ":path", Value: s.method},
		{Name: ":authority", Value: t.host},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "user-agent", Value: "berth"},
		{Name: "te", Value: "trailers"},
		{Name: "hasleader", Value: "true"}, // as clientv3.WithRequireLeader
	} {
		_ = t.encoder.WriteField(f) // a buffer takes it all
	}
	t.frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, s.id, t.block.Bytes())
	message := s.message
	for len(message) > maxFrameBytes {
		t.frame(http2.FrameData, 0, s.id, message[:maxFrameBytes])
		message = message[maxFrameBytes:]
	}
	t.frame(http2.FrameData, http2.FlagDataEndStream, s.id, message)
}
