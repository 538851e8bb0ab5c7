package serving

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestOneAddressHasItsShare(t *testing.T) {
	s := serve(t, 8)
	for range 4 {
		dial(t, "127.0.0.2", s.secure)
	}
	eventually(t, "four connections", func() bool { return s.metric(t, "berth_connections", "") == 4 })
	for _, port := range []string{s.secure, s.plain} {
		if !isClosed(dial(t, "127.0.0.2", port)) {
			t.Errorf("a fifth connection from one address, to %s, stays open", port)
		}
	}
	if got := s.metric(t, "berth_connections_refused_total", "address"); got != 2 {
		t.Errorf("%v connections are counted as refused, want 2", got)
	}
	if n := strings.Count(s.log.String(), "too many are open from its address"); n != 1 {
		t.Errorf("%d lines in the log, want 1:\n%s", n, s.log)
	}
	if body, err := get(client(t, "127.0.0.3", false), "https://"+s.secure); err != nil || body != "HTTP/1.1" {
		t.Errorf("another address got %q, %v", body, err)
	}
	if got := s.metric(t, "berth_connections_evicted_total", ""); got != 0 {
		t.Errorf("%v connections were evicted although there was room", got)
	}
}

// A trusted proxy carries all clients, so it may have all connections. One of its own that is
// idle makes room for the next.
func TestTrustedProxyHasNoShare(t *testing.T) {
	s := serveConfig(t, Config{MaxConnections: 8, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}})
	for range 8 {
		dial(t, "127.0.0.2", s.secure)
	}
	eventually(t, "eight connections", func() bool { return s.metric(t, "berth_connections", "") == 8 })
	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		if body, err := get(client(t, from, false), "https://"+s.secure); err != nil {
			t.Errorf("%s got %q, %v", from, body, err)
		}
	}
	if got := s.metric(t, "berth_connections_evicted_total", ""); got != 2 {
		t.Errorf("%v connections were evicted, want 2", got)
	}
	if got := s.metric(t, "berth_connections_refused_total", "address"); got != 0 {
		t.Errorf("%v connections were refused", got)
	}
}

func TestClosedConnectionsNoLongerCount(t *testing.T) {
	s := serve(t, 2)
	for range 20 {
		conn := dial(t, "127.0.0.2", s.plain)
		eventually(t, "the connection", func() bool { return s.metric(t, "berth_connections", "") == 1 })
		conn.Close()
		eventually(t, "its end", func() bool { return s.metric(t, "berth_connections", "") == 0 })
	}
}

// A client that fills the server with idle connections, from any number of addresses, keeps no
// one out, whether they are silent, within a handshake, or after a request.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	for _, addresses := range []int{2, 3, 8} {
		t.Run(fmt.Sprintf("from %d addresses", addresses), func(t *testing.T) {
			s := serve(t, 8)
			for i := range 8 {
				conn := dial(t, fmt.Sprintf("127.0.1.%d", 1+i%addresses), []string{s.secure, s.plain}[i%2])
				switch i % 4 {
				case 3:
					fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: berth\r\n\r\n")
				case 1:
					fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: ")
				}
			}
			eventually(t, "a full server", func() bool { return s.metric(t, "berth_connections", "") == 8 })
			for i, http2 := range []bool{false, true} {
				if body, err := get(client(t, fmt.Sprintf("127.0.0.%d", 2+i), http2), "https://"+s.secure); err != nil {
					t.Errorf("a new address got %q, %v", body, err)
				}
			}
			if got := s.metric(t, "berth_connections_evicted_total", ""); got != 2 {
				t.Errorf("%v connections are counted as evicted, want 2", got)
			}
			if got := s.metric(t, "berth_connections", ""); got > 8 {
				t.Errorf("%v connections are open, want 8 at most", got)
			}
			if n := strings.Count(s.log.String(), "closed an idle connection"); n != 1 {
				t.Errorf("%d lines in the log, want 1:\n%s", n, s.log)
			}
		})
	}
}

// A connection with a request in progress is never closed for another one.
func TestBusyConnectionsStay(t *testing.T) {
	for _, test := range []struct {
		name   string
		http2  bool
		secure bool
	}{
		{"HTTP/1.1", false, true}, {"HTTP/2", true, true},
		{"HTTP/1.1 without TLS", false, false}, {"HTTP/2 without TLS", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, 2)
			url := "http://" + s.plain
			if test.secure {
				url = "https://" + s.secure
			}
			answers := make(chan error, 2)
			for i := range 2 {
				c := client(t, fmt.Sprintf("127.0.1.%d", 1+i), test.http2)
				// One that was idle before.
				if _, err := get(c, url); err != nil {
					t.Fatal(err)
				}
				go func() {
					_, err := get(c, url+"/wait")
					answers <- err
				}()
				<-s.arrived
			}
			if !isClosed(dial(t, "127.0.0.2", s.secure)) {
				t.Error("a third connection stays open")
			}
			if got := s.metric(t, "berth_connections_refused_total", "total"); got != 1 {
				t.Errorf("%v connections are counted as refused, want 1", got)
			}
			close(s.release)
			for range 2 {
				if err := <-answers; err != nil {
					t.Errorf("a request in progress failed: %v", err)
				}
			}
			// Both are idle again, though perhaps only a moment after the answer has come.
			eventually(t, "an answer to another address", func() bool {
				_, err := get(client(t, "127.0.0.2", test.http2), url)
				return err == nil
			})
		})
	}
}

// An address does not gain from closing those of addresses that have no more than it has.
func TestEvictionIsFair(t *testing.T) {
	s := serve(t, 4)
	for i := range 4 {
		dial(t, fmt.Sprintf("127.0.1.%d", 1+i%2), s.plain)
	}
	eventually(t, "a full server", func() bool { return s.metric(t, "berth_connections", "") == 4 })
	dial(t, "127.0.0.2", s.plain)
	eventually(t, "room for a third address", func() bool { return s.metric(t, "berth_connections_evicted_total", "") == 1 })
	for range 10 {
		dial(t, "127.0.0.2", s.plain)
	}
	eventually(t, "the decision on all", func() bool {
		return s.metric(t, "berth_connections_evicted_total", "")+
			s.metric(t, "berth_connections_refused_total", "address")+
			s.metric(t, "berth_connections_refused_total", "total") == 11
	})
	s.conns.mu.Lock()
	defer s.conns.mu.Unlock()
	for address, n := range s.conns.byAddress {
		if n == 0 || n > 2 {
			t.Errorf("%s has %d connections", address, n)
		}
	}
	if len(s.conns.byAddress) != 3 {
		t.Errorf("addresses with connections: %v, want all three", s.conns.byAddress)
	}
}

func TestAddressOf(t *testing.T) {
	cs := newConnections(Config{MaxConnections: 10, TrustedProxies: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64"),
	}})
	for remote, want := range map[string]string{
		"192.0.2.1:80":              "192.0.2.1/32",
		"[::ffff:192.0.2.1]:80":     "192.0.2.1/32",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":         "fe80::/64",
		"@":                         "invalid Prefix",
		"[::ffff:10.0.0.1]:80":      "10.0.0.1/32, a proxy",
		"[fd00::1]:80":              "fd00::1/128, a proxy",
	} {
		address, proxy := cs.addressOf(textAddr(remote))
		got := address.String()
		if proxy {
			got += ", a proxy"
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", remote, got, want)
		}
	}
}

type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }

var _ net.Addr = textAddr("")
