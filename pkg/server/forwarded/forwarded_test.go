package forwarded

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

var testProxies = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("fd00::/64"),
}

func TestClient(t *testing.T) {
	for _, tc := range []struct {
		name, peer string
		forwarded  []string // the lines of the header
		want       string   // "" for none
	}{
		{"no header", "10.0.0.1:1", nil, "10.0.0.1"},
		{"one proxy", "10.0.0.1:1", []string{"192.0.2.1"}, "192.0.2.1"},
		{"a forged beginning", "10.0.0.1:1", []string{"127.0.0.1, 10.0.0.2, 198.51.100.1, 192.0.2.1"}, "192.0.2.1"},
		{"two proxies", "127.0.0.1:1", []string{"198.51.100.1, 192.0.2.1,10.0.0.2"}, "192.0.2.1"},
		{"several lines", "127.0.0.1:1", []string{"198.51.100.1", "192.0.2.1 , 10.0.0.3", "10.0.0.2"}, "192.0.2.1"},
		{"all proxies", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"an untrusted peer", "192.0.2.9:1", []string{"198.51.100.1"}, "192.0.2.9"},
		{"IPv6", "[fd00::1]:1", []string{"2001:db8::1"}, "2001:db8::1"},
		{"IPv6 in brackets", "[fd00::1]:1", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"with ports", "[fd00::1]:1", []string{"192.0.2.1:4711, [fd00::2]:80, 10.0.0.2:80"}, "192.0.2.1"},
		{"mapped to IPv6", "[::ffff:10.0.0.1]:1", []string{"::ffff:192.0.2.1"}, "192.0.2.1"},
		{"a mapped proxy", "10.0.0.1:1", []string{"192.0.2.1, ::ffff:10.0.0.2"}, "192.0.2.1"},
		{"a zone", "10.0.0.1:1", []string{"192.0.2.1, fd00::2%eth0"}, "192.0.2.1"},
		{"a name", "10.0.0.1:1", []string{"192.0.2.1, unknown"}, "10.0.0.1"},
		{"a name before a proxy", "10.0.0.1:1", []string{"192.0.2.1, _hidden, 10.0.0.2"}, "10.0.0.2"},
		{"an empty entry", "10.0.0.1:1", []string{"192.0.2.1,"}, "10.0.0.1"},
		{"an empty line", "10.0.0.1:1", []string{"192.0.2.1", ""}, "10.0.0.1"},
		{"only blanks", "10.0.0.1:1", []string{" \t , "}, "10.0.0.1"},
		{"a line's end", "10.0.0.1:1", []string{"192.0.2.1\r\n"}, "10.0.0.1"},
		{"half a bracket", "10.0.0.1:1", []string{"[2001:db8::1"}, "10.0.0.1"},
		{"no address at all", "@", []string{"192.0.2.1"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := netip.Addr{}
			if tc.want != "" {
				want = netip.MustParseAddr(tc.want)
			}
			req := &http.Request{RemoteAddr: tc.peer, Header: http.Header{"X-Forwarded-For": tc.forwarded}}
			if got := Client(req, testProxies); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			if got := Client(req, nil); got != parseAddr(tc.peer) {
				t.Errorf("without trusted proxies: got %v, want the peer", got)
			}
		})
	}
}

// Whatever a client has sent, what a trusted proxy appends to it decides, on the same line or
// on another, and whatever proxies append then.
func FuzzForwardedFor(f *testing.F) {
	for _, sent := range []string{"", "192.0.2.1", "10.0.0.1, 127.0.0.1", "[::1]:80,", "unknown", strings.Repeat("10.0.0.1,", 1000), "\xff\x00,,"} {
		f.Add(sent)
	}
	client := netip.MustParseAddr("203.0.113.7")
	f.Fuzz(func(t *testing.T, sent string) {
		for _, forwarded := range [][]string{
			{sent + ",203.0.113.7"}, {sent, "203.0.113.7"}, {sent + ", 203.0.113.7, 10.0.0.3"}, {sent, "203.0.113.7:80", "10.0.0.3"},
		} {
			req := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": forwarded}}
			if got := Client(req, testProxies); got != client {
				t.Errorf("%q: got %v", forwarded, got)
			}
		}
		req := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": {sent}}}
		if got := Client(req, testProxies); !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Errorf("%q: got %v", sent, got)
		}
	})
}
