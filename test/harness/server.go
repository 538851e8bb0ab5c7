// Package harness is what the tests under test share: the server as a child process, and
// answers made comparable.
package harness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// buildTimeout is enough for a build that finds nothing in the compiler's cache.
	buildTimeout = 10 * time.Minute
	startTimeout = 30 * time.Second
	// stopTimeout is a little more than what the server gives requests under way.
	stopTimeout    = 40 * time.Second
	requestTimeout = 30 * time.Second
)

// Server is a running server and what a client needs to know of it.
type Server struct {
	// URL has neither a path nor a closing slash.
	URL string
	// Dir is the working directory of the server; its data directory there is berth.data.
	// It is empty for a server that Start has not started.
	Dir string
	// Token belongs to a user who may do everything and is not limited.
	Token string
	// Client trusts the server's certificate and bounds each exchange.
	Client *http.Client
}

// Start builds cmd/apiserver, runs it in an empty directory with its defaults, but on any
// free port, and returns when it is ready. When the test ends it stops the server, and the
// test fails if that does not end with status 0.
func Start(t testing.TB) *Server {
	t.Helper()
	dir := t.TempDir()
	var stdout, stderr Output
	cmd := exec.Command(build(t), "--secure-port=0") //nolint:noctx // the cleanup below ends it, and by a signal that lets it finish
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		stop(t, cmd.Process, exited)
		if t.Failed() {
			t.Logf("log of the server:\n%s", stderr.String())
		}
	})

	url := waitReady(t, &stdout, &stderr, exited)
	token, err := os.ReadFile(filepath.Join(dir, "berth.data", "token"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(filepath.Join(dir, "berth.data", "pki", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	return &Server{URL: url, Dir: dir, Token: strings.TrimSpace(string(token)), Client: client}
}

// NewClient returns a client that trusts the certificates in the file caFile, or, where
// that is empty, those that the system trusts.
func NewClient(caFile string) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: there is no certificate in it", caFile)
		}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	return &http.Client{Transport: transport, Timeout: requestTimeout}, nil
}

// build returns the path of a new binary of the server. It is built as the test itself,
// with the race detector or without, so that the compiler's cache serves both.
func build(t testing.TB) string {
	t.Helper()
	root := Root()
	dependOn(t, root)
	binary := filepath.Join(t.TempDir(), "apiserver")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/apiserver")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return binary
}

// Root is the top directory of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// dependOn looks at the sources of the server, so that `go test` takes the result of an
// earlier run for good only if they are the same: of a child's files it knows nothing.
func dependOn(t testing.TB, root string) {
	t.Helper()
	for _, dir := range []string{"go.mod", "cmd", "pkg"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			_, err = os.Stat(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

var readyLine = regexp.MustCompile(`ready at (https://\S+)\n`)

// waitReady returns the address that the server prints when it is ready.
func waitReady(t testing.TB, stdout, stderr *Output, exited chan error) string {
	t.Helper()
	deadline := time.After(startTimeout)
	for {
		written := stdout.written()
		if match := readyLine.FindStringSubmatch(stdout.String()); match != nil {
			return match[1]
		}
		select {
		case <-written:
		case err := <-exited:
			exited <- err
			t.Fatalf("the server ended before it was ready: %v\n%s", err, stderr.String())
		case <-deadline:
			t.Fatalf("the server is not ready after %v; it printed %q", startTimeout, stdout.String())
		}
	}
}

func stop(t testing.TB, process *os.Process, exited chan error) {
	t.Helper()
	// An error says that it has ended already, which the result below tells better.
	_ = process.Signal(syscall.SIGTERM)
	select {
	case err := <-exited:
		if err != nil {
			t.Errorf("the server ended with %v, want status 0", err)
		}
	case <-time.After(stopTimeout):
		_ = process.Kill()
		t.Errorf("the server did not end within %v after SIGTERM, and was killed: %v", stopTimeout, <-exited)
	}
}
