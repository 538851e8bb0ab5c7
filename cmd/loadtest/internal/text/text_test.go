package text

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestNumbers(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{Count(0), "0"}, {Count(999), "999"}, {Count(1000), "1,000"}, {Count(uint64(12345678)), "12,345,678"},
		{Rate(0.5), "0.5"}, {Rate(50), "50"}, {Rate(99.96), "100"}, {Rate(12.34), "12.3"}, {Rate(1234.5), "1,235"},
		{Duration(0), "–"}, {Duration(50 * time.Microsecond), "0.05 ms"}, {Duration(12345 * time.Microsecond), "12.3 ms"},
		{Duration(123 * time.Millisecond), "123 ms"}, {Duration(1234 * time.Millisecond), "1.23 s"}, {Milliseconds(0.5), "0.50 ms"},
		{Percent(0), "0 %"}, {Percent(0.00001), "<0.01 %"}, {Percent(0.0123), "1.23 %"}, {Percent(0.5), "50.0 %"},
		{Bytes(0), "0 B"}, {Bytes(999), "999 B"}, {Bytes(1500), "1.5 kB"}, {Bytes(2_500_000_000), "2.5 GB"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestCommand(t *testing.T) {
	if got, want := Command("loadtest", []string{"--rate=5", "a b", "it's", ""}), `loadtest --rate=5 'a b' 'it'\''s' ''`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestClean(t *testing.T) {
	for s, want := range map[string]string{
		"":                           "",
		"as it is: größer, 日本, 🙂":    "as it is: größer, 日本, 🙂",
		" two\n  lines\r\n":          "two lines",
		"\x1b[31mred\x1b[0m":         "[31mred [0m",
		"title\x1b]0;x\x07 and bell": "title ]0;x and bell",
		"\u009b2J of one character":  "2J of one character",
		"back\b\b\x7fspaces":         "back spaces",
		"right \u202eto left":        "right to left",
		"not\xffUTF-8":               "not UTF-8",
		"no-break\u00a0space":        "no-break space",
	} {
		if got := Clean(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func TestPrintableKeepsSpaces(t *testing.T) {
	if got, want := Printable("a  b\x1bc\n"), "a  b c "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestClip(t *testing.T) {
	for _, test := range []struct {
		s     string
		limit int
		want  string
	}{
		{"", 3, ""}, {"abc", 3, "abc"}, {"abcd", 3, "abc…"}, {"ää", 3, "ä…"}, {"日本", 2, "…"},
	} {
		if got := Clip(test.s, test.limit); got != test.want {
			t.Errorf("%q in %d bytes: got %q, want %q", test.s, test.limit, got, test.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[2J\u009b\u202e\xffb")
	f.Fuzz(func(t *testing.T, s string) {
		clean := Clean(s)
		if !utf8.ValidString(clean) || strings.ContainsFunc(clean, unicode.IsControl) || Clean(clean) != clean {
			t.Errorf("%q becomes %q", s, clean)
		}
	})
}
