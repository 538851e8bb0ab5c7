package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/object"
)

// dial begins a watch over a WebSocket. Its headers are pairs of name and value.
func dial(t *testing.T, web *httptest.Server, query string, headers ...string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	header := http.Header{"X-Auth-Token": {testToken}, "Origin": {"http://localhost"}}
	for i := 0; i+1 < len(headers); i += 2 {
		if header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			header.Del(headers[i])
		}
	}
	dialer := websocket.Dialer{TLSClientConfig: web.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), HandshakeTimeout: 20 * time.Second}
	dialer.TLSClientConfig.NextProtos = nil
	conn, resp, err := dialer.DialContext(t.Context(), "wss"+strings.TrimPrefix(web.URL, "https")+testPath+"?watch=1"+query, header)
	if err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		t.Cleanup(func() { conn.Close() })
	}
	return conn, resp, err
}

func mustDial(t *testing.T, web *httptest.Server) *websocket.Conn {
	t.Helper()
	conn, resp, err := dial(t, web, "")
	if err != nil {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	return conn
}

// messages reads up to the end of the watch.
func messages(t *testing.T, conn *websocket.Conn) (got []string) {
	t.Helper()
	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
				t.Errorf("the watch ended with %v", err)
			}
			return got
		}
		got = append(got, string(message))
	}
}

// Each event is a message, however large it is.
func TestWebSocketMessages(t *testing.T) {
	a, large := named(t, "a", 0), named(t, "b", 500_000)
	web := start(t, newTestServer(t, testConfig(t, sequence(func(_ context.Context, yield func([]object.Event, error) bool) {
		if yield([]object.Event{added(a), added(large)}, nil) {
			yield([]object.Event{added(a)}, nil)
		}
	}))), true)
	got := messages(t, mustDial(t, web))
	if want := line(a) + line(large) + line(a); strings.Join(got, "\n")+"\n" != want || len(got) != 3 {
		t.Errorf("got %d messages of %d bytes, want 3 of %d", len(got), len(strings.Join(got, "")), len(want))
	}
}

// What kube-apiserver refuses is refused, by a Status.
func TestWebSocketRefusals(t *testing.T) {
	protocol := func(token string) string {
		return "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
	}
	web := start(t, newTestServer(t, testConfig(t, sequence(func(context.Context, func([]object.Event, error) bool) {}))), true)
	for name, tc := range map[string]struct {
		headers  []string
		code     int
		protocol string // that is chosen
	}{
		"no origin":                      {[]string{"Origin", ""}, 403, ""},
		"an origin that is no address":   {[]string{"Origin", "null"}, 403, ""},
		"any origin":                     {[]string{"Origin", "https://example.com"}, 101, ""},
		"a form without events":          {[]string{"Accept", "application/yaml"}, 406, ""},
		"a compressed answer":            {[]string{"Accept-Encoding", "gzip"}, 101, ""},
		"no token":                       {[]string{"X-Auth-Token", ""}, 401, ""},
		"a subprotocol":                  {[]string{"Sec-WebSocket-Protocol", "v1.k8s.io"}, 101, "v1.k8s.io"},
		"a token as a subprotocol":       {[]string{"X-Auth-Token", "", "Sec-WebSocket-Protocol", protocol(testToken) + ", v1.k8s.io"}, 101, "v1.k8s.io"},
		"a token, last":                  {[]string{"X-Auth-Token", "", "Sec-WebSocket-Protocol", "v1.k8s.io, " + protocol(testToken)}, 101, "v1.k8s.io"},
		"a token alone":                  {[]string{"X-Auth-Token", "", "Sec-WebSocket-Protocol", protocol(testToken)}, 401, ""},
		"two tokens":                     {[]string{"X-Auth-Token", "", "Sec-WebSocket-Protocol", protocol(testToken) + ", " + protocol(testToken) + ", v1.k8s.io"}, 401, ""},
		"a token that is nobody's":       {[]string{"X-Auth-Token", "", "Sec-WebSocket-Protocol", protocol("nobody") + ", v1.k8s.io"}, 401, ""},
		"a token that is not encoded":    {[]string{"X-Auth-Token", "", "Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.+++, v1.k8s.io"}, 401, ""},
		"a token in a header goes first": {[]string{"X-Auth-Token", "nobody", "Sec-WebSocket-Protocol", protocol(testToken) + ", v1.k8s.io"}, 401, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, resp, err := dial(t, web, "", tc.headers...)
			if resp == nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tc.code || resp.Header.Get("Sec-Websocket-Protocol") != tc.protocol {
				t.Errorf("got %d %s, %v", resp.StatusCode, body, resp.Header)
			}
			if tc.code != http.StatusSwitchingProtocols && !strings.Contains(string(body), `Status`) {
				t.Errorf("got %s", body)
			}
		})
	}
}

// flood sends messages until the connection ends.
func flood(kind int) func(*Config, *Server, *websocket.Conn) error {
	return func(_ *Config, _ *Server, conn *websocket.Conn) error {
		for conn.WriteMessage(kind, nil) == nil {
		}
		return nil
	}
}

// A watch over a WebSocket ends with its client, with its token and with the server, like others.
func TestWebSocketEnds(t *testing.T) {
	for name, end := range map[string]func(cfg *Config, s *Server, conn *websocket.Conn) error{
		"the client closes": func(_ *Config, _ *Server, conn *websocket.Conn) error { return conn.Close() },
		"the client sends a lot": func(_ *Config, _ *Server, conn *websocket.Conn) error {
			return conn.WriteMessage(websocket.TextMessage, make([]byte, 5000))
		},
		"the client sends a lot, in small messages": flood(websocket.TextMessage),
		"the client sends many pings":               flood(websocket.PingMessage),
		"the client sends many pongs":               flood(websocket.PongMessage),
		"the token is revoked": func(cfg *Config, _ *Server, _ *websocket.Conn) error {
			return cfg.Authenticator.(*auth.Tokens).Set("another-token", auth.User{Name: "x"})
		},
		"the server ends": func(_ *Config, s *Server, _ *websocket.Conn) error { s.Close(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			ended, a := make(chan struct{}), named(t, "a", 0)
			cfg := testConfig(t, sequence(func(ctx context.Context, yield func([]object.Event, error) bool) {
				yield([]object.Event{added(a)}, nil)
				<-ctx.Done()
				close(ended)
			}))
			s := newTestServer(t, cfg)
			conn := mustDial(t, start(t, s, true))
			if _, _, err := conn.ReadMessage(); err != nil {
				t.Fatal(err)
			}
			if err := end(&cfg, s, conn); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the watch goes on", ended)
			if name == "the token is revoked" {
				if got := messages(t, conn); len(got) != 1 || !strings.Contains(got[0], `"code":401`) {
					t.Errorf("got %q", got)
				}
			}
		})
	}
}

// What the client says does not matter, as long as it is short and seldom.
func TestWebSocketsDropWhatClientsSend(t *testing.T) {
	a, sent := named(t, "a", 0), make(chan struct{})
	web := start(t, newTestServer(t, testConfig(t, sequence(func(_ context.Context, yield func([]object.Event, error) bool) {
		<-sent
		yield([]object.Event{added(a)}, nil)
	}))), true)
	conn := mustDial(t, web)
	pong := make(chan struct{})
	conn.SetPongHandler(func(string) error { close(pong); return nil })
	err := errors.Join(conn.WriteMessage(websocket.TextMessage, []byte("hello")), conn.WriteMessage(websocket.PingMessage, nil))
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-pong; close(sent) }()
	if got := messages(t, conn); len(got) != 1 || got[0]+"\n" != line(a) {
		t.Errorf("got %q", got)
	}
}

// A client that does not read is given up.
func TestWebSocketClientsThatDoNotRead(t *testing.T) {
	shortTimeouts(t)
	ended, large := make(chan struct{}), named(t, "a", 1<<20)
	web := start(t, newTestServer(t, testConfig(t, sequence(func(_ context.Context, yield func([]object.Event, error) bool) {
		for yield([]object.Event{added(large)}, nil) {
		}
		close(ended)
	}))), true)
	mustDial(t, web)
	eventually(t, "the watch goes on", ended)
}

// A list does not become a watch by that its client would rather have a WebSocket.
func TestListsOverHTTP(t *testing.T) {
	web := start(t, newTestServer(t, testConfig(t, &fakeResource{list: func(context.Context) (*object.List, []string, error) {
		return &object.List{Type: endpointsType}, nil, nil
	}})), false)
	conn, err := (&tls.Dialer{Config: web.Client().Transport.(*http.Transport).TLSClientConfig}).DialContext(t.Context(), "tcp", web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET "+testPath+" HTTP/1.1\r\nHost: x\r\nX-Auth-Token: "+testToken+"\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n")
	if got, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 OK\r\n") {
		t.Errorf("got %q, %v", got, err)
	}
}

// hungUp is the answer to a client that has hung up before it was told that its WebSocket begins.
type hungUp struct{ *httptest.ResponseRecorder }

func (hungUp) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, client := net.Pipe()
	client.Close()
	return conn, bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn)), nil
}

// A watch whose client has hung up is read to its end: else it would stay in the cache for ever.
func TestWebSocketsOfClientsThatHangUp(t *testing.T) {
	read := false
	s := newTestServer(t, testConfig(t, sequence(func(ctx context.Context, _ func([]object.Event, error) bool) {
		<-ctx.Done()
		read = true
	})))
	req := newRequest(t, http.MethodGet, testPath+"?watch=1", "", "Connection", "Upgrade", "Upgrade", "websocket",
		"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Origin", "http://localhost")
	defer func() {
		if cause := recover(); cause != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
			t.Errorf("the handler ended with %v", cause)
		}
		if !read {
			t.Error("the watch goes on")
		}
	}()
	s.ServeHTTP(hungUp{httptest.NewRecorder()}, req)
}
