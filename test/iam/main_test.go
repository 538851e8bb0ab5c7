// Package iam holds the token service to what its clients expect: gophercloud and the openstack
// command run against it unmodified. It is a module of its own, so that their dependencies are not
// the server's.
package iam

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	buildTimeout = 10 * time.Minute
	startTimeout = 30 * time.Second
	stopTimeout  = 40 * time.Second

	// config has the users of the conformance cases.
	config = "../conformance/iam/iam.yaml"
)

// shared is the server of all tests.
var shared struct {
	url, caFile string
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "berth-iam-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	stop, err := start(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// output is what a process prints, which may be read meanwhile.
type output struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data.String()
}

var readyLine = regexp.MustCompile(`ready at (https://\S+)\n`)

// start builds the server and runs it in the directory until stop is called.
func start(dir string) (stop func() error, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	binary := filepath.Join(dir, "apiserver")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./cmd/apiserver")
	build.Dir, build.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	data, limits := filepath.Join(dir, "data"), filepath.Join(dir, "limits.yaml")
	if err := os.WriteFile(limits, []byte("apiVersion: berth/v1alpha1\nkind: RateLimitConfiguration\nanonymous: {qps: 50, burst: 100}\n"), 0o600); err != nil {
		return nil, err
	}
	var stdout, stderr output
	cmd := exec.Command(binary, "--secure-port=0", "--data-dir="+data, "--authorization-mode=AlwaysAllow", "--iam-config="+config, "--rate-limit-config="+limits)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	stop = func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case err := <-exited:
			return err
		case <-time.After(stopTimeout):
			_ = cmd.Process.Kill()
			return fmt.Errorf("the server did not end: %w", <-exited)
		}
	}
	deadline := time.After(startTimeout)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if match := readyLine.FindStringSubmatch(stdout.String()); match != nil {
			shared.url, shared.caFile = match[1], filepath.Join(data, "pki", "ca.crt")
			return stop, nil
		}
		select {
		case <-tick.C:
		case err := <-exited:
			return nil, fmt.Errorf("the server ended before it was ready: %w\n%s", err, stderr.String())
		case <-deadline:
			_ = cmd.Process.Kill()
			return nil, fmt.Errorf("the server is not ready: %w\n%s", <-exited, stderr.String())
		}
	}
}

// httpClient trusts the server's certificate.
func httpClient(t *testing.T) http.Client {
	t.Helper()
	pem, err := os.ReadFile(shared.caFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return http.Client{Transport: transport, Timeout: 30 * time.Second}
}
