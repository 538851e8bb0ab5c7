package server

import (
	"net/http"
	"testing"
)

// Browsers must neither guess what an answer is nor leave TLS.
func TestHeadersForBrowsers(t *testing.T) {
	cfg := testConfig(t, &fakeResource{})
	cfg.StrictTransportSecurity = "max-age=1; preload"
	s := newTestServer(t, cfg)
	web := start(t, s, true)
	for _, path := range []string{"/livez", "/version", "/nothing", "/api", "/openapi/v2", testPath + "?limit=x"} {
		plain := serveOnce(s, newRequest(t, http.MethodGet, path, "")).Header()
		secure, _, err := send(t, web, clientRequest(t, web.URL+path))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][2]string{
			"X-Content-Type-Options": {"nosniff", "nosniff"}, "Strict-Transport-Security": {"", cfg.StrictTransportSecurity},
		} {
			if got := [2]string{plain.Get(name), secure.header.Get(name)}; got != want {
				t.Errorf("%s: %s is %q without TLS and with it", path, name, got)
			}
		}
	}
}
