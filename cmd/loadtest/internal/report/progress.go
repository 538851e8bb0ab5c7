package report

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/berth-project/berth/cmd/loadtest/internal/schedule"
	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// Progress tells on a terminal or in a log how a run goes. It belongs to one goroutine.
type Progress struct {
	out      io.Writer
	watching bool
	columns  func() int // of the terminal; nil: out is not one
	open     bool       // the last line is not finished
	last     time.Duration
}

// NewProgress returns a Progress that writes to out. watching adds the delay of events.
func NewProgress(out io.Writer, watching bool) *Progress {
	p := &Progress{out: out, watching: watching}
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

// Note writes a line that stays.
func (p *Progress) Note(format string, args ...any) {
	p.Line(format, args...)
	p.Done()
}

// Done finishes the last line.
func (p *Progress) Done() {
	if p.open {
		fmt.Fprintln(p.out)
		p.open = false
	}
}

// Line writes a line that the next one replaces if out is a terminal.
func (p *Progress) Line(format string, args ...any) {
	line := text.Printable(fmt.Sprintf(format, args...))
	if p.columns == nil {
		fmt.Fprintln(p.out, line)
		return
	}
	if runes := []rune(line); len(runes) >= p.columns() {
		line = string(runes[:max(p.columns()-1, 0)])
	}
	fmt.Fprint(p.out, "\r\x1b[K"+line)
	p.open = true
}

// Begin starts the clock of the following lines at 0.
func (p *Progress) Begin() { p.last = 0 }

// Second writes what has happened since it was last called. elapsed counts from the start
// of the load.
func (p *Progress) Second(elapsed time.Duration, plan schedule.Schedule, s *Stats, inFlight int64) {
	w := s.takeWindow()
	span := (elapsed - p.last).Seconds()
	asked := float64(plan.DueBy(elapsed)-plan.DueBy(p.last)) / span
	p.last = elapsed
	fields := []string{
		fmt.Sprintf("%2d:%02d", int(elapsed.Minutes()), int(elapsed.Seconds())%60),
		fmt.Sprintf("asked %s/s", text.Rate(asked)),
		fmt.Sprintf("answered %s/s", text.Rate(float64(w.sent())/span)),
		"p50 " + text.Duration(w.response.at(50)),
		"p99 " + text.Duration(w.response.at(99)),
		"2xx " + text.Count(w.counts[Succeeded]),
		"429 " + text.Count(w.counts[RateLimited]),
		"errors " + text.Count(w.counts[Failed]),
		fmt.Sprintf("in flight %d", inFlight),
	}
	if n := w.counts[HeldBack]; n > 0 {
		fields = append(fields, "held back "+text.Count(n))
	}
	if p.watching {
		fields = append(fields, "watch p99 "+text.Duration(w.delay.at(99)))
	}
	p.Line("%s", strings.Join(fields, "  "))
}
