package unary

import (
	"encoding/binary"
	"errors"
	"math"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	errDeaf    = errors.New("the server does not read what it asks for")
	errHeaders = errors.New("the server sends headers without end")
)

// read takes in frames until the connection fails. It does not outlast a frame that is wrong
// for its stream alone: the decoder would miss its headers, and read later ones as others.
func (t *transport) read() error {
	for {
		f, err := t.reader.ReadFrame()
		if err != nil {
			return err
		}
		if err := t.handle(f); err != nil {
			return err
		}
	}
}

func (t *transport) handle(f http2.Frame) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.received++
	switch f := f.(type) {
	case *http2.HeadersFrame:
		t.fields = fields{ends: f.StreamEnded()}
		return t.headers(f.StreamID, f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.ContinuationFrame:
		return t.headers(f.StreamID, f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.DataFrame:
		t.data(f)
	case *http2.RSTStreamFrame:
		t.wasReset(f)
	case *http2.GoAwayFrame:
		for id, s := range t.streams {
			if id > f.LastStreamID {
				t.end(s, errRefused)
			}
		}
		t.retire()
	case *http2.SettingsFrame:
		if !f.IsAck() {
			t.control(http2.FrameSettings, http2.FlagSettingsAck, 0)
			if err := f.ForeachSetting(t.setting); err != nil {
				return err
			}
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			t.control(http2.FramePing, http2.FlagPingAck, 0,
				binary.BigEndian.Uint32(f.Data[:4]), binary.BigEndian.Uint32(f.Data[4:]))
		}
	case *http2.WindowUpdateFrame:
		// A stream's own window does not count: it is used at once, or not at all.
		if f.StreamID == 0 {
			if int(f.Increment) > math.MaxInt32-t.window {
				return http2.ConnectionError(http2.ErrCodeFlowControl)
			}
			t.window += int(f.Increment)
			t.signal()
		}
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if len(t.out) > maxQueueBytes {
		return errDeaf
	}
	return nil
}

// headers of a response come first and last, or only once, each in one frame or several. A
// member that answers that it is unavailable is left for the next one.
func (t *transport) headers(id uint32, fragment []byte, whole bool) error {
	if _, err := t.decoder.Write(fragment); err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	if t.fields.size > maxFrameBytes {
		return errHeaders
	}
	if !whole {
		return nil
	}
	if err := t.decoder.Close(); err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	s := t.streams[id]
	if s == nil {
		return nil
	}
	err := t.fields.outcome()
	if t.fields.ends {
		t.end(s, err)
	} else if err != nil {
		t.reset(s, http2.ErrCodeCancel, err)
	}
	if status.Code(err) == codes.Unavailable {
		t.retire()
	}
	return nil
}

// field notes a field of the headers that are being read.
func (t *transport) field(f hpack.HeaderField) {
	t.fields.size += int(f.Size())
	switch f.Name {
	case ":status":
		t.fields.http = f.Value
	case "grpc-status":
		t.fields.code = f.Value
	case "grpc-message":
		t.fields.message = f.Value
	}
}

func (t *transport) data(f *http2.DataFrame) {
	if t.consumed += f.Length; t.consumed > receiveWindow/2 {
		t.control(http2.FrameWindowUpdate, 0, 0, t.consumed)
		t.consumed = 0
	}
	s := t.streams[f.StreamID]
	if s == nil {
		return
	}
	s.response = append(s.response, f.Data()...)
	switch {
	case isTooLarge(s.response):
		t.reset(s, http2.ErrCodeCancel, errTooLarge)
	case f.StreamEnded():
		t.end(s, status.Error(codes.Internal, "the response ends without a status"))
	}
}

func (t *transport) wasReset(f *http2.RSTStreamFrame) {
	s := t.streams[f.StreamID]
	if s == nil {
		return
	}
	if f.ErrCode == http2.ErrCodeRefusedStream {
		t.end(s, errRefused)
		return
	}
	t.end(s, status.Errorf(codes.Unavailable, "the server reset the stream: %v", f.ErrCode))
}

// setting follows what the server asks for. A smaller window for streams may be too small
// for the calls that are queued: they take another way.
func (t *transport) setting(s http2.Setting) error {
	switch s.ID {
	case http2.SettingInitialWindowSize:
		if int(s.Val) < t.perStream && len(t.queue) > 0 {
			t.retire()
		}
		t.perStream = int(s.Val)
	case http2.SettingMaxConcurrentStreams:
		t.capacity = int(min(s.Val, maxStreams))
	case http2.SettingHeaderTableSize:
		t.encoder.SetMaxDynamicTableSizeLimit(s.Val)
	}
	return s.Valid()
}
