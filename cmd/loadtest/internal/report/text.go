package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// maxRows is how many tokens the text and the page show; the JSON has them all.
const maxRows = 20

// writeText writes a report for a terminal.
func writeText(w io.Writer, rep *Report) error {
	t := &textReport{Report: rep}
	t.summary()
	t.latencies()
	t.phases()
	t.answers()
	t.watches()
	t.faults("Errors", rep.Errors)
	t.capacity()
	t.checks()
	if v := rep.Versus; v != nil {
		if err := writeText(&t.out, v.Other); err != nil {
			return err
		}
		t.printf("\n%s", v.Comparison.Text())
	}
	_, err := io.WriteString(w, t.out.String())
	return err
}

type textReport struct {
	*Report
	out strings.Builder
}

func (t *textReport) printf(format string, args ...any) { fmt.Fprintf(&t.out, format, args...) }

// table writes rows in columns, the first one aligned to the left and the others to the
// right.
func (t *textReport) table(rows ...[]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		t.printf("%-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			t.printf("  %*s", widths[i+1], cell)
		}
		t.printf("\n")
	}
}

func (t *textReport) summary() {
	t.printf("\n%s\n%s", t.Command, t.Server.URL)
	if t.Server.Version != "" {
		t.printf(" (%s)", t.Server.Version)
	}
	t.printf("\n")
	if t.Interrupted {
		t.printf("The run ended early, after %.1f s of %.1f s.\n", t.Seconds, t.Settings.DurationSeconds)
	}
	if t.Capacity != nil {
		t.printf("\n%s\n", t.Capacity.Summary())
	}
	t.printf("\nPlan       %s\n", t.Plan())
	q := t.Requests
	t.printf("Requests   %s due in %.1f s: %s sent, %s not sent, %s held back\n",
		text.Count(q.Due), t.Seconds, text.Count(q.Sent), text.Count(q.Unsent), text.Count(q.HeldBack))
	t.printf("Rate       asked %s/s, sent %s/s, succeeded %s/s\n",
		text.Rate(t.Rates.Asked), text.Rate(t.Rates.Sent), text.Rate(t.Rates.Succeeded))
	t.printf("Answers    %s succeeded, %s rate limited (429), %s failed (%s)\n",
		text.Count(q.Succeeded), text.Count(q.RateLimited), text.Count(q.Failed), text.Percent(t.ErrorShare))
	t.printf("Generator  %s\n", strings.TrimPrefix(t.Generator.Message, "The generator "))
	if p := t.Process; p != nil {
		t.printf("Server     process %d: %s of CPU time, %s per request; at most %s of memory (RSS)\n",
			p.PID, text.Seconds(p.CPUSeconds), p.PerRequest(), p.Peak())
	}
	if q.SwappedDelete > 0 {
		t.printf("Deletes    %s found nothing to delete and were sent as creates\n", text.Count(q.SwappedDelete))
	}
}

func (t *textReport) latencies() {
	t.printf("\n")
	rows := [][]string{
		timesHeader("Latency"), timesRow("response time, since due", t.Response), timesRow("service time", t.Service),
	}
	for _, v := range t.Verbs {
		rows = append(rows, timesRow("  "+v.Verb, v.Response))
	}
	if t.Refused != nil {
		rows = append(rows, timesRow("  rate limited (429)", *t.Refused))
	}
	rows = append(rows, timesRow("start delay", t.StartDelay))
	t.table(rows...)
	t.printf("By verb: response times of requests that succeeded or timed out.\n")
}

// ShowsPhases reports whether phases say more than the whole run, and are no rounds, which
// are all alike.
func (rep *Report) ShowsPhases() bool { return len(rep.Phases) > 1 && rep.Settings.Rounds == 0 }

func (t *textReport) phases() {
	if !t.ShowsPhases() {
		return
	}
	rows := [][]string{append(timesHeader("Phase"), "429", "failed")}
	for i := range t.Phases {
		p := &t.Phases[i]
		row := timesRow(fmt.Sprintf("%d. %s at %s", i+1, text.Seconds(p.Seconds), p.Rate()), p.Response)
		rows = append(rows, append(row, text.Count(p.RateLimited), text.Count(p.Failed)))
	}
	t.printf("\n")
	t.table(rows...)
}

func (t *textReport) checks() {
	if len(t.Checks) == 0 {
		return
	}
	t.printf("\nFail if\n")
	for _, c := range t.Checks {
		outcome := "ok"
		if c.Failed {
			outcome = "FAILED"
		}
		t.printf("  %-6s  %s\n", outcome, c)
	}
}

func timesHeader(name string) []string {
	return []string{name, "count", "mean", "p50", "p90", "p99", "p99.9", "max"}
}

func timesRow(name string, d Times) []string {
	return []string{
		name, text.Count(d.Count), text.Milliseconds(d.Mean), text.Milliseconds(d.P50), text.Milliseconds(d.P90), text.Milliseconds(d.P99), text.Milliseconds(d.P999), text.Milliseconds(d.Max),
	}
}

func (t *textReport) answers() {
	codes := t.codes()
	if len(codes) == 0 {
		return
	}
	t.printf("\n")
	rows := [][]string{slices.Concat([]string{"Token"}, codes, []string{"held back"})}
	for _, token := range t.Tokens[:min(len(t.Tokens), maxRows)] {
		rows = append(rows, append([]string{token.Name()}, token.Cells(codes)...))
	}
	t.table(rows...)
	if more := len(t.Tokens) - maxRows; more > 0 {
		t.printf("and %s more tokens in the JSON report\n", text.Count(more))
	}
}

// codes returns the codes of all tokens, sorted.
func (rep *Report) codes() []string {
	all := map[string]bool{}
	for _, token := range rep.Tokens {
		for code := range token.Codes {
			all[code] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Name says which token it is, and where it was given.
func (r Token) Name() string {
	if r.Source == "" {
		return r.Token
	}
	return r.Token + "  " + r.Source
}

// Cells returns the counts of codes, and of the requests held back.
func (r Token) Cells(codes []string) []string {
	var cells []string
	for _, code := range codes {
		cells = append(cells, text.Count(r.Codes[code]))
	}
	return append(cells, text.Count(r.HeldBack))
}

func (t *textReport) watches() {
	w := t.Watch
	if w == nil {
		return
	}
	t.printf("\nWatches    %s watchers got %s events, expected %s; %s received\n",
		text.Count(w.Watchers), text.Count(w.Events), text.Count(w.Expected), text.Bytes(w.BytesReceived))
	t.printf("           reopened %s times; the version had expired %s times\n", text.Count(w.Reopened), text.Count(w.Expired))
	if w.Unmatched > 0 {
		t.printf("           %s events came too late to match them with their write\n", text.Count(w.Unmatched))
	}
	t.table(timesHeader("Watch"), timesRow("delay, since the write was sent", w.Delay))
	t.faults("Watches that broke or could not be opened", w.Errors)
}

func (t *textReport) faults(title string, faults []Error) {
	if len(faults) == 0 {
		return
	}
	t.printf("\n%s\n", title)
	for _, f := range faults {
		t.printf("  %s × %s: %s\n", text.Count(f.Count), f.Kind, f.Example)
	}
}

func (t *textReport) capacity() {
	if t.Capacity == nil {
		return
	}
	t.printf("\nSteps\n")
	for _, s := range t.Capacity.Steps {
		t.printf("  %s\n", s)
	}
}
