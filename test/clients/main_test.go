// Package clients holds the server to what its clients expect: kubectl, client-go and
// controller-runtime run against it unmodified. It is a module of its own, so that their
// dependencies are not the server's.
//
// One server, a child process, serves all tests; each test makes a namespace of its own.
// Tests that stop the server start one for themselves.
package clients

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/component-base/cli"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"
	"k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// asKubectl is the environment variable that makes the test binary be kubectl.
	asKubectl = "BERTH_TEST_AS_KUBECTL"
	// otherKubectl is the environment variable with the path of a kubectl of another release,
	// which the tests then run instead.
	otherKubectl = "BERTH_TEST_KUBECTL"
	// buildTimeout is enough for a build that finds nothing in the compiler's cache.
	buildTimeout = 10 * time.Minute
)

var (
	binary string  // of the server
	shared *server // that all tests use who leave it running
)

func TestMain(m *testing.M) {
	if os.Getenv(asKubectl) != "" {
		kubectlMain()
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// kubectlMain is the whole of kubectl's own main function. It exits where kubectl does.
func kubectlMain() {
	// A kubectl that was not released has no version that it could compare with a server's.
	cmdutil.CheckErr(version.SetDynamicVersion("v0.0.0-master"))
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		cmdutil.CheckErr(err)
	}
}

// kubectlPath returns the kubectl that the tests run.
func kubectlPath() (string, error) {
	if path := os.Getenv(otherKubectl); path != "" {
		return path, nil
	}
	return os.Executable()
}

// run runs the tests beside a server, and returns their exit code.
func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "berth-clients-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if binary, err = buildServer(dir); err != nil {
		return 0, err
	}
	shared = newServer(filepath.Join(dir, "data"))
	if err := shared.start(); err != nil {
		return 0, err
	}
	log.SetLogger(klog.Background())
	code = m.Run()
	if err := shared.stop(); err != nil {
		return 0, fmt.Errorf("%w; its log:\n%s", err, shared.log.String())
	}
	return code, nil
}

// buildServer builds the server like the tests themselves, with the race detector or
// without.
func buildServer(dir string) (string, error) {
	path := filepath.Join(dir, "apiserver")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	build := exec.CommandContext(ctx, "go", append(args, "./cmd/apiserver")...)
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	return path, nil
}
