package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxRows is how many tokens the text and the page show; the JSON has them all.
const maxRows = 20

// writeText writes a report for a terminal.
func writeText(w io.Writer, rep *report) error {
	t := &textReport{report: rep}
	t.summary()
	t.latencies()
	t.answers()
	t.watches()
	t.faults("Errors", rep.Errors)
	t.capacity()
	_, err := io.WriteString(w, t.out.String())
	return err
}

type textReport struct {
	*report
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
		t.printf("The run was ended early, after %.1f s of %.1f s.\n", t.Seconds, t.Settings.DurationSeconds)
	}
	if t.Capacity != nil {
		t.printf("\n%s\n", t.Capacity.Summary())
	}
	q := t.Requests
	t.printf("\nRequests   %s due in %.1f s: %s sent, %s not sent, %s held back\n",
		grouped(q.Due), t.Seconds, grouped(q.Sent), grouped(q.Unsent), grouped(q.HeldBack))
	t.printf("Rate       asked for %s/s, sent %s/s, succeeded %s/s\n",
		rateText(t.Rates.Asked), rateText(t.Rates.Sent), rateText(t.Rates.Succeeded))
	t.printf("Answers    %s succeeded, %s rate limited (429), %s failed (%s)\n",
		grouped(q.Succeeded), grouped(q.RateLimited), grouped(q.Failed), shareText(t.ErrorShare))
	t.printf("Generator  %s\n", strings.TrimPrefix(t.Generator.Message, "The generator "))
	if q.SwappedDelete > 0 {
		t.printf("Deletes    %s found nothing to delete and were sent as creates\n", grouped(q.SwappedDelete))
	}
}

func (t *textReport) latencies() {
	t.printf("\n")
	rows := [][]string{
		timesHeader("Latency"), timesRow("response time, from due", t.Response), timesRow("service time", t.Service),
	}
	for _, v := range t.Verbs {
		rows = append(rows, timesRow("  "+v.Verb, v.Response))
	}
	if t.Refused != nil {
		rows = append(rows, timesRow("  rate limited (429)", *t.Refused))
	}
	rows = append(rows, timesRow("start delay", t.StartDelay))
	t.table(rows...)
	t.printf("By verb: response times of what succeeded or timed out.\n")
}

func timesHeader(name string) []string {
	return []string{name, "count", "mean", "p50", "p90", "p99", "p99.9", "max"}
}

func timesRow(name string, d timesReport) []string {
	return []string{
		name, grouped(d.Count), msText(d.Mean), msText(d.P50), msText(d.P90), msText(d.P99), msText(d.P999), msText(d.Max),
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
		rows = append(rows, append([]string{token.Token}, token.Cells(codes)...))
	}
	t.table(rows...)
	if more := len(t.Tokens) - maxRows; more > 0 {
		t.printf("and %s more tokens, in the JSON report\n", grouped(more))
	}
}

// codes are the codes of all tokens, in order.
func (rep *report) codes() []string {
	all := map[string]bool{}
	for _, token := range rep.Tokens {
		for code := range token.Codes {
			all[code] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Cells are the counts for codes, and what was held back.
func (r tokenReport) Cells(codes []string) []string {
	var cells []string
	for _, code := range codes {
		cells = append(cells, grouped(r.Codes[code]))
	}
	return append(cells, grouped(r.HeldBack))
}

func (t *textReport) watches() {
	w := t.Watch
	if w == nil {
		return
	}
	t.printf("\nWatches    %s watchers got %s events, expected %s; %s received\n",
		grouped(w.Watchers), grouped(w.Events), grouped(w.Expected), bytesText(w.BytesReceived))
	t.printf("           opened again %s times, expired %s times\n", grouped(w.Reopened), grouped(w.Expired))
	if w.Unmatched > 0 {
		t.printf("           %s events came too late to tell when their write was sent\n", grouped(w.Unmatched))
	}
	t.table(timesHeader("Watch"), timesRow("delay, from the write's sending", w.Delay))
	t.faults("Watches that broke or could not be opened", w.Errors)
}

func (t *textReport) faults(title string, faults []errorReport) {
	if len(faults) == 0 {
		return
	}
	t.printf("\n%s\n", title)
	for _, f := range faults {
		t.printf("  %s × %s: %s\n", grouped(f.Count), f.Kind, f.Example)
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

// bytesText is a number of bytes in a unit that leaves few digits.
func bytesText(n int64) string {
	value, units := float64(n), []string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for ; value >= 1000 && i < len(units)-1; i++ {
		value /= 1000
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[i])
}
