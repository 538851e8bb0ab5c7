package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/test/harness"
)

// patience is far more than anything here takes on a machine under load.
const patience = 30 * time.Second

// eventually waits until condition returns no error.
func eventually(t *testing.T, condition func() error) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

// runningServer is a server in this process.
type runningServer struct {
	config
	url    string
	stdout *harness.Output
	stderr *harness.Output
	stop   context.CancelFunc
	ended  chan struct{} // closed when run has returned err
	err    error
}

// runServer starts a server on any free port and a fresh data directory, waits until it
// is ready, and ends it with the test.
func runServer(t *testing.T, change func(*config)) *runningServer {
	t.Helper()
	before := goleak.IgnoreCurrent()
	s := &runningServer{config: defaultConfig(), stdout: new(harness.Output), stderr: new(harness.Output), ended: make(chan struct{})}
	s.DataDir = datadir.Dir(filepath.Join(t.TempDir(), "data"))
	s.SecurePort = 0
	if change != nil {
		change(&s.config)
	}
	// Not the test's own context: of several servers, each ends in its own cleanup.
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() {
		defer close(s.ended)
		s.err = run(ctx, s.config, nil, s.stdout, s.stderr)
	}()
	t.Cleanup(func() {
		stop()
		<-s.ended
		if s.err != nil {
			t.Errorf("the server ended with %v", s.err)
		}
		// An etcd elsewhere is in this process, too, with goroutines of its own.
		if len(s.EtcdServers) == 0 {
			goleak.VerifyNone(t, before)
		}
	})
	s.url = s.stdout.Await(t, `is ready at (https://\S+)`, s.ended)
	return s
}

// caller trusts the CA that the PEM file holds.
func caller(t *testing.T, caFile string) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(harness.ReadFile(t, caFile))) {
		t.Fatalf("no certificate in %s", caFile)
	}
	client := &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true},
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

const endpointsPath = "/api/v1/namespaces/default/endpoints"

// call returns the status code of one request and the body of its answer.
func call(t *testing.T, client *http.Client, method, url, token, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// expectCode waits until a GET by token is answered with want.
func (s *runningServer) expectCode(t *testing.T, client *http.Client, token string, want int) {
	t.Helper()
	eventually(t, func() error {
		if code, body := call(t, client, "GET", s.url+endpointsPath, token, ""); code != want {
			return fmt.Errorf("got %d, want %d: %s", code, want, body)
		}
		return nil
	})
}

// replace puts a new version of a file in place, as careful editors do.
func replace(t *testing.T, path, text string) {
	t.Helper()
	harness.WriteFile(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// writeSelfSigned makes a certificate for one host, signed by a CA of its own.
func writeSelfSigned(t *testing.T, crt, key, host string) {
	t.Helper()
	dir := madePKI(t, host)
	replace(t, key, harness.ReadFile(t, dir.Key()))
	replace(t, crt, harness.ReadFile(t, dir.Cert())+harness.ReadFile(t, dir.CACert()))
}

// madePKI returns a directory with a certificate for one host and its CA.
func madePKI(t *testing.T, host string) certificates.Dir {
	t.Helper()
	dir := certificates.Dir(t.TempDir())
	if _, err := dir.Ensure([]string{host}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
