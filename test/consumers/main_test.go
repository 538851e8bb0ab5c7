// Package consumers proves that what is registered is found: programs that read from a cluster,
// as their projects release them, read from the server instead. It is a module of its own, so
// that what they need is not the server's dependency.
//
// What takes minutes to build runs only with -args -programs; `make consumers` runs all, and
// prints a table of what was proven.
package consumers

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/berth-project/berth/test/harness"
)

var programs = flag.Bool("programs", false, "also build and run the programs that take minutes to build, and print a table of what was proven")

// binary is the server's, built as the tests are.
var binary string

func TestMain(m *testing.M) {
	if name := os.Getenv(asCandidate); name != "" {
		if err := standForElection(name, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "berth-consumers-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binary, err = harness.BuildAsTestIn(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if *programs {
		proven.print(os.Stdout)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}
