package certificates

import "testing"

func TestServerName(t *testing.T) {
	for name, test := range map[string]struct {
		names []string
		host  string
		want  string
	}{
		"covered address":   {[]string{"a.example.com", "127.0.0.1"}, "127.0.0.1", ""},
		"covered name":      {[]string{"a.example.com"}, "a.example.com", ""},
		"under a wildcard":  {[]string{"*.example.com"}, "a.example.com", ""},
		"another name":      {[]string{"a.example.com"}, "127.0.0.1", "a.example.com"},
		"a wildcard":        {[]string{"*.example.com"}, "127.0.0.1", "berth.example.com"},
		"another address":   {[]string{"192.0.2.7"}, "127.0.0.1", "192.0.2.7"},
		"no name whatever":  {nil, "127.0.0.1", ""},
		"an IPv6 loopback":  {[]string{"::1"}, "::1", ""},
		"an IPv6 by a name": {[]string{"a.example.com"}, "::1", "a.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			serving, err := Dir(t.TempDir()).Ensure(test.names, pkiTime)
			if err != nil {
				t.Fatal(err)
			}
			if got := serving.ServerName(test.host); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
