package server

import (
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A client that sends request after request and reads no answer is given up, however small
// the answers are.
func TestClientsThatReadNoAnswer(t *testing.T) {
	shortTimeouts(t)
	web := httptest.NewServer(newTestServer(t, testConfig(t, &fakeResource{})))
	defer web.Close()
	for name, request := range map[string]string{
		"without a token": "GET " + testPath + " HTTP/1.1\r\nHost: test\r\n\r\n",
		"without a body":  "HEAD /livez HTTP/1.1\r\nHost: test\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", web.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetWriteDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			many := strings.Repeat(request, 1000)
			for err == nil {
				_, err = io.WriteString(conn, many)
			}
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // what a net.Conn returns
				t.Errorf("the connection is still there: %v", err)
			}
		})
	}
}
