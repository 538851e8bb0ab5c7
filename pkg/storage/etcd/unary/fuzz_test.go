package unary

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
)

// recorded is a connection whose other end has said all that it will say.
type recorded struct {
	net.Conn
	io.Reader
}

func (r recorded) Read(p []byte) (int, error) { return r.Reader.Read(p) }
func (recorded) Close() error                 { return nil }

// FuzzRead: whatever a server sends, each call ends, once, and nothing is held beyond its
// bound. The corpus has what servers do send, and what they should not.
func FuzzRead(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		tr := newTransport(recorded{Reader: bytes.NewReader(data)}, "http", "etcd")
		var calls []*stream
		for range 3 {
			s, err := tr.send(method, make([]byte, 100))
			if err != nil {
				t.Fatal(err)
			}
			calls = append(calls, s)
			if len(calls) == 2 {
				tr.take(nil) // the third is still queued
			}
		}
		err := tr.read()
		if err == nil {
			t.Fatal("the end of the connection is no error")
		}
		if len(tr.out) > 2*maxQueueBytes {
			t.Errorf("%d bytes are to be written", len(tr.out))
		}
		tr.fail(err)
		for i, s := range calls {
			<-s.done
			if s.err == nil {
				if message, err := messageOf(s.response); err == nil && binary.BigEndian.Uint32(s.response[1:]) != uint32(len(message)) {
					t.Errorf("%d bytes of %d are the message", len(message), len(s.response))
				}
			}
			if i == 2 && s.err == nil {
				t.Error("what was never sent has an answer")
			}
		}
		if len(tr.streams) != 0 || len(tr.queue) != 0 {
			t.Errorf("%d calls are under way, %d queued", len(tr.streams), len(tr.queue))
		}
	})
}
