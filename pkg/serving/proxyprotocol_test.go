package serving

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

// proxyAddress is trusted in the tests of the PROXY protocol.
const proxyAddress = "127.0.0.9"

func serveProxied(t *testing.T, limit int) *testServer {
	t.Helper()
	return serveConfig(t, Config{
		MaxConnections: limit, ProxyProtocol: true,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix(proxyAddress + "/32"), netip.MustParsePrefix("10.0.0.0/8")},
	})
}

// proxied has a client connect from an address, with what a proxy says before everything else.
func proxied(t *testing.T, from string, http2 bool, header []byte) *http.Client {
	t.Helper()
	c := client(t, from, http2)
	transport := c.Transport.(*http.Transport)
	plain := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := plain(ctx, network, address)
		if err == nil {
			_, err = conn.Write(header)
		}
		return conn, err
	}
	return c
}

// headerOf is what a proxy says of a client.
func headerOf(t *testing.T, version byte, source string) []byte {
	t.Helper()
	header := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source)))
	data, err := header.Format()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestProxyProtocol(t *testing.T) {
	s := serveProxied(t, 200)
	local, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}).Format()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, from string
		header     []byte
		want       string // what the address begins with; "" for no answer
	}{
		{"version 1", proxyAddress, headerOf(t, 1, "192.0.2.1:4711"), "192.0.2.1:4711"},
		{"version 2", proxyAddress, headerOf(t, 2, "192.0.2.1:4711"), "192.0.2.1:4711"},
		{"version 1, IPv6", proxyAddress, headerOf(t, 1, "[2001:db8::1]:4711"), "[2001:db8::1]:4711"},
		{"version 2, IPv6", proxyAddress, headerOf(t, 2, "[2001:db8::1]:4711"), "[2001:db8::1]:4711"},
		{"the proxy itself", proxyAddress, local, proxyAddress + ":"},
		{"unknown", proxyAddress, []byte("PROXY UNKNOWN\r\n"), proxyAddress + ":"},
		{"no header", proxyAddress, nil, ""},
		{"a broken header", proxyAddress, []byte("PROXY TCP4 192.0.2.1\r\n"), ""},
		{"not a proxy", "127.0.0.2", nil, "127.0.0.2:"},
		{"a forged header", "127.0.0.2", headerOf(t, 1, "192.0.2.1:4711"), ""},
		{"a forged header of version 2", "127.0.0.2", headerOf(t, 2, "192.0.2.1:4711"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, url := range []string{"https://" + s.secure, "http://" + s.plain} {
				for _, http2 := range []bool{false, true} {
					c := proxied(t, tc.from, http2, tc.header)
					body, err := get(c, url+"/address")
					if (err == nil && strings.HasPrefix(body, "from "+tc.want)) != (tc.want != "") {
						t.Errorf("%s: got %q, %v, want %q", url, body, err, tc.want)
					}
				}
			}
		})
	}
	if got := s.metric(t, "berth_connections_refused_total", "proxy-header"); got < 8 {
		t.Errorf("%v connections are counted as refused for their header, want 8 and more", got)
	}
	if n := strings.Count(s.log.String(), "did not begin with a valid header"); n != 1 {
		t.Errorf("%d lines in the log, want 1:\n%s", n, s.log)
	}
}

// Connections count for the client that the header names: each has its share, and the proxy
// has none.
func TestShareOfProxiedClients(t *testing.T) {
	s := serveProxied(t, 17) // of which one may wait for its header
	for i := range 8 {
		conn := dial(t, proxyAddress, s.secure)
		if _, err := conn.Write(headerOf(t, byte(1+i%2), "192.0.2.1:4711")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the connection", func() bool { return s.metric(t, "berth_connections", "") == float64(i+1) })
	}
	for _, port := range []string{s.secure, s.plain} {
		conn := dial(t, proxyAddress, port)
		if _, err := conn.Write(headerOf(t, 2, "192.0.2.1:4711")); err != nil {
			t.Fatal(err)
		}
		if !isClosed(conn) {
			t.Error("a ninth connection of one client stays open")
		}
	}
	if got := s.metric(t, "berth_connections_refused_total", "address"); got != 2 {
		t.Errorf("%v connections are counted as refused, want 2", got)
	}
	if body, err := get(proxied(t, proxyAddress, false, headerOf(t, 2, "192.0.2.2:4711")), "https://"+s.secure+"/address"); err != nil || body != "from 192.0.2.2:4711" {
		t.Errorf("another client got %q, %v", body, err)
	}
	// A proxy behind the proxy has no share either.
	for i := range 7 {
		conn := dial(t, proxyAddress, s.secure)
		if _, err := conn.Write(headerOf(t, 2, "10.0.0.1:4711")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the connection", func() bool { return s.metric(t, "berth_connections", "") >= float64(min(9+i, 16)) })
	}
}

// Connections that wait for their header are bounded, and keep nobody else waiting.
func TestSilentProxies(t *testing.T) {
	s := serveProxied(t, 64) // of which four may wait
	for range 4 {
		dial(t, proxyAddress, s.secure)
	}
	eventually(t, "four that wait", func() bool { return s.conns.expected.Load() == 4 })
	if !isClosed(dial(t, proxyAddress, s.plain)) {
		t.Error("a fifth connection may wait")
	}
	if got := s.metric(t, "berth_connections_refused_total", "total"); got != 1 {
		t.Errorf("%v connections are counted as refused, want 1", got)
	}
	for _, url := range []string{"https://" + s.secure, "http://" + s.plain} {
		if body, err := get(client(t, "127.0.0.2", false), url); err != nil {
			t.Errorf("another address got %q, %v", body, err)
		}
	}
}

// A header has the time of a handshake, and Close does not wait for it.
func TestHeaderHasItsTime(t *testing.T) {
	before := goleak.IgnoreCurrent()
	conns := newConnections(Config{
		MaxConnections: 64, Logger: zerolog.Nop(), ProxyProtocol: true, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	for _, tc := range []struct {
		timeout time.Duration
		sent    string
	}{
		{50 * time.Millisecond, ""}, {50 * time.Millisecond, "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff"},
		{time.Hour, ""},
	} {
		tcp := listen(t)
		l := newHandshakeListener(&boundedListener{tcp, conns}, nil, tc.timeout)
		conn := dial(t, "127.0.0.1", tcp.Addr().String())
		fmt.Fprint(conn, tc.sent)
		eventually(t, "the connection", func() bool { return conns.expected.Load() == 1 || tc.timeout < time.Hour })
		if tc.timeout < time.Hour && !isClosed(conn) {
			t.Errorf("%q: the connection stays open", tc.sent)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if n := conns.expected.Load() + int64(conns.count()); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	}
	goleak.VerifyNone(t, before)
}

// The bytes after a header are the client's, also those that came with it.
func TestHeaderTogetherWithTheRequest(t *testing.T) {
	s := serveProxied(t, 64)
	conn := dial(t, proxyAddress, s.plain)
	long := strings.Repeat("x", 10_000)
	fmt.Fprintf(conn, "%sGET /address HTTP/1.1\r\nHost: berth\r\nX-Long: %s\r\nConnection: close\r\n\r\n", headerOf(t, 1, "192.0.2.1:4711"), long)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(answer), "from 192.0.2.1:4711") {
		t.Errorf("got %q, %v", answer, err)
	}
}
