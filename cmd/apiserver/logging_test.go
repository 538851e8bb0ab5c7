package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// calls keeps what each write wrote.
type calls []string

func (c *calls) Write(p []byte) (int, error) {
	*c = append(*c, string(p))
	return len(p), nil
}

func TestLinesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written calls
		l := &logWriter{w: &written}
		check := func(want ...string) {
			t.Helper()
			synctest.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			if got := strings.Join(written, "|"); got != strings.Join(want, "|") {
				t.Errorf("wrote %q, want %q", got, want)
			}
			written = nil
		}
		write := func(level zerolog.Level, line string) {
			if _, err := l.WriteLevel(level, []byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		write(zerolog.InfoLevel, "a")
		write(zerolog.DebugLevel, "b")
		<-time.After(logDelay - 1)
		check()
		<-time.After(1)
		check("ab")
		write(zerolog.InfoLevel, "c")
		write(zerolog.WarnLevel, "d")
		check("cd")
		<-time.After(2 * logDelay)
		check()
		write(zerolog.InfoLevel, "e")
		write(zerolog.InfoLevel, strings.Repeat("f", logBytes))
		check("e" + strings.Repeat("f", logBytes))
		write(zerolog.InfoLevel, "g")
		l.flush()
		check("g")
	})
}
