package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/test/harness"
)

const (
	flagsPage = "docs/flags.md"
	// helpTimeout is enough for a build that finds nothing in the compiler's cache.
	helpTimeout = 10 * time.Minute
)

// TestFlagsPage holds the table of flags against --help: every flag in the same
// order, with its environment variable, its default and the same words.
func TestFlagsPage(t *testing.T) {
	want := flagRows(serverHelp(t))
	if len(want) == 0 {
		t.Fatal("there is no flag in the output of --help")
	}
	var got []string
	for line := range strings.Lines(harness.ReadFile(t, filepath.Join(harness.Root(), flagsPage))) {
		if strings.HasPrefix(line, "| `--") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got)\n%s", flagsPage, diff)
	}
}

// serverHelp is what the server prints for --help. The server is built as the test itself,
// with the race detector or without, so that the compiler's cache serves both.
func serverHelp(t *testing.T) string {
	t.Helper()
	args := []string{"run"}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	dependOn(t, "cmd/apiserver/*.go")
	dependOn(t, "cmd/apiserver/internal/*/*.go")
	ctx, cancel := context.WithTimeout(t.Context(), helpTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/apiserver", "--help")...)
	cmd.Dir = harness.Root()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// dependOn looks at the files of a pattern, so that `go test` takes the result of an earlier
// run for good only if they are the same: of a child's files it knows nothing.
func dependOn(t *testing.T, pattern string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(harness.Root(), pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	flagLine    = regexp.MustCompile(`^ +--([a-z-]+)(?: ([a-z]+))? +(\S.*)$`)
	flagDefault = regexp.MustCompile(`^(.*) \(default "?(.*?)"?\)$`)
)

// flagRows are the rows of the table for the flags in a help text, whose descriptions may
// go on over several lines.
func flagRows(help string) []string {
	var rows []string
	lines := strings.Split(help, "\n")
	for i := 0; i < len(lines); i++ {
		match := flagLine.FindStringSubmatch(lines[i])
		if match == nil {
			continue
		}
		name, kind, text := match[1], match[2], match[3]
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "          ") {
			i++
			text += " " + strings.TrimSpace(lines[i])
		}
		// What --help leaves out is the zero of the flag's type.
		byDefault := ""
		switch kind {
		case "string", "strings":
		case "": // a switch
			byDefault = "false"
		default:
			byDefault = "0"
		}
		if match := flagDefault.FindStringSubmatch(text); match != nil {
			text, byDefault = match[1], match[2]
		}
		if byDefault != "" {
			byDefault = "`" + byDefault + "`"
		}
		env := "BERTH_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		rows = append(rows, fmt.Sprintf("| `--%s` | `%s` | %s | %s |", name, env, byDefault, text))
	}
	return rows
}

func TestFlagRows(t *testing.T) {
	const help = `Usage:
  apiserver [flags]

Storage:
      --data-dir string   Directory of everything; made
                          where it does not exist (default "./berth.data")
      --etcd-servers strings   Addresses

Serving:
      --secure-port int   Port (default 6443)
      --http-port int     Port; 0 is none
      --proxy-protocol    Require a header

Other:
  -h, --help      Print this text
`
	want := []string{
		"| `--data-dir` | `BERTH_DATA_DIR` | `./berth.data` | Directory of everything; made where it does not exist |",
		"| `--etcd-servers` | `BERTH_ETCD_SERVERS` |  | Addresses |",
		"| `--secure-port` | `BERTH_SECURE_PORT` | `6443` | Port |",
		"| `--http-port` | `BERTH_HTTP_PORT` | `0` | Port; 0 is none |",
		"| `--proxy-protocol` | `BERTH_PROXY_PROTOCOL` | `false` | Require a header |",
	}
	if diff := cmp.Diff(want, flagRows(help)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
