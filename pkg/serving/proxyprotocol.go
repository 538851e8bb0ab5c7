package serving

import (
	"context"
	"errors"

	"github.com/pires/go-proxyproto"
)

// headerShare is the part of all connections, one in so many, that may be waiting for their
// PROXY header. It is set aside, since such a connection has no address yet that it could be
// counted for. A proxy sends the header at once.
const headerShare = 16

// expectHeader has c begin with a header of the PROXY protocol, which the protocol forbids to
// leave to the peer's choice. If too many connections are waiting for theirs, it closes c and
// returns nil.
func (cs *connections) expectHeader(c *conn) *conn {
	if cs.expected.Add(1) > cs.maxExpected {
		cs.expected.Add(-1)
		cs.refuse(c, "total")
		return nil
	}
	c.Conn = proxyproto.NewConn(c.Conn, proxyproto.WithPolicy(proxyproto.REQUIRE), proxyproto.SetReadHeaderTimeout(0))
	return c
}

// readHeader reads the PROXY header of c, if it must have one, until ctx ends. It then adds c
// under the address that the header names, or under its own if the header names no address. If
// that fails, readHeader closes c and returns nil.
func (c *conn) readHeader(ctx context.Context) *conn {
	proxied, ok := c.Conn.(*proxyproto.Conn)
	if !ok {
		return c
	}
	stop := context.AfterFunc(ctx, func() { c.Conn.Close() })
	header := proxied.ProxyHeader() // nil after a failure
	c.owner.expected.Add(-1)
	if inTime := stop(); header == nil || !inTime {
		if errors.Is(ctx.Err(), context.Canceled) { // the server stops
			c.Conn.Close()
		} else {
			c.owner.refuse(c, "proxy-header")
		}
		return nil
	}
	c.address, c.proxy = c.owner.addressOf(c.RemoteAddr())
	return c.owner.enter(c)
}
