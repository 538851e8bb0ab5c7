package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress tells on standard error what goes on. It belongs to one goroutine.
type progress struct {
	out      io.Writer
	watching bool
	columns  func() int // of the terminal; nil: out is none
	open     bool       // the last line has no end yet
	last     time.Duration
}

func newProgress(out io.Writer, watching bool) *progress {
	p := &progress{out: out, watching: watching}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		p.columns = func() int {
			width, _, err := term.GetSize(int(file.Fd()))
			if err != nil || width <= 0 {
				return 80
			}
			return width
		}
	}
	return p
}

// note writes a line that stays.
func (p *progress) note(format string, args ...any) {
	p.line(format, args...)
	p.done()
}

// done ends the last line.
func (p *progress) done() {
	if p.open {
		fmt.Fprintln(p.out)
		p.open = false
	}
}

// line writes a line that the next one takes the place of, where out is a terminal.
func (p *progress) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if p.columns == nil {
		fmt.Fprintln(p.out, text)
		return
	}
	if runes := []rune(text); len(runes) >= p.columns() {
		text = string(runes[:max(p.columns()-1, 0)])
	}
	fmt.Fprint(p.out, "\r\x1b[K"+text)
	p.open = true
}

// begin makes the clock of the following lines start at 0.
func (p *progress) begin() { p.last = 0 }

// second tells what happened since it was last called.
func (p *progress) second(elapsed time.Duration, s schedule, w window, inFlight int64) {
	span := (elapsed - p.last).Seconds()
	asked := float64(s.dueBy(elapsed)-s.dueBy(p.last)) / span
	p.last = elapsed
	fields := []string{
		fmt.Sprintf("%2d:%02d", int(elapsed.Minutes()), int(elapsed.Seconds())%60),
		fmt.Sprintf("asked %s/s", rateText(asked)),
		fmt.Sprintf("answered %s/s", rateText(float64(w.sent())/span)),
		"p50 " + timeText(w.response.at(50)),
		"p99 " + timeText(w.response.at(99)),
		"2xx " + grouped(w.counts[succeeded]),
		"429 " + grouped(w.counts[rateLimited]),
		"errors " + grouped(w.counts[failed]),
		fmt.Sprintf("in flight %d", inFlight),
	}
	if n := w.counts[heldBack]; n > 0 {
		fields = append(fields, "held back "+grouped(n))
	}
	if p.watching {
		fields = append(fields, "watch p99 "+timeText(w.delay.at(99)))
	}
	p.line("%s", strings.Join(fields, "  "))
}

// grouped is a number with commas between the thousands.
func grouped[N int | int64 | uint64](n N) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// rateText is a rate without needless digits.
func rateText(rate float64) string {
	if rate < 99.95 && rate != float64(int(rate)) {
		return fmt.Sprintf("%.1f", rate)
	}
	return grouped(int64(rate + 0.5))
}

// timeText is a duration with three significant digits at most, "–" for 0.
func timeText(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case d == 0:
		return "–"
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// shareText is a share of 1 in percent.
func shareText(share float64) string {
	switch percent := 100 * share; {
	case percent == 0:
		return "0 %"
	case percent < 0.01:
		return "<0.01 %"
	case percent < 10:
		return fmt.Sprintf("%.2f %%", percent)
	default:
		return fmt.Sprintf("%.1f %%", percent)
	}
}
