package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/pires/go-proxyproto"

	"github.com/berth-project/berth/cmd/apiserver/internal/commands"
	"github.com/berth-project/berth/test/harness"
)

// proxyAddress is where the proxy of these tests connects from.
const proxyAddress = "127.0.0.9"

// forwarded returns the status code of a GET that came to the proxy from a client.
func forwarded(t *testing.T, proxy *http.Client, url, token string, forwardedFor ...string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["X-Forwarded-For"] = forwardedFor
	req.Header.Set("X-Auth-Token", token)
	resp, err := proxy.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // only the code counts
	return resp.StatusCode
}

// spend sends wrong tokens until the address that they count for has no failure left.
func spend(t *testing.T, guess func() int) {
	t.Helper()
	for range 10_000 {
		switch code := guess(); code {
		case http.StatusUnauthorized:
		case http.StatusTooManyRequests:
			return
		default:
			t.Fatalf("a guess got %d", code)
		}
	}
	t.Fatal("guesses are not refused")
}

// slowLimits has an address of guesses wait longer than any test takes.
func slowLimits(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/limits.yaml"
	harness.WriteFile(t, path, "apiVersion: berth/v1alpha1\nkind: RateLimitConfiguration\nanonymous: {qps: 0.0001, burst: 20}\n")
	return path
}

func TestTrustedProxies(t *testing.T) {
	s := runServer(t, func(c *config) {
		c.TrustedProxies, c.RateLimitConfig = []string{proxyAddress + "/32", "10.0.0.0/8"}, slowLimits(t)
	})
	url, ca := s.url+endpointsPath, s.DataDir.PKI().CACert()
	token := strings.TrimSpace(harness.ReadFile(t, s.DataDir.Token()))
	proxy, direct := callerFrom(t, ca, proxyAddress), callerFrom(t, ca, "127.0.0.2")
	spend(t, func() int { return forwarded(t, proxy, url, "a-guess", "198.51.100.1, 192.0.2.1") })
	for _, tc := range []struct {
		name         string
		client       *http.Client
		forwardedFor []string
		token        string
		want         int
	}{
		{"the guesser with another beginning", proxy, []string{"198.51.100.2, 192.0.2.1"}, "a-guess", 429},
		{"the guesser in two lines, by two proxies", proxy, []string{"198.51.100.3", "192.0.2.1, 10.0.0.1"}, "a-guess", 429},
		{"another client", proxy, []string{"192.0.2.2"}, "a-guess", 401},
		{"a client whose header names the guesser", proxy, []string{"192.0.2.1, 192.0.2.3"}, "a-guess", 401},
		{"the proxy itself", proxy, nil, "a-guess", 401},
		{"a client that is no proxy", direct, []string{"192.0.2.1"}, "a-guess", 401},
		{"a valid token from the guesser's address", proxy, []string{"192.0.2.1"}, token, 200},
	} {
		if code := forwarded(t, tc.client, url, tc.token, tc.forwardedFor...); code != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, code, tc.want)
		}
	}
	spend(t, func() int { return forwarded(t, direct, url, "a-guess", "192.0.2.99") })
	s.stderr.Await(t, `"client":"192.0.2.1"`, s.ended)
}

// With the PROXY protocol each connection names its client, on both ports.
func TestProxyProtocol(t *testing.T) {
	port := freePort(t)
	s := runServer(t, func(c *config) {
		c.TrustedProxies, c.ProxyProtocol, c.RateLimitConfig, c.HTTPPort = []string{proxyAddress + "/32"}, true, slowLimits(t), port
	})
	ca := s.DataDir.PKI().CACert()
	token := strings.TrimSpace(harness.ReadFile(t, s.DataDir.Token()))
	// through returns a client whose connections a proxy passes on.
	through := func(version byte, source string) *http.Client {
		c := callerFrom(t, ca, proxyAddress)
		transport := c.Transport.(*http.Transport)
		dial := transport.DialContext
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			addr := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 4711))
			_, err = proxyproto.HeaderProxyFromAddrs(version, addr, addr).WriteTo(conn)
			return conn, err
		}
		return c
	}
	plain := fmt.Sprintf("http://127.0.0.1:%d", port)
	guesser := through(2, "192.0.2.1")
	spend(t, func() int { return forwarded(t, guesser, s.url+endpointsPath, "a-guess") })
	for _, server := range []string{s.url, plain} {
		url := server + endpointsPath
		for _, version := range []byte{1, 2} {
			if code := forwarded(t, through(version, "192.0.2.1"), url, "a-guess"); code != http.StatusTooManyRequests {
				t.Errorf("%s, version %d: the guesser got %d", server, version, code)
			}
			if code := forwarded(t, through(version, "192.0.2.1"), url, token); code != http.StatusOK {
				t.Errorf("%s, version %d: a valid token got %d", server, version, code)
			}
			if code := forwarded(t, through(version, "192.0.2.2"), url, "a-guess", "192.0.2.1"); code != http.StatusUnauthorized {
				t.Errorf("%s, version %d: another client, with a forged header, got %d", server, version, code)
			}
		}
		if code := forwarded(t, callerFrom(t, ca, "127.0.0.2"), url, token); code != http.StatusOK {
			t.Errorf("%s: a client without a proxy got %d", server, code)
		}
		if resp, err := callerFrom(t, ca, proxyAddress).Get(server + "/livez"); err == nil { //nolint:noctx // the client has a time-out
			resp.Body.Close()
			t.Errorf("%s: the proxy without a header got %d", server, resp.StatusCode)
		}
	}
}

// However often others of its address ask, the health check of a container gets its answer.
func TestReadyBesideAFlood(t *testing.T) {
	s := runServer(t, nil)
	client := caller(t, s.DataDir.PKI().CACert())
	flood, end := context.WithCancel(t.Context())
	refused := make(chan struct{}, 4)
	var flooding sync.WaitGroup
	for range cap(refused) {
		flooding.Go(func() {
			for flood.Err() == nil {
				req, err := http.NewRequestWithContext(flood, http.MethodGet, s.url+"/readyz", nil)
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := client.Do(req)
				if err != nil {
					continue // the end, or another try
				}
				resp.Body.Close()
				if resp.StatusCode == http.StatusTooManyRequests {
					select {
					case refused <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	for range cap(refused) {
		<-refused
	}
	for range 50 {
		if err := commands.CheckReady(t.Context(), s.DataDir, ""); err != nil {
			t.Error(err)
		}
	}
	end()
	flooding.Wait()
}
