// Package monitoring holds the server's metrics to what evaluates them: Prometheus' own engine
// runs every query of the rules and the dashboard under deploy/ on two scrapes of a server that
// was busy in between. It is a module of its own, so that Prometheus is not the server's
// dependency.
package monitoring

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// buildTimeout is enough for a build that finds nothing in the compiler's cache.
	buildTimeout   = 10 * time.Minute
	requestTimeout = 30 * time.Second

	adminToken = "a-token-of-the-administrator"
	slowToken  = "a-token-that-may-do-little"
	limits     = `{"apiVersion":"berth/v1alpha1","kind":"RateLimitConfiguration","overrides":[{"users":["slow"],"read":{"qps":0.001,"burst":1}}]}`
)

var root = filepath.Join("..", "..")

// server is a running server.
type server struct {
	url    string
	client *http.Client
	dir    string // that has berth.data
}

var readyLine = regexp.MustCompile(`ready at (https://\S+)`)

// start builds the server, as the test itself with the race detector or without, and runs it
// until the test ends.
func start(t *testing.T) *server {
	t.Helper()
	dir := t.TempDir()
	tokens, config := filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "limits.yaml")
	write(t, tokens, adminToken+",admin,1,system:masters\n"+slowToken+",slow,2\n")
	write(t, config, limits)
	cmd := exec.Command(build(t, dir), "--data-dir="+filepath.Join(dir, "berth.data"), "--secure-port=0", "--log-level=warn",
		"--token-auth-file="+tokens, "--authorization-mode=AlwaysAllow", "--rate-limit-config="+config,
		"--audit-policy=metadata", "--audit-log-path="+filepath.Join(dir, "audit.log")) // the test's end ends it
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
		if t.Failed() {
			t.Logf("its log:\n%s", log.String())
		}
	})
	s := &server{dir: dir}
	for lines := bufio.NewScanner(stdout); s.url == ""; {
		if !lines.Scan() {
			t.Fatal("the server did not become ready")
		}
		if match := readyLine.FindStringSubmatch(lines.Text()); match != nil {
			s.url = match[1]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }() // until the server ends
	ca, err := os.ReadFile(filepath.Join(dir, "berth.data", "pki", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	s.client = &http.Client{Transport: transport, Timeout: requestTimeout}
	return s
}

func build(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "apiserver")
	args := []string{"build", "-o", path}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/apiserver")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// do sends a request and returns the answer, whose code must be the given one, unless that is 0.
func (s *server) do(t *testing.T, token string, code int, method, path, contentType, body string) string {
	t.Helper()
	return read(t, s.begin(t, token, code, method, path, contentType, body)) //nolint:bodyclose // read closes it
}

// begin sends a request, and returns once the answer has begun.
func (s *server) begin(t *testing.T, token string, code int, method, path, contentType, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", contentType)
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 && resp.StatusCode != code {
		t.Fatalf("%s %s: %d %s, want %d", method, path, resp.StatusCode, read(t, resp), code)
	}
	return resp
}

func read(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// load sends requests of every sort.
func (s *server) load(t *testing.T) {
	t.Helper()
	const endpoints, leases = "/api/v1/namespaces/default/endpoints", "/apis/coordination.k8s.io/v1/namespaces/default/leases"
	const json = "application/json"
	admin := func(code int, method, path, contentType, body string) {
		t.Helper()
		s.do(t, adminToken, code, method, path, contentType, body)
	}
	watch := s.begin(t, adminToken, 200, http.MethodGet, endpoints+"?watch=1&timeoutSeconds=5", json, "") //nolint:bodyclose // read closes it
	for i := range 20 {
		name := fmt.Sprintf("a-%d", i)
		object := `{"metadata":{"name":"` + name + `"}}`
		admin(201, http.MethodPost, endpoints, json, object)
		admin(201, http.MethodPost, endpoints+"?dryRun=All", json, `{"metadata":{"name":"dry"}}`)
		admin(201, http.MethodPost, leases, json, object)
		admin(200, http.MethodGet, endpoints+"/"+name, json, "")
		admin(200, http.MethodPut, endpoints+"/"+name, json, object)
		admin(200, http.MethodPatch, endpoints+"/"+name, "application/merge-patch+json", `{"metadata":{"labels":{"a":"b"}}}`)
		admin(200, http.MethodPatch, endpoints+"/"+name+"?fieldManager=test", "application/apply-patch+yaml", `{"apiVersion":"v1","kind":"Endpoints"}`)
		for _, path := range []string{endpoints, "/api/v1/endpoints", leases, "/api/v1/namespaces", "/readyz"} {
			admin(200, http.MethodGet, path, json, "")
		}
		admin(200, http.MethodDelete, leases+"/"+name, json, "")
	}
	admin(404, http.MethodGet, endpoints+"/missing", json, "")
	admin(200, http.MethodGet, endpoints+"?watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", json, "")
	admin(200, http.MethodDelete, endpoints, json, "")
	read(t, watch)
	s.do(t, "no-token-of-anybody", 401, http.MethodGet, endpoints, json, "")
	s.do(t, slowToken, 0, http.MethodGet, endpoints, json, "")
	s.do(t, slowToken, 429, http.MethodGet, endpoints, json, "")
}
