package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"
)

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"auto", "json", "console"}
)

func validateLogLevel(level string) error   { return validateOneOf(level, logLevels) }
func validateLogFormat(format string) error { return validateOneOf(format, logFormats) }

func validateOneOf(s string, allowed []string) error {
	for _, a := range allowed {
		if s == a {
			return nil
		}
	}
	return fmt.Errorf("%q is not one of %s", s, strings.Join(allowed, ", "))
}

// newLogger returns a logger that writes lines of a level and above to w. The format auto
// means console if w is a terminal and json otherwise. flush writes the lines that are still
// buffered; call it at the end.
func newLogger(w io.Writer, level, format string) (logger zerolog.Logger, flush func(), err error) {
	parsed, err := zerolog.ParseLevel(level)
	if err != nil {
		return zerolog.Nop(), nil, err
	}
	file, isFile := w.(*os.File)
	terminal := isFile && term.IsTerminal(int(file.Fd()))
	if format == "console" || (format == "auto" && terminal) {
		w = zerolog.ConsoleWriter{Out: w, NoColor: !terminal, TimeFormat: time.TimeOnly}
		return newLog(w, parsed), func() {}, nil
	}
	gathered := &logWriter{w: w}
	return newLog(gathered, parsed), gathered.flush, nil
}

func newLog(w io.Writer, level zerolog.Level) zerolog.Logger {
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

const (
	// logDelay is how long a line may wait for others, so that a busy server does not need a
	// system call for each request.
	logDelay = 100 * time.Millisecond
	// logBytes is the size at which the buffer is written.
	logBytes = 32 << 10
)

// logWriter buffers lines. Warnings and errors are written at once, with everything before
// them.
type logWriter struct {
	w io.Writer

	mu      sync.Mutex
	lines   []byte
	waiting *time.Timer // flushes; nil before the first line
}

var _ zerolog.LevelWriter = (*logWriter)(nil)

// Write is WriteLevel for a line without a level.
func (l *logWriter) Write(line []byte) (int, error) { return l.WriteLevel(zerolog.NoLevel, line) }

// WriteLevel buffers a line. A line that cannot be written is lost.
func (l *logWriter) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 && level <= zerolog.InfoLevel {
		if l.waiting == nil {
			l.waiting = time.AfterFunc(logDelay, l.flush)
		} else {
			l.waiting.Reset(logDelay)
		}
	}
	l.lines = append(l.lines, line...)
	if level > zerolog.InfoLevel || len(l.lines) >= logBytes {
		l.write()
	}
	return len(line), nil
}

// flush writes the buffer.
func (l *logWriter) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write()
}

func (l *logWriter) write() {
	if len(l.lines) > 0 {
		_, _ = l.w.Write(l.lines)
		l.lines = l.lines[:0]
	}
}
