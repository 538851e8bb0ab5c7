package deploy

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/test/harness"
)

// proxy is a program that deploy has a configuration for.
type proxy struct {
	program string
	// flags are those of the servers behind it.
	flags []string
	// configure writes the configuration in a directory, with the places of this test, and
	// returns the arguments of the program.
	configure func(t *testing.T, dir string, at places) []string
	// endsTLS reports whether the proxy ends the clients' TLS, and verifies the servers. One
	// that does not asks the servers whether they are ready.
	endsTLS bool
}

// places are what a test changes in a configuration.
type places struct {
	listen  string // the address for the clients
	servers [2]*replica
	ca      string           // the file of the CA that the servers are verified by
	front   certificates.Dir // the proxy's own certificate, if it ends TLS
}

var proxies = []proxy{
	{
		program: "nginx", configure: configureNginx, endsTLS: true,
		flags: []string{"--trusted-proxies=127.0.0.1/32"},
	},
	{
		program: "haproxy", configure: configureHAProxy,
		flags: []string{"--trusted-proxies=127.0.0.1/32", "--proxy-protocol"},
	},
}

// configureNginx puts the server's block into the least of a configuration around it.
func configureNginx(t *testing.T, dir string, at places) []string {
	t.Helper()
	substitute(t, "nginx/berth.conf", filepath.Join(dir, "berth.conf"),
		"listen 6443 ", "listen "+at.listen+" ",
		"10.0.0.11:6443", at.servers[0].address,
		"10.0.0.12:6443", at.servers[1].address,
		"/etc/nginx/berth-ca.crt", at.ca,
		"/etc/nginx/berth.crt", at.front.Cert(),
		"/etc/nginx/berth.key", at.front.Key())
	main := "daemon off;\npid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		main += kind + "_temp_path " + kind + ";\n"
	}
	harness.WriteFile(t, filepath.Join(dir, "nginx.conf"), main+"include berth.conf;\n}\n")
	return []string{"-p", dir, "-e", "stderr", "-c", "nginx.conf"}
}

func configureHAProxy(t *testing.T, dir string, at places) []string {
	t.Helper()
	path := filepath.Join(dir, "haproxy.cfg")
	substitute(t, "haproxy/haproxy.cfg", path,
		"bind :6443", "bind "+at.listen,
		"10.0.0.11:6443", at.servers[0].address,
		"10.0.0.12:6443", at.servers[1].address,
		"/etc/haproxy/berth-ca.crt", at.ca,
		// Who runs the test may be nobody who could become another user.
		"    user haproxy\n    group haproxy\n", "")
	return []string{"-db", "-f", path}
}

// substitute copies a file of deploy with other words, each of which must be there.
func substitute(t *testing.T, from, to string, pairs ...string) {
	t.Helper()
	text := harness.ReadFile(t, filepath.Join(harness.Root(), "deploy", from))
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("deploy/%s has no %q", from, pairs[i])
		}
	}
	harness.WriteFile(t, to, strings.NewReplacer(pairs...).Replace(text))
}

func (p proxy) test(t *testing.T, binary string) {
	program, err := exec.LookPath(p.program)
	if err != nil {
		t.Skipf("%s is not installed", p.program)
	}
	servers := startReplicas(t, binary, p.flags...)
	front := certificates.Dir(t.TempDir())
	if _, err := front.Ensure([]string{hostname}, time.Now()); err != nil {
		t.Fatal(err)
	}
	ca := servers[0].pki.CACert()
	startProxy := func(ca string) (listen string) {
		listen = freeAddress(t)
		awaitPort(t, listen, start(t, program, p.configure(t, t.TempDir(), places{listen, servers, ca, front})...))
		return listen
	}
	listen := startProxy(ca)
	if p.endsTLS {
		t.Run("servers of another CA", func(t *testing.T) {
			newClient(t, startProxy(front.CACert()), front.CACert()).call(t, http.MethodGet, "", "", http.StatusBadGateway)
		})
		ca = front.CACert()
	}
	c := newClient(t, listen, ca)
	t.Run("a watch hears of a create at once", func(t *testing.T) {
		stream, socket := c.watch(t), c.watchSocket(t)
		c.create(t, "small", 1)
		stream.expect(t, "small")
		socket.expect(t, "small")
	})
	t.Run("large bodies", func(t *testing.T) { testLargeBodies(t, c) })
	if !p.endsTLS {
		for _, server := range servers {
			server.stderr.Await(t, `"path":"/readyz","code":200`, server.ended)
		}
	}
	t.Run("one server has stopped", func(t *testing.T) {
		servers[0].stop(t)
		// A new client as well as one that had a connection to that server.
		for i, c := range []*client{c, newClient(t, listen, ca)} {
			events := c.watch(t)
			name := fmt.Sprintf("after-the-stop-%d", i)
			c.create(t, name, 1)
			events.expect(t, name)
			c.get(t, "small")
		}
	})
	t.Run("the client's address", func(t *testing.T) {
		resp := c.do(t, http.MethodGet, "/small", "")
		resp.Body.Close()
		servers[1].stderr.Await(t, `"client":"`+clientAddress+`","userAgent":"[^"]*","auditID":"`+resp.Header.Get("Audit-Id"), servers[1].ended)
	})
}

// testLargeBodies sends and fetches an object of 2 MB, and one that is refused.
func testLargeBodies(t *testing.T, c *client) {
	const addresses = 110_000
	c.create(t, "large", addresses)
	plain := c.get(t, "large")
	if len(plain) < 2_000_000 {
		t.Errorf("the object has %d bytes", len(plain))
	}
	resp := c.do(t, http.MethodGet, "/large", "", "Accept-Encoding", "gzip")
	defer resp.Body.Close()
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "gzip" {
		t.Fatalf("Content-Encoding %q, want gzip", encoding)
	}
	unzipped, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(unzipped); err != nil || string(got) != string(plain) {
		t.Errorf("the compressed answer differs from the plain one (%v)", err)
	}
	var status metav1.Status
	answer := c.call(t, http.MethodPost, "", strings.Repeat(" ", 4<<20), http.StatusRequestEntityTooLarge)
	if err := json.Unmarshal(answer, &status); err != nil || status.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too large was not refused by the server: %v, %.300s", err, answer)
	}
}

// freeAddress returns an address whose port was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// awaitPort waits until a process accepts connections.
func awaitPort(t *testing.T, address string, p *process) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-tick.C:
		case <-p.ended:
			t.Fatalf("the proxy has ended: %v", p.err)
		case <-deadline:
			t.Fatal(err)
		}
	}
}
