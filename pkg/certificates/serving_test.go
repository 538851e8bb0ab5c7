package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
)

func TestServerName(t *testing.T) {
	for name, test := range map[string]struct {
		sans Names
		host string
		want string
	}{
		"covered address":   {sans("a.example.com", "127.0.0.1"), "127.0.0.1", ""},
		"covered name":      {sans("a.example.com"), "a.example.com", ""},
		"under a wildcard":  {sans("*.example.com"), "a.example.com", ""},
		"another name":      {sans("a.example.com"), "127.0.0.1", "a.example.com"},
		"a wildcard":        {sans("*.example.com"), "127.0.0.1", "berth.example.com"},
		"another address":   {sans("192.0.2.7"), "127.0.0.1", "192.0.2.7"},
		"no name whatever":  {sans(), "127.0.0.1", ""},
		"an IPv6 loopback":  {sans("::1"), "::1", ""},
		"an IPv6 by a name": {sans("a.example.com"), "::1", "a.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			cert := &x509.Certificate{DNSNames: test.sans.dns, IPAddresses: test.sans.netIPs()}
			serving := &Serving{Pair: &tls.Certificate{Leaf: cert}}
			if got := serving.ServerName(test.host); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
