package server

import (
	"bytes"
	"errors"
	"net"
	"testing"
)

// callConn counts the writes that reach it.
type callConn struct {
	net.Conn
	calls   int
	written bytes.Buffer
	err     error
	closed  bool
}

func (c *callConn) Close() error {
	c.closed = true
	return nil
}

func (c *callConn) Write(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	c.calls++
	return c.written.Write(p)
}

func TestBurstsGatherWrites(t *testing.T) {
	under := &callConn{}
	c := &burstConn{Conn: under}
	var want []byte
	write := func(size int) {
		p := bytes.Repeat([]byte{byte(size)}, size)
		want = append(want, p...)
		if n, err := c.Write(p); n != size || err != nil {
			t.Fatal(n, err)
		}
	}
	write(10)
	if under.calls != 1 {
		t.Errorf("outside of a burst: %d calls, want 1", under.calls)
	}
	c.hold()
	for range 64 {
		write(16<<10 + 22)
	}
	write(3 * burstSize) // larger than what can be gathered
	write(5)
	if err := c.release(); err != nil {
		t.Fatal(err)
	}
	if most := 64*(16<<10+22)/burstSize + 4; under.calls > most {
		t.Errorf("%d calls, want at most %d", under.calls, most)
	}
	if !bytes.Equal(under.written.Bytes(), want) {
		t.Errorf("%d bytes arrived, not the %d that were written", under.written.Len(), len(want))
	}
}

func TestBurstsTellOfFailures(t *testing.T) {
	under := &callConn{err: errors.New("gone")}
	c := &burstConn{Conn: under}
	c.hold()
	if _, err := c.Write([]byte("held")); err != nil {
		t.Fatal(err)
	}
	if err := c.release(); err == nil || !under.closed {
		t.Error("what was held is lost without a word")
	}
	if err := c.release(); err != nil {
		t.Errorf("after the burst: %v", err)
	}
	var none *burstConn
	none.hold()
	if err := none.release(); err != nil {
		t.Error(err)
	}
}
