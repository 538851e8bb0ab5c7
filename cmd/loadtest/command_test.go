package main

import (
	"bytes"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/berth-project/berth/cmd/loadtest/internal/report"
)

func TestValidate(t *testing.T) {
	for args, want := range map[string]string{
		"":                                 "",
		"--rate=0.5 --namespaces=3":        "",
		"--phase=30s@0-100 --phase=1m@100": "",
		"--versus=https://h --rounds=6 --duration=6s":               "",
		"--watchers=1 --fail-if=watch.p99>1s --fail-if=errors>0.1%": "",
		"--find-capacity --p99=20ms":                                "",
		"--rate=0":                                                  "--rate: 0 is not between",
		"--rate=NaN":                                                "--rate: NaN is not between",
		"--rate=1e9":                                                "--rate: 1e+09 is not between",
		"--duration=0s":                                             "--duration: 0s is not between",
		"--phase=30s":                                               `--phase: "30s" is not of the form 30s@100`,
		"--phase=1ms@100":                                           "--phase: 1ms is not between",
		"--phase=30s@100-0":                                         "--phase: 0 is not between 0.01",
		"--phase=30s@NaN":                                           "--phase: NaN is not between",
		"--phase=30s@5 --rate=5":                                    "--rate: has no effect with --phase",
		"--phase=30s@5 --versus=https://h":                          "--phase: has no effect with --versus",
		"--namespaces=0":                                            "--namespaces: 0 is not between",
		"--pid=-1":                                                  "--pid: -1 is not between",
		"--rounds=7":                                                "--rounds: has no effect without --versus",
		"--versus-pid=5":                                            "--versus-pid: has no effect without --versus",
		"--versus=https://h --rounds=5":                             "--rounds: 5 is not between 6",
		"--versus=https://h --duration=9s":                          "--rounds: 10 rounds in --duration=9s are shorter than 1 s each",
		"--fail-if=p99<50ms":                                        `--fail-if: "p99<50ms" is not of the form p99>50ms`,
		"--fail-if=watch.p99>1s":                                    `--fail-if: "watch.p99>1s" has no effect without --watchers`,
		"--fail-if=list.p99>1s --mix=get=1":                         `--fail-if: "list.p99>1s" has no effect: --mix sends no list`,
		"--objects=0":                                               "--objects: 0 is not between",
		"--addresses=-1":                                            "--addresses: -1 is not between",
		"--connections=-1":                                          "--connections: -1 is not between",
		"--max-workers=0":                                           "--max-workers: 0 is not between",
		"--timeout=0s":                                              "--timeout: 0s is not between",
		"--watchers=-1":                                             "--watchers: -1 is not between",
		"--watch-gzip":                                              "--watch-gzip: has no effect without --watchers",
		"--find-capacity --max-error-share=1.1":                     "--max-error-share: 1.1 is not between",
		"--max-error-share=0.5":                                     "--max-error-share: has no effect without --find-capacity",
		"--find-capacity --fail-if=p99>1s":                          "--fail-if: has no effect with --find-capacity",
		"--namespace=Not_A_Name":                                    `--namespace: "Not_A_Name" is not a namespace name`,
		"--p99=20ms":                                                "--p99: has no effect without --find-capacity",
		"--find-capacity --rate=5":                                  "--rate: has no effect with --find-capacity",
		"--find-capacity --max-rate=1":                              "--max-rate: 1 is not between 50",
	} {
		c := defaultConfig()
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		for _, group := range flagGroups(&c) {
			flags.AddFlagSet(group.flags)
		}
		if err := flags.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		err := c.validate(flags)
		if got := errorText(err); (want == "") != (err == nil) || !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", args, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestOutputs(t *testing.T) {
	for value, want := range map[string]string{
		"text":                           "",
		"html":                           "",
		"text,json=a.json,html=b=c.html": "",
		"json=a,json=b":                  "",
		"pdf":                            `--output: "pdf" is not one of text, json, html`,
		"json=":                          `--output: "json=" has no file`,
		"text,json":                      "--output: only one report can go to standard output",
	} {
		c := config{Output: strings.Split(value, ",")}
		outputs, err := c.outputs()
		if got := errorText(err); (want == "") != (err == nil) || !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %v, %q, want %q", value, outputs, got, want)
		}
		if err == nil && len(outputs) != len(c.Output) {
			t.Errorf("%s: got %v", value, outputs)
		}
	}
}

func TestExecuteReportsFailuresInOneLine(t *testing.T) {
	for args, want := range map[string]string{
		"--no-such-flag": "unknown flag: --no-such-flag",
		"--mix=fetch=1":  `"fetch" is not one of the verbs`,
		"--rate=fast":    `"--rate"`,
		"":               "--server: missing",
	} {
		var stdout, stderr bytes.Buffer
		if status := execute(t.Context(), strings.Fields(args), &stdout, &stderr, &undone{}); status != statusFailed {
			t.Errorf("%s: status %d", args, status)
		}
		if line := stderr.String(); !strings.HasPrefix(line, "loadtest: ") || strings.Count(line, "\n") != 1 || !strings.Contains(line, want) || stdout.Len() > 0 {
			t.Errorf("%s: stderr %q, stdout %q, want one line with %q", args, line, &stdout, want)
		}
	}
}

func TestVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := execute(t.Context(), []string{"--version"}, &stdout, &stderr, &undone{}); status != statusOK || stdout.String() != "loadtest "+binaryVersion()+"\n" {
		t.Errorf("status %d, stdout %q, stderr %q", status, &stdout, &stderr)
	}
}

// The help text and the documentation name every flag, and the documentation every field of
// the JSON report.
func TestEverythingIsDocumented(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := execute(t.Context(), []string{"--help"}, &stdout, &stderr, &undone{}); status != statusOK || stderr.Len() > 0 {
		t.Fatalf("status %d, stderr %q", status, &stderr)
	}
	for line := range strings.Lines(stdout.String()) {
		if len(line) > helpWidth+20 {
			t.Errorf("a line of %d characters: %s", len(line), line)
		}
	}
	documentation, err := os.ReadFile("../../docs/loadtest.md")
	if err != nil {
		t.Fatal(err)
	}
	c := defaultConfig()
	for _, group := range flagGroups(&c) {
		group.flags.VisitAll(func(flag *pflag.Flag) {
			if !strings.Contains(stdout.String(), "--"+flag.Name+" ") {
				t.Errorf("--%s is not in the help text", flag.Name)
			}
			if !bytes.Contains(documentation, []byte("`--"+flag.Name)) {
				t.Errorf("--%s is not in docs/loadtest.md", flag.Name)
			}
		})
	}
	for _, name := range jsonNames(reflect.TypeFor[report.Report](), map[reflect.Type]bool{}) {
		if !bytes.Contains(documentation, []byte("`"+name+"`")) {
			t.Errorf("the field %s is not in docs/loadtest.md", name)
		}
	}
	for _, found := range regexp.MustCompile("`(--[a-z0-9-]+)").FindAllStringSubmatch(string(documentation), -1) {
		if !strings.Contains(stdout.String(), found[1]) {
			t.Errorf("docs/loadtest.md names %s, which is no flag", found[1])
		}
	}
}

// jsonNames returns the names of all fields of a type, and of the types in it that have not
// been seen.
func jsonNames(typ reflect.Type, seen map[reflect.Type]bool) []string {
	switch {
	case typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice:
		return jsonNames(typ.Elem(), seen)
	case typ.Kind() != reflect.Struct || seen[typ]:
		return nil
	}
	seen[typ] = true
	var names []string
	for i := range typ.NumField() {
		field := typ.Field(i)
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
			names = append(names, jsonNames(field.Type, seen)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
