package report

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/schedule"
)

func TestTextTable(t *testing.T) {
	var r textReport
	r.table([]string{"größer", "1", "22"}, []string{"x", "1,000", "2"})
	if want := "größer      1  22\nx       1,000   2\n"; r.out.String() != want {
		t.Errorf("got\n%swant\n%s", r.out.String(), want)
	}
}

func TestTextShowsFirstTokens(t *testing.T) {
	rep := &Report{}
	for i := range 3 * maxRows {
		rep.Tokens = append(rep.Tokens, Token{Token: fmt.Sprintf("#%d", i+1), Codes: map[string]uint64{"200": 1}})
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

// On a terminal a line replaces the one before and never wraps; elsewhere each line stays.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := NewProgress(&out, true)
	plan, stats := schedule.Schedule{{From: 60, To: 60, Duration: time.Minute}}, NewStats(testPlan(time.Minute), []string{"get"}, []string{"#1"})
	answers := func() {
		for range 50 {
			stats.Add(&Sample{Code: 200, End: 2 * time.Millisecond})
		}
		for range 3 {
			stats.Add(&Sample{Outcome: HeldBack})
		}
	}
	answers()
	p.Second(time.Second, plan, stats, 7)
	answers()
	p.Second(3*time.Second, plan, stats, 7)
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
	p.Line("%s", strings.Repeat("ä", 30))
	p.Note("done")
	p.Done()
	p.Line("end")
	p.Done()
	if want := "\r\x1b[K" + strings.Repeat("ä", 9) + "\r\x1b[Kdone\n\r\x1b[Kend\n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
}
