package yamljson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/berth-project/berth/pkg/yamljson"
)

func TestConvert(t *testing.T) {
	for name, tc := range map[string]struct{ yaml, json, duplicates, err string }{
		"an object":              {"a: 1\nb: [x, 'y']\n", `{"a":1,"b":["x","y"]}`, "", ""},
		"aliases":                {"a: &a {b: c}\nd: [*a, *a]\n", `{"a":{"b":"c"},"d":[{"b":"c"},{"b":"c"}]}`, "", ""},
		"a merge":                {"a: &a {b: c}\nd: {<<: *a, e: f}\n", `{"a":{"b":"c"},"d":{"b":"c","e":"f"}}`, "", ""},
		"an anchor's name again": {"a: &a 1\nb: *a\nc: &a 2\nd: *a\n", `{"a":1,"b":1,"c":2,"d":2}`, "", ""},
		"a tag":                  {"%TAG !e! tag:yaml.org,2002:\n---\na: !e!str 1\n", `{"a":"1"}`, "", ""},
		"& and * in text":        {"a: \"*x & y\"\nb: R&D * 2\n", `{"a":"*x \u0026 y","b":"R\u0026D * 2"}`, "", ""},
		"two documents":          {"a: 1\n---\nb: 2\n", "", "", "more than one YAML document"},
		"two after an end":       {"a: 1\n...\nb: 2\n", "", "", "more than one YAML document"},
		"a second, with a fault": {"a: &x 1\n---\nb: *y\n", "", "", "more than one YAML document"},
		"a third":                {"a: 1\n---\n---\nb: 2\n", "", "", "more than one YAML document"},
		"a second after none":    {"---\n---\nb: 2\n", "", "", "more than one YAML document"},
		"a marker before":        {"# c\n---\na: 1\n", `{"a":1}`, "", ""},
		"markers around":         {"---\na: 1\n---\n# c\n---\n", `{"a":1}`, "", ""},
		"an end":                 {"a: 1\n...\n", `{"a":1}`, "", ""},
		"dashes in text":         {"a: |\n  x\n  ---\n  y\nb: a---b...\n", `{"a":"x\n---\ny\n","b":"a---b..."}`, "", ""},
		"a key twice":            {"a: 1\na: 2\n", `{"a":2}`, `key "a" already set in map`, ""},
		"no YAML":                {"\tbad: [", "", "", "found character that cannot start any token"},
		"no anchor":              {"a: &b 1\nc: *d\n", "", "", "unknown anchor 'd' referenced"},
		"an alias in itself":     {"a: &a [*a]\n", "", "", "the limit"},
		"UTF-16":                 {"\xff\xfea\x00:\x00 \x001\x00", "", "", "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			got, duplicates, err := yamljson.Convert([]byte(tc.yaml))
			if diff := cmp.Diff(tc.json, string(got)); diff != "" || !says(duplicates, tc.duplicates) || !says(err, tc.err) {
				t.Errorf("duplicates %v, error %v (-want +got):\n%s", duplicates, err, diff)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	_, duplicates, err := yamljson.Convert([]byte("a: 1\na: 2\nb: {c: 3, c: 4}\n"))
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{`line 2: key "a" already set in map`, `line 3: key "c" already set in map`}
	for _, tc := range []struct {
		err  error
		want []string
	}{
		{duplicates, keys},
		{fmt.Errorf("error converting YAML to JSON: %w", duplicates), keys},
		{errors.New(`unknown field "a"`), []string{`unknown field "a"`}},
	} {
		if diff := cmp.Diff(tc.want, yamljson.Faults(tc.err)); diff != "" {
			t.Errorf("%v (-want +got)\n%s", tc.err, diff)
		}
	}
}

// says reports whether an error holds the text, or there is neither.
func says(err error, text string) bool {
	return (err == nil) == (text == "") && (err == nil || strings.Contains(err.Error(), text))
}

// A document that means far more than it says is refused before that takes the memory, and
// as long as it means little it is not.
func TestExpansion(t *testing.T) {
	for name, tc := range map[string]struct {
		document func(size, times int) string
	}{
		"a long scalar": {func(size, times int) string {
			return "a: &a " + strings.Repeat("x", size) + "\nb: [" + strings.Repeat("*a, ", times) + "]\n"
		}},
		"a quoted scalar": {func(size, times int) string {
			return "a: &a '" + strings.Repeat("x", size) + "'\nb: [" + strings.Repeat("*a, ", times) + "]\n"
		}},
		"a scalar to escape": {func(size, times int) string {
			return "a: &a '" + strings.Repeat("<", size/6) + "'\nb: [" + strings.Repeat("*a, ", times) + "]\n"
		}},
		"a binary scalar": {func(size, times int) string {
			return "a: &a !!binary " + strings.Repeat("gICA", size/24) + "\nb: [" + strings.Repeat("*a, ", times) + "]\n"
		}},
		"a key": {func(size, times int) string {
			return "a: &a " + strings.Repeat("x", size) + "\nb: [" + strings.Repeat("{*a : 1}, ", times) + "]\n"
		}},
		"a mapping": {func(size, times int) string {
			return "a: &a {k: " + strings.Repeat("x", size) + "}\nb: [" + strings.Repeat("*a, ", times) + "]\n"
		}},
		"a merged mapping": {func(size, times int) string {
			return "a: &a {k: " + strings.Repeat("x", size) + "}\nb: [" + strings.Repeat("{<<: *a}, ", times) + "]\n"
		}},
		"aliases of aliases": {func(size, _ int) string {
			doc := "a0: &a0 " + strings.Repeat("x", size/10) + "\n"
			for i := range size / 100_000 {
				doc += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 10))
			}
			return doc
		}},
		"the prefix of tags": {func(size, times int) string {
			return "%TAG !e! tag:" + strings.Repeat("x", size) + "\n---\nb: [" + strings.Repeat("!e!x y, ", times) + "]\n"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := yamljson.Convert([]byte(tc.document(1000, 20))); errors.Is(err, yamljson.ErrTooLarge) {
				t.Errorf("little: %v", err)
			}
			for _, times := range []int{20, 200_000} {
				document := []byte(tc.document(1_000_000, times))
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_, _, err := yamljson.Convert(document)
				runtime.ReadMemStats(&after)
				if !errors.Is(err, yamljson.ErrTooLarge) {
					t.Errorf("%d times: %v", times, err)
				}
				if took, most := after.TotalAlloc-before.TotalAlloc, uint64(256<<20); took > most {
					t.Errorf("%d times: it took %d bytes", times, took)
				}
			}
		})
	}
}

// What Convert makes of a document is what sigs.k8s.io/yaml makes of it, and within bounds.
func FuzzConvert(f *testing.F) {
	for _, seed := range []string{"a: &a 1\nb: *a\n", "a: &a {b: c}\nd: {<<: *a}\n", "%TAG !e! tag:x\n---\n!e!x y", "a: &a [*a]", "? &a x\n: *a\n", "- !!binary gICA\n", "{a: 'x', a: \"y\"}", "\xef\xbb\xbfa: b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, _, err := yamljson.Convert(data)
		if err != nil {
			return
		}
		want, err := sigsyaml.YAMLToJSON(data)
		if err != nil || !bytes.Equal(got, want) || !json.Valid(got) {
			t.Errorf("got %s, want %s, %v", got, want, err)
		}
		if most := max(yamljson.MaxExpanded, 20*len(data)) + 64; len(got) > most {
			t.Errorf("%d bytes became %d", len(data), len(got))
		}
	})
}

// The parser compares every %TAG directive with all before it: 100,000 of them, which a request
// has room for, take half a minute.
func TestDirectives(t *testing.T) {
	document := func(n int, lineBreak string) []byte {
		var text strings.Builder
		text.WriteString("# the tags" + lineBreak)
		for i := range n {
			fmt.Fprintf(&text, "%%TAG !%d! tag:x%d%s", i, i, lineBreak)
		}
		return []byte(text.String() + "---" + lineBreak + "a: '%TAG'" + lineBreak)
	}
	for _, lineBreak := range []string{"\n", "\r\n", "\r", "\u0085", "\u2028", "\u2029"} {
		if _, _, err := yamljson.Convert(document(1001, lineBreak)); !says(err, "more than 1000 %TAG directives") {
			t.Errorf("%q, 1001 directives: %v", lineBreak, err)
		}
	}
	if got, _, err := yamljson.Convert(document(1000, "\n")); err != nil || string(got) != `{"a":"%TAG"}` {
		t.Errorf("1000 directives: got %s, %v", got, err)
	}
	if _, _, err := yamljson.Convert([]byte("a: '" + strings.Repeat("%TAG ", 2000) + "'")); err != nil {
		t.Errorf("the word in a text: %v", err)
	}
}

func TestJudge(t *testing.T) {
	faults := []error{errors.New(`unknown field "a"`), errors.New("yaml: unmarshal errors:\n  line 2: key \"b\"\n  line 3: key \"c\"")}
	warnings := []string{`unknown field "a"`, `line 2: key "b"`, `line 3: key "c"`}
	for _, tc := range []struct {
		validation string
		faults     []error
		want       []string
		err        string
	}{
		{"", faults, warnings, ""},
		{"Warn", faults, warnings, ""},
		{"Ignore", faults, nil, ""},
		{"Strict", faults, nil, `strict decoding error: unknown field "a", yaml: `},
		{"Strict", nil, nil, ""},
	} {
		got, err := yamljson.Judge(tc.faults, tc.validation)
		if diff := cmp.Diff(tc.want, got); diff != "" || !says(err, tc.err) {
			t.Errorf("%q: %v (-want +got):\n%s", tc.validation, err, diff)
		}
	}
}
