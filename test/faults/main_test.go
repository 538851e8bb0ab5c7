// Package faults runs real servers on real etcd members, makes them fail in every way that it knows
// while clients write, read and watch, and then holds what the clients saw against what etcd has:
// histories are linearizable (by porcupine, per key), what was acknowledged is there, watches keep
// the properties of package history, and every error is a documented one. It is a module of its own,
// so that what it needs is not the server's dependency.
package faults

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berth-project/berth/test/harness"
)

var (
	seed   = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the choice of faults and of what clients do")
	faults = flag.Int("faults", 0, "number of faults, of which a fifth are of an embedded etcd; 0 means one of each kind that is quick")
	clocks = flag.Bool("clocks", false, "build servers and etcd with a clock that faults can shift")
	again  = flag.Bool("again", false, "also run again what has failed once")
	only   = flag.String("kinds", "", "comma-separated kinds of faults; empty means all")
)

// buildTimeout is enough for a build that finds nothing in the compiler's cache.
const buildTimeout = 15 * time.Minute

var serverBinary, etcdBinary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "berth-faults-")
	if err == nil {
		defer os.RemoveAll(dir)
		if *clocks {
			err = overlayClock(dir)
		}
	}
	if err == nil {
		serverBinary, err = harness.BuildAsTestIn(dir)
	}
	if err == nil {
		etcdBinary, err = buildEtcd()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// buildEtcd builds etcd, which go.mod has as a tool, of the version that the server embeds. The
// binary stays for the next run.
func buildEtcd() (string, error) {
	path := filepath.Join(harness.Root(), "bin", "etcd")
	if *clocks {
		path += "-with-clock"
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "go.etcd.io/etcd/server/v3")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return path, nil
}
