package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dialFrom connects to the server from a local address, and leaves the connection open
// until the test ends.
func (p *process) dialFrom(t *testing.T, from string) net.Conn {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(p.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// callerFrom is caller from a local address.
func callerFrom(t *testing.T, caFile, from string) *http.Client {
	t.Helper()
	client := caller(t, caFile)
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, address)
	}
	return client
}

// createAndList fails the test unless a client from an address is served.
func (p *process) createAndList(t *testing.T, from, name string) {
	t.Helper()
	client := callerFrom(t, p.dir.PKI().CACert(), from)
	body := strings.ReplaceAll(exampleBody, "test-endpoint", name)
	if code, answer := call(t, client, "POST", p.url+endpointsPath, p.token(t), body); code != http.StatusCreated {
		t.Errorf("a create from %s: got %d: %s", from, code, answer)
	}
	if code, answer := call(t, client, "GET", p.url+endpointsPath, p.token(t), ""); code != http.StatusOK || !strings.Contains(answer, name) {
		t.Errorf("a list from %s: got %d: %s", from, code, answer)
	}
}

// A server whose limit of open files is met by the connections of others goes on to serve
// everybody else, and outlives them.
func TestProcessOutlivesConnections(t *testing.T) {
	const openFiles = 256
	for name, open := range map[string]func(net.Conn) error{
		"silent": func(net.Conn) error { return nil },
		"in a handshake": func(c net.Conn) error {
			_, err := c.Write(clientHello(t)[:100])
			return err
		},
		"in a request": func(c net.Conn) error {
			secured := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			if err := secured.HandshakeContext(t.Context()); err != nil {
				return err
			}
			_, err := io.WriteString(secured, "GET /api HTTP/1.1\r\nHost: ")
			return err
		},
	} {
		for _, addresses := range []int{1, 3, 20} {
			t.Run(fmt.Sprintf("%s from %d", name, addresses), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "data")
				executable, err := os.Executable()
				if err != nil {
					t.Fatal(err)
				}
				p := startCommand(t, dir, exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, openFiles),
					"sh", executable, "--data-dir="+dir, "--secure-port=0"))
				p.awaitReady(t)
				for i := range openFiles + 100 {
					// Most of them are closed at once, which may be while they are opened.
					_ = open(p.dialFrom(t, fmt.Sprintf("127.0.1.%d", 1+i%addresses)))
				}
				p.createAndList(t, "127.0.0.2", "during")
				p.createAndList(t, "127.0.0.3", "as-well")
				if !strings.Contains(p.stderr.String(), "a connection: too many are open") && !strings.Contains(p.stderr.String(), "an idle connection: too many are open") {
					t.Errorf("nothing in the log about it:\n%s", p.stderr)
				}
				select {
				case <-p.ended:
					t.Errorf("the server ended:\n%s", p.stderr)
				default:
				}
			})
		}
	}
}

// clientHello is the first message of a TLS handshake.
func clientHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		_ = tls.Client(ours, &tls.Config{ServerName: "berth"}).HandshakeContext(context.Background()) // fails when theirs is closed
	}()
	header := make([]byte, 5)
	if _, err := io.ReadFull(theirs, header); err != nil {
		t.Fatal(err)
	}
	hello := make([]byte, int(header[3])<<8|int(header[4]))
	if _, err := io.ReadFull(theirs, hello); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return slices.Concat(header, hello)
}
