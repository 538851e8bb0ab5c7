// Package text puts numbers into words for people, and makes text of others safe to print.
package text

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Count returns a number with commas between the thousands.
func Count[N int | int64 | uint64](n N) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Rate returns a rate without needless digits.
func Rate(rate float64) string {
	if rate < 99.95 && rate != float64(int(rate)) {
		return fmt.Sprintf("%.1f", rate)
	}
	return Count(int64(rate + 0.5))
}

// Duration returns a duration with at most three significant digits, "–" for 0.
func Duration(d time.Duration) string {
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

// Milliseconds returns a number of milliseconds as Duration does.
func Milliseconds(ms float64) string {
	return Duration(time.Duration(ms * float64(time.Millisecond)))
}

// Seconds returns a number of seconds without needless digits.
func Seconds(s float64) string {
	return strconv.FormatFloat(math.Round(10*s)/10, 'f', -1, 64) + " s"
}

// Percent returns a fraction of 1 in percent.
func Percent(share float64) string {
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

// Bytes returns a number of bytes in the decimal unit that leaves the fewest digits.
func Bytes(n int64) string {
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

// Command returns a command line as a POSIX shell reads it.
func Command(name string, args []string) string {
	const special = "\"'`$\\ \t\n*?[]{}()<>|&;#~!^"
	words := []string{name}
	for _, arg := range args {
		if arg == "" || strings.ContainsAny(arg, special) {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

// Clean returns s on one line, with a space in place of every run of white space, invalid
// UTF-8 and characters that print nothing. What is left can neither move a terminal's
// cursor nor change the order in which it shows text.
func Clean(s string) string {
	return strings.Join(strings.Fields(Printable(s)), " ")
}

// Printable is like Clean but puts a space in place of each of these characters, and keeps
// all spaces.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, s)
}

// Clip returns the first limit bytes of s, without a character that the limit cuts in two,
// and an ellipsis if something is missing.
func Clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
