package deploy

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/berth-project/berth/test/harness"
)

// built is the server's binary, which all tests share.
var built struct {
	once      sync.Once
	dir, path string
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if built.dir, err = os.MkdirTemp("", "berth-deploy-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(built.dir)
	return m.Run()
}

// buildServer returns the path of the server's binary. It has no race detector.
func buildServer(t *testing.T) string {
	t.Helper()
	built.once.Do(func() { built.path = harness.BuildIn(t, built.dir, false) })
	if built.path == "" {
		t.Fatal("there is no server: it could not be built for another test")
	}
	return built.path
}
