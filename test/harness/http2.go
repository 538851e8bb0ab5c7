package harness

import (
	"bytes"
	"crypto/tls"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HTTP2Conn is a connection of HTTP/2 on which a test writes what no client would.
type HTTP2Conn struct {
	*http2.Framer
	t       testing.TB
	headers bytes.Buffer
	encoder *hpack.Encoder
}

// DialHTTP2 connects to the server at an https URL, which trusts what config does, with these
// settings. The connection ends with the test, and after half a minute.
func DialHTTP2(t testing.TB, url string, config *tls.Config, settings ...http2.Setting) *HTTP2Conn {
	t.Helper()
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &HTTP2Conn{Framer: http2.NewFramer(conn, conn), t: t}
	c.encoder = hpack.NewEncoder(&c.headers)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return c
}

// Get sends a GET without a body. The headers are pairs of name, in lower case, and value.
func (c *HTTP2Conn) Get(stream uint32, path string, headers ...string) {
	c.t.Helper()
	c.headers.Reset()
	all := append([]string{":method", "GET", ":scheme", "https", ":authority", "test", ":path", path}, headers...)
	for i := 0; i < len(all); i += 2 {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]}) // a buffer takes it
	}
	const most = 16 << 10 // of a frame
	block := c.headers.Bytes()
	first := block[:min(len(block), most)]
	err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: true, EndHeaders: len(first) == len(block)})
	for block = block[len(first):]; len(block) > 0 && err == nil; {
		next := block[:min(len(block), most)]
		block = block[len(next):]
		err = c.WriteContinuation(stream, len(block) == 0, next)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}
