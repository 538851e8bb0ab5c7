package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestTexts(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{grouped(0), "0"}, {grouped(999), "999"}, {grouped(1000), "1,000"}, {grouped(uint64(12345678)), "12,345,678"},
		{rateText(0.5), "0.5"}, {rateText(50), "50"}, {rateText(99.96), "100"}, {rateText(12.34), "12.3"}, {rateText(1234.5), "1,235"},
		{timeText(0), "–"}, {timeText(50 * time.Microsecond), "0.05 ms"}, {timeText(12345 * time.Microsecond), "12.3 ms"},
		{timeText(123 * time.Millisecond), "123 ms"}, {timeText(1234 * time.Millisecond), "1.23 s"},
		{shareText(0), "0 %"}, {shareText(0.00001), "<0.01 %"}, {shareText(0.0123), "1.23 %"}, {shareText(0.5), "50.0 %"},
		{bytesText(0), "0 B"}, {bytesText(999), "999 B"}, {bytesText(1500), "1.5 kB"}, {bytesText(2_500_000_000), "2.5 GB"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestTextTable(t *testing.T) {
	var r textReport
	r.table([]string{"größer", "1", "22"}, []string{"x", "1,000", "2"})
	if want := "größer      1  22\nx       1,000   2\n"; r.out.String() != want {
		t.Errorf("got\n%swant\n%s", r.out.String(), want)
	}
}

func TestTextShowsFirstTokens(t *testing.T) {
	rep := &report{}
	for i := range 3 * maxRows {
		rep.Tokens = append(rep.Tokens, tokenReport{Token: tokenName(i), Codes: map[string]uint64{"200": 1}})
	}
	var text, page bytes.Buffer
	if err := writeText(&text, rep); err != nil {
		t.Fatal(err)
	}
	if err := writeHTML(&page, rep); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{text.String(), page.String()} {
		if !strings.Contains(out, "#20") || strings.Contains(out, "#21") || !strings.Contains(out, "40 more tokens") {
			t.Errorf("want 20 tokens, and that there are 40 more:\n%s", out)
		}
	}
}

// On a terminal a line takes the place of the one before and never wraps; elsewhere each
// has its own.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, true)
	w := newWindow()
	w.counts[succeeded], w.counts[heldBack] = 50, 3
	w.response.add(2 * time.Millisecond)
	p.second(time.Second, schedule{rate: 60, duration: time.Minute}, w, 7)
	p.second(3*time.Second, schedule{rate: 60, duration: time.Minute}, w, 7)
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "asked 60/s  answered 50/s  p50 2.01 ms") || !strings.Contains(lines[1], "answered 25/s") {
		t.Errorf("got %q", lines)
	}
	for _, want := range []string{"0:01", "2xx 50", "429 0", "errors 0", "in flight 7", "held back 3", "watch p99 –"} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("%q is not in %q", want, lines[0])
		}
	}
	out.Reset()
	p.columns = func() int { return 10 }
	p.line("%s", strings.Repeat("ä", 30))
	p.note("done")
	p.done()
	p.line("end")
	p.done()
	if want := "\r\x1b[K" + strings.Repeat("ä", 9) + "\r\x1b[Kdone\n\r\x1b[Kend\n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
}
