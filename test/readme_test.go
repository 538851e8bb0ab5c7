package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// example is a shell block of a document and, where one follows it, the JSON that it
// prints.
type example struct {
	Line   int // of the opening fence, from 1
	Script string
	Want   string // empty: what it prints is not looked at
}

// TestReadme runs the README's examples as a reader would.
func TestReadme(t *testing.T) {
	server := harness.Start(t)
	runExamples(t, "README.md", server.URL, server.Dir)
}

// TestLoadtestPage runs the examples of the load generator's page, with a second server where
// the page has one.
func TestLoadtestPage(t *testing.T) {
	server, other := harness.Start(t), harness.Start(t)
	harness.WriteFile(t, filepath.Join(server.Dir, "other.kubeconfig"),
		harness.ReadFile(t, filepath.Join(other.Dir, "berth.data", "kubeconfig")))
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(server.Dir, "bin", "loadtest"), "./cmd/loadtest")
	build.Dir, build.Env = harness.Root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	runExamples(t, "docs/loadtest.md", server.URL, server.Dir)
}

// TestOperationsPage runs the examples of the page about operations, which know the server as
// $pid and its binary as apiserver.
func TestOperationsPage(t *testing.T) {
	binary := harness.Build(t, false)
	server := harness.Run(t, binary)
	t.Setenv("PATH", filepath.Dir(binary)+":"+os.Getenv("PATH"))
	t.Setenv("pid", strconv.Itoa(server.PID))
	runExamples(t, "docs/operations.md", server.URL, server.Dir)
}

// runExamples runs the examples of a document one after the other, in one shell, in the
// directory where the server was started. A block fenced as "sh test" must succeed, and print
// the JSON of the block fenced as "json expect" that follows it, but for uids, times and
// versions.
func runExamples(t *testing.T, document, url, dir string) {
	t.Helper()
	examples, err := parseExamples(harness.ReadFile(t, filepath.Join(harness.Root(), document)))
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	script := shellScript(examples, out)

	ctx, cancel := context.WithTimeout(t.Context(), examplesTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", strings.ReplaceAll(script, defaultURL, url))
	cmd.Dir = dir
	cmd.WaitDelay = time.Second // for what the shell has left running
	log, failed := cmd.CombinedOutput()
	for i, e := range examples {
		got, err := os.ReadFile(filepath.Join(out, strconv.Itoa(i)))
		if err != nil {
			t.Fatalf("%s:%d: %v\n%s", document, examples[i-1].Line, failed, log)
		}
		if e.Want == "" {
			continue
		}
		if diff := cmp.Diff(maskedJSON(t, strings.ReplaceAll(e.Want, defaultURL, url)), maskedJSON(t, string(got))); diff != "" {
			t.Errorf("%s:%d (-want +got)\n%s", document, e.Line, diff)
		}
	}
	if failed != nil {
		t.Errorf("%s:%d: %v\n%s", document, examples[len(examples)-1].Line, failed, log)
	}
}

// shellScript runs the examples and leaves what each prints in a file of the directory
// out, named by its number. It ends at the first that fails.
func shellScript(examples []example, out string) string {
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	for i, e := range examples {
		fmt.Fprintf(&script, "{\n%s\n} >'%s'\n", e.Script, filepath.Join(out, strconv.Itoa(i)))
	}
	return script.String()
}

// parseExamples returns the examples of a Markdown text in their order. It fails where
// there are none, and on an answer that no example precedes.
func parseExamples(text string) ([]example, error) {
	var examples []example
	var block []string
	fence, start, inside := "", 0, false
	for i, line := range strings.Split(text, "\n") {
		info, isFence := strings.CutPrefix(line, "```")
		switch {
		case !inside && isFence:
			fence, start, inside, block = strings.TrimSpace(info), i+1, true, nil
		case inside && !isFence:
			block = append(block, line)
		case inside:
			inside = false
			content := strings.Join(block, "\n")
			switch fence {
			case "sh test":
				examples = append(examples, example{Line: start, Script: content})
			case "json expect":
				if len(examples) == 0 || examples[len(examples)-1].Want != "" {
					return nil, fmt.Errorf("line %d: an answer without an example", start)
				}
				examples[len(examples)-1].Want = content
			}
		}
	}
	if len(examples) == 0 {
		return nil, fmt.Errorf("there is no block fenced as \"sh test\"")
	}
	return examples, nil
}

func TestParseExamples(t *testing.T) {
	const text = "# Title\n```\nplain\n```\n\n```sh test\ncurl a\ncurl b\n```\nIt answers:\n\n```json expect\n{\"a\":\n1}\n```\n```sh\nnot run\n```\n```sh test\ntrue\n```\n"
	want := []example{
		{Line: 6, Script: "curl a\ncurl b", Want: "{\"a\":\n1}"},
		{Line: 19, Script: "true"},
	}
	got, err := parseExamples(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, faulty := range []string{"# Title\n", "```json expect\n{}\n```\n```sh test\ntrue\n```\n"} {
		if _, err := parseExamples(faulty); err == nil {
			t.Errorf("parseExamples(%q): no error", faulty)
		}
	}
}

func maskedJSON(t *testing.T, text string) any {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return harness.Mask(value, nil)
}
