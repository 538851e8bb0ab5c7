package test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// section is the examples of a document that use one server.
type section struct {
	line     int      // of the block that starts the server, from 1; 0 for a server with its defaults
	flags    []string // of the server
	examples []example
}

// example is a shell block of a document and, where one follows it, the JSON that it
// prints.
type example struct {
	line   int // of the opening fence, from 1
	script string
	want   string // empty: what it prints is not looked at
}

func (s section) needsKubectl() bool {
	return slices.ContainsFunc(s.examples, func(e example) bool { return strings.Contains(e.script, "kubectl ") })
}

// makeRun is how a block starts a server.
var makeRun = regexp.MustCompile(`^make run(?: ARGS=(?:'([^']*)'|(\S+)))?$`)

// parseDocument returns the sections of a Markdown text that have examples. What follows the
// language of a shell block says what becomes of it:
//
//	sh test         it is run
//	sh server       it is `make run`: the next examples have this server
//	sh skip REASON  it is not run
//	json expect     what the example before it prints
//
// A shell block without a mark is an error.
func parseDocument(text string) ([]section, error) {
	sections := []section{{}}
	for _, b := range blocks(text) {
		last := &sections[len(sections)-1]
		language, mark, _ := strings.Cut(b.info, " ")
		mark, reason, _ := strings.Cut(mark, " ")
		shell := slices.Contains([]string{"sh", "bash", "shell", "console"}, language)
		switch {
		case shell && mark == "test" && reason == "":
			last.examples = append(last.examples, example{line: b.line, script: b.content})
		case shell && mark == "server" && reason == "":
			match := makeRun.FindStringSubmatch(b.content)
			if match == nil {
				return nil, fmt.Errorf("%d: a server is started by something else than make run", b.line)
			}
			sections = append(sections, section{line: b.line, flags: strings.Fields(match[1] + match[2])})
		case shell && mark == "skip" && reason != "":
		case shell:
			return nil, fmt.Errorf("%d: the block %q is neither \"sh test\" nor \"sh server\" nor \"sh skip REASON\"", b.line, b.info)
		case b.info == "json expect":
			if len(last.examples) == 0 || last.examples[len(last.examples)-1].want != "" {
				return nil, fmt.Errorf("%d: an answer without an example", b.line)
			}
			last.examples[len(last.examples)-1].want = b.content
		}
	}
	return slices.DeleteFunc(sections, func(s section) bool { return len(s.examples) == 0 }), nil
}

// block is a fenced block of a Markdown text.
type block struct {
	line    int // of the opening fence, from 1
	info    string
	content string
}

func blocks(text string) []block {
	var found []block
	var lines []string
	inside := false
	for i, line := range strings.Split(text, "\n") {
		info, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case !inside && isFence:
			found, lines, inside = append(found, block{line: i + 1, info: strings.TrimSpace(info)}), nil, true
		case inside && isFence:
			found[len(found)-1].content, inside = strings.Join(lines, "\n"), false
		case inside:
			lines = append(lines, line)
		}
	}
	return found
}

func TestParseDocument(t *testing.T) {
	const text = "# Title\n```\nplain\n```\n\n```sh test\ncurl a\ncurl b\n```\nIt answers:\n\n```json expect\n{\"a\":\n1}\n```\n" +
		"```sh skip needs Docker\nnot run\n```\n```sh server\nmake run ARGS='--a --b=c'\n```\n```sh test\ntrue\n```\n" +
		"```sh server\nmake run ARGS=--d\n```\n```sh test\nfalse\n```\n```sh server\nmake run\n```\n"
	want := []section{
		{examples: []example{{line: 6, script: "curl a\ncurl b", want: "{\"a\":\n1}"}}},
		{line: 19, flags: []string{"--a", "--b=c"}, examples: []example{{line: 22, script: "true"}}},
		{line: 25, flags: []string{"--d"}, examples: []example{{line: 28, script: "false"}}},
	}
	got, err := parseDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(section{}, example{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, faulty := range []string{
		"```json expect\n{}\n```\n```sh test\ntrue\n```\n",
		"```sh\ntrue\n```\n",
		"```sh skip\ntrue\n```\n",
		"```bash tset\ntrue\n```\n",
		"```sh server\nbin/apiserver\n```\n",
	} {
		if _, err := parseDocument(faulty); err == nil {
			t.Errorf("parseDocument(%q): no error", faulty)
		}
	}
}
