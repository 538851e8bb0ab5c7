package main

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// calls keeps what each write wrote.
type calls struct {
	mu      sync.Mutex
	written []string
}

func (c *calls) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written = append(c.written, string(p))
	return len(p), nil
}

// take returns what was written since it was last called.
func (c *calls) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	written := c.written
	c.written = nil
	return written
}

func TestLinesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written calls
		l := newLogBuffer(&written)
		check := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if got := strings.Join(written.take(), "|"); got != strings.Join(want, "|") {
				t.Errorf("wrote %q, want %q", got, want)
			}
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
		write(zerolog.InfoLevel, strings.Repeat("f", logBytes+1))
		check("e", strings.Repeat("f", logBytes+1))
		write(zerolog.InfoLevel, "g")
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
		check("g")
	})
}

// failOnce fails to write for the first time.
type failOnce struct {
	calls
	failed bool
}

func (f *failOnce) Write(p []byte) (int, error) {
	if !f.failed {
		f.failed = true
		return 0, errors.New("no space left on device")
	}
	return f.calls.Write(p)
}

func TestLoggingGoesOnAfterAFailure(t *testing.T) {
	out := &failOnce{}
	logger, flush, err := newLogger(out, "info", "json")
	if err != nil {
		t.Fatal(err)
	}
	logger.Warn().Msg("lost")
	logger.Info().Msg("kept")
	flush()
	if got := strings.Join(out.take(), ""); !strings.Contains(got, "kept") || strings.Contains(got, "lost") {
		t.Errorf("wrote %q", got)
	}
}

// People read when and what first, and then what a request asked for before who asked.
func TestConsoleOrder(t *testing.T) {
	var out calls
	logger, flush, err := newLogger(&out, "info", "console")
	if err != nil {
		t.Fatal(err)
	}
	logger.Info().Str("auditID", "b").Int("code", 201).Str("path", "/p").Str("user", "u").Int("omitted", 3).Msg("request")
	flush()
	if _, got, _ := strings.Cut(strings.Join(out.take(), ""), " "); got != "INF request user=u path=/p code=201 auditID=b omitted=3\n" {
		t.Errorf("wrote %q", got)
	}
}
