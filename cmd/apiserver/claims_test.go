package main

import "testing"

func TestClientHost(t *testing.T) {
	for _, test := range []struct{ bind, external, want string }{
		{"127.0.0.1", "", "https://127.0.0.1:1"},
		{"0.0.0.0", "", "https://127.0.0.1:1"},
		{"::", "", "https://[::1]:1"},
		{"192.0.2.7", "", "https://192.0.2.7:1"},
		{"0.0.0.0", "berth.example.com", "https://berth.example.com:1"},
		{"fe80::1%eth0", "", "https://[fe80::1%25eth0]:1"},
	} {
		got := secureURL(clientHost(config{BindAddress: test.bind, ExternalHostname: test.external}), 1)
		if got != test.want {
			t.Errorf("on %s as %q: got %s, want %s", test.bind, test.external, got, test.want)
		}
	}
}
