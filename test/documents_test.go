package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/test/harness"
)

const (
	// defaultURL is where the examples find the server that a reader has started.
	defaultURL      = "https://127.0.0.1:6443"
	examplesTimeout = 5 * time.Minute
)

// TestDocuments runs the examples of all documents as a reader would, in a directory that
// has what the examples take from the repository: bin/apiserver and bin/loadtest, as `make run`
// builds them, and the folder examples.
func TestDocuments(t *testing.T) {
	server, loadtest := harness.BuildAsTest(t), buildLoadtest(t)
	for _, document := range documents(t) {
		text := harness.ReadFile(t, filepath.Join(harness.Root(), document))
		sections, err := parseDocument(text)
		if err != nil {
			t.Errorf("%s:%v", document, err)
			continue
		}
		if len(sections) == 0 {
			continue
		}
		t.Run(document, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(filepath.Join(dir, "examples"), os.DirFS(filepath.Join(harness.Root(), "examples"))); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
				t.Fatal(err)
			}
			for name, binary := range map[string]string{"apiserver": server, "loadtest": loadtest} {
				if err := os.Symlink(binary, filepath.Join(dir, "bin", name)); err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(text, "other.kubeconfig") {
				other := harness.Run(t, server)
				harness.WriteFile(t, filepath.Join(dir, "other.kubeconfig"),
					harness.ReadFile(t, filepath.Join(other.Dir, "berth.data", "kubeconfig")))
			}
			for i, s := range sections {
				if !t.Run(strconv.Itoa(i), func(t *testing.T) { s.run(t, document, dir, server) }) {
					return // what follows needs what it has left
				}
			}
		})
	}
}

// documents are the paths of all documents below the top directory.
func documents(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"*.md", "*/*.md", "docs/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(harness.Root(), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			found = append(found, strings.TrimPrefix(file, harness.Root()+"/"))
		}
	}
	if !slices.Contains(found, "README.md") {
		t.Fatalf("there is no README.md among the documents %q", found)
	}
	return found
}

func buildLoadtest(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "loadtest")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, "./cmd/loadtest")
	build.Dir, build.Env = harness.Root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// run starts the section's server in the directory dir and runs its examples one after the
// other in one shell there. Each must succeed, and print the JSON that it expects, except
// uids, times and versions. What an earlier section of the document has exported is set; $pid
// is the server, and apiserver its binary.
func (s section) run(t *testing.T, document, dir, binary string) {
	if s.needsKubectl() {
		if _, err := exec.LookPath("kubectl"); err != nil {
			t.Skipf("%s:%d: %v", document, s.line, err)
		}
	}
	server, out := harness.RunIn(t, dir, binary, s.flags...), t.TempDir()
	script := s.script(filepath.Join(dir, "exported"), out)

	ctx, cancel := context.WithTimeout(t.Context(), examplesTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", strings.ReplaceAll(script, defaultURL, server.URL))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "pid="+strconv.Itoa(server.PID),
		"PATH="+filepath.Dir(binary)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	cmd.WaitDelay = time.Second // for what the shell has left running
	log, failed := cmd.CombinedOutput()
	for i, e := range s.examples {
		got, err := os.ReadFile(filepath.Join(out, strconv.Itoa(i)))
		if err != nil {
			t.Fatalf("%s:%d: %v\n%s", document, s.examples[max(i-1, 0)].line, failed, log)
		}
		if e.want == "" {
			continue
		}
		if diff := cmp.Diff(maskedJSON(t, strings.ReplaceAll(e.want, defaultURL, server.URL)), maskedJSON(t, string(got))); diff != "" {
			t.Errorf("%s:%d (-want +got)\n%s", document, e.line, diff)
		}
	}
	if failed != nil {
		t.Errorf("%s:%d: %v\n%s", document, s.examples[len(s.examples)-1].line, failed, log)
	}
}

// script runs the examples and leaves what each prints in a file of the directory out, named
// by its number. It ends at the first that fails. It keeps exported variables in a file for
// the next section.
func (s section) script(exported, out string) string {
	var script strings.Builder
	fmt.Fprintf(&script, "set -euo pipefail\n[ ! -f '%[1]s' ] || . '%[1]s'\n", exported)
	for i, e := range s.examples {
		accept := ""
		if strings.Contains(e.script, "--fail-if") { // a machine that is busy with other tests may be as slow as that
			accept = " || [ $? = 2 ]"
		}
		fmt.Fprintf(&script, "{\n%s\n} >'%s'%s\n", e.script, filepath.Join(out, strconv.Itoa(i)), accept)
	}
	fmt.Fprintf(&script, "export -n pid\nexport -p >'%s'\n", exported) // the next server has its own
	return script.String()
}

func maskedJSON(t *testing.T, text string) any {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return harness.Mask(value, nil)
}
