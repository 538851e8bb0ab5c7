package server

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
)

// burstSize is how many bytes of a large answer go into one system call. TLS by itself
// makes one of each record of at most 16 KiB.
const burstSize = 96 << 10

// burstThreshold is how large an answer must be to be worth it: less than that net/http
// gathers by itself.
const burstThreshold = 3 << 10

// maxRecord is the most that TLS writes at once: a record of 16 KiB and what encryption
// adds to it.
const maxRecord = 16<<10 + 512

// lent is a pool of large buffers, of which no more than a number are out at a time: those
// of clients that do not read must not add up.
type lent struct {
	free chan []byte
	out  atomic.Int64
	size int
}

// maxLent is how many buffers of a kind are out at most. Whoever gets none does without.
const maxLent = 64

func newLent(size int) *lent { return &lent{free: make(chan []byte, maxLent/4), size: size} }

// get returns an empty buffer, or nil.
func (l *lent) get() []byte {
	if l.out.Add(1) > maxLent {
		l.out.Add(-1)
		return nil
	}
	select {
	case buf := <-l.free:
		return buf
	default:
		return make([]byte, 0, l.size)
	}
}

// put takes back a buffer that get has returned.
func (l *lent) put(buf []byte) {
	l.out.Add(-1)
	select {
	case l.free <- buf[:0]:
	default:
	}
}

var burstBuffers = newLent(burstSize + maxRecord)

// NewListener wraps the listener of a server that uses ConnContext, below TLS.
func NewListener(l net.Listener) net.Listener { return burstListener{l} }

// ConnContext is for http.Server: it lets the handlers of an HTTP/1.1 connection that came
// through NewListener's listener send large answers in few system calls.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	if burst, ok := belowTLS(conn).(*burstConn); ok {
		return context.WithValue(ctx, burstKey{}, burst)
	}
	return ctx
}

// belowTLS is the connection that TLS is spoken over, or conn itself where it is not.
func belowTLS(conn net.Conn) net.Conn {
	if secured, ok := conn.(*tls.Conn); ok {
		return secured.NetConn()
	}
	return conn
}

type burstKey struct{}

type burstListener struct{ net.Listener }

func (l burstListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &burstConn{Conn: conn}, nil
}

// burstConn gathers what is written while a handler holds it back.
type burstConn struct {
	net.Conn
	mu   sync.Mutex
	held []byte // nil: nothing is held back
}

// hold begins a burst: from now on writes are gathered, and go out when there is enough for
// a system call. It does nothing while too many others do the same. release must follow. On
// a nil conn both do nothing.
func (c *burstConn) hold() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = burstBuffers.get()
	}
}

// release writes what is held and ends the burst. Where that fails the connection is of no
// use any more: net/http does not know that bytes are missing.
func (c *burstConn) release() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		return nil
	}
	err := c.flush()
	if err != nil {
		c.Conn.Close()
	}
	burstBuffers.put(c.held)
	c.held = nil
	return err
}

// Write gathers p in a burst, and else writes it. What fails in a burst may be told of a
// later write, or of release.
func (c *burstConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		return c.Conn.Write(p)
	}
	if len(c.held)+len(p) > cap(c.held) {
		if err := c.flush(); err != nil {
			return 0, err
		}
		if len(p) > burstSize {
			return c.Conn.Write(p)
		}
	}
	c.held = append(c.held, p...)
	if len(c.held) >= burstSize {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// flush writes what is held; c.mu is held.
func (c *burstConn) flush() error {
	if len(c.held) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.held)
	c.held = c.held[:0]
	return err
}

// burstOf is the connection of an HTTP/1.1 request where it can gather writes, else nil. On
// an HTTP/2 connection others write, too.
func burstOf(rec *record) *burstConn {
	if rec.req.ProtoMajor != 1 {
		return nil
	}
	conn, _ := rec.req.Context().Value(burstKey{}).(*burstConn)
	return conn
}
