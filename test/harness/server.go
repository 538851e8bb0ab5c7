// Package harness is what the tests under test share: the server as a child process, and
// answers made comparable.
package harness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

const (
	// buildTimeout is enough for a build that finds nothing in the compiler's cache.
	buildTimeout   = 10 * time.Minute
	requestTimeout = 30 * time.Second

	// logFile is in the server's working directory.
	logFile = "log"
	// shownLog is how many bytes of the log a failed test shows.
	shownLog = 64 << 10
)

// Server is a running server and what a client needs to know of it.
type Server struct {
	// URL has neither a path nor a closing slash.
	URL string
	// Dir is the working directory of the server; its data directory there is berth.data.
	// It is empty for a server that Start has not started.
	Dir string
	// PID is the server's process; 0 for a server that Start has not started.
	PID int
	// Token belongs to a user who may do everything and is not limited; empty if a flag
	// names a file of tokens.
	Token string
	// Client trusts the server's certificate and bounds each exchange.
	Client *http.Client

	process *process // nil for a server that Start has not started
}

// Start builds cmd/apiserver as the test itself, with the race detector or without, and runs
// it as Run does.
func Start(t testing.TB) *Server {
	t.Helper()
	return Run(t, BuildAsTest(t))
}

// BuildAsTest builds cmd/apiserver as Build does, with the race detector if the test has it.
func BuildAsTest(t testing.TB) string {
	t.Helper()
	return Build(t, raceEnabled)
}

// Run runs the binary of a server as RunIn does, in an empty directory.
func Run(t testing.TB, binary string, flags ...string) *Server {
	t.Helper()
	return RunIn(t, t.TempDir(), binary, flags...)
}

// RunIn runs the binary of a server in a directory with its defaults, except for the flags
// and for the port, which is any free one, and returns when it is ready. When the test ends
// it stops the server, and the test fails if that does not end with status 0.
func RunIn(t testing.TB, dir, binary string, flags ...string) *Server {
	t.Helper()
	p, url := startProcess(t, dir, binary, append([]string{"--secure-port=0"}, flags...))
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", endOfLog(t, dir))
		}
	})
	client, err := NewClient(filepath.Join(dir, "berth.data", "pki", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	// It is absent if a flag names a file of tokens.
	token, err := os.ReadFile(filepath.Join(dir, "berth.data", "token"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return &Server{URL: url, Dir: dir, PID: p.cmd.Process.Pid, Token: strings.TrimSpace(string(token)), Client: client, process: p}
}

// endOfLog returns the last lines that the server in the directory has logged.
func endOfLog(t testing.TB, dir string) string {
	t.Helper()
	log := ReadFile(t, filepath.Join(dir, logFile))
	return log[max(0, len(log)-shownLog):]
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

// Build builds cmd/apiserver and returns the binary's path, which lives as long as the test.
// Without the race detector it is the binary of `make build`, whose packages the compiler's
// cache has.
func Build(t testing.TB, race bool) string {
	t.Helper()
	return BuildIn(t, t.TempDir(), race)
}

// BuildIn does as Build does in a directory, with which the binary lives.
func BuildIn(t testing.TB, dir string, race bool) string {
	t.Helper()
	dependOn(t, Root())
	binary, err := buildIn(dir, race)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// BuildAsTestIn builds cmd/apiserver in a directory as BuildAsTest does, for a TestMain, whose
// package is tested with -count=1.
func BuildAsTestIn(dir string) (binary string, err error) { return buildIn(dir, raceEnabled) }

func buildIn(dir string, race bool) (binary string, err error) {
	binary = filepath.Join(dir, "apiserver")
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./cmd/apiserver")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if race {
		cmd = exec.CommandContext(ctx, "go", "build", "-race", "-o", binary, "./cmd/apiserver")
	}
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return binary, nil
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
