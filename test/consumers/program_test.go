package consumers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/berth-project/berth/test/harness"
)

// programTimeout is enough to download and build a program that nothing is cached of.
const programTimeout = 20 * time.Minute

// program is a program that is built from its Go module, with the versions of its own go.mod: in
// a module that requires others as well they would not be those that its project has released.
type program struct {
	name    string
	module  string // with the main package, or with what source imports
	version string
	main    string // the path of the main package; empty if there is a source
	source  string // of a main package; empty if the module has one
	tags    string // build tags
}

// build returns the program's binary below bin, where it stays for the next run. The test is skipped
// without -programs.
func (p program) build(t *testing.T) string {
	t.Helper()
	if !*programs {
		t.Skipf("building %s takes minutes: run `make consumers`, or go test with -args -programs", p.name)
	}
	path := filepath.Join(harness.Root(), "bin", "consumers", p.name+"-"+p.version)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), programTimeout)
	defer cancel()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %s: %v\n%s", p.name, cmd, err, out)
		}
	}
	target := p.main
	if p.source != "" {
		target = "."
		harness.WriteFile(t, filepath.Join(dir, "main.go"), p.source)
	}
	run("mod", "init", p.name)
	run("get", p.module+"@"+p.version)
	// The name appears when the binary is complete.
	run("build", "-trimpath", "-tags", p.tags, "-o", path+".part", target)
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a binary in a directory of its own until the test ends, and returns what it prints.
func start(t *testing.T, binary string, args ...string) (out *harness.Output, pid int) {
	t.Helper()
	out = &harness.Output{}
	cmd := exec.Command(binary, args...) // the cleanup below ends it
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
		late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // however it ends
		late.Stop()
		if t.Failed() {
			text := out.String()
			t.Logf("end of what %s printed:\n%s", filepath.Base(binary), text[max(0, len(text)-16<<10):])
		}
	})
	return out, cmd.Process.Pid
}

var clientGoLine = regexp.MustCompile(`k8s.io/client-go (\S+)`)

// clientGoVersion is that of this module.
func clientGoVersion(t *testing.T) string {
	t.Helper()
	match := clientGoLine.FindStringSubmatch(harness.ReadFile(t, "go.mod"))
	if match == nil {
		t.Fatal("go.mod has no client-go")
	}
	return match[1]
}

// results are the rows of the table that `make consumers` prints.
type results struct {
	mu   sync.Mutex
	rows []string
}

var proven results

// add adds what was proven of a program; seen are times from a write to when the program shows it.
func (r *results) add(program, version, what string, seen []time.Duration) {
	p50, longest := "", ""
	if len(seen) > 0 {
		sorted := slices.Sorted(slices.Values(seen))
		p50 = fmt.Sprint(sorted[len(sorted)/2].Round(time.Millisecond))
		longest = fmt.Sprint(sorted[len(sorted)-1].Round(time.Millisecond))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\n", program, version, what, p50, longest))
}

func (r *results) print(w io.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "program\tversion\tproven\tseen, p50\tmax\n")
	for _, row := range r.rows {
		fmt.Fprint(table, row)
	}
	_ = table.Flush() // a buffer never fails
	_, _ = text.WriteTo(w)
}
