package main

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"auto", "json", "console"}
)

// consoleOrder is in which order people are shown the fields of a request, after the time, the
// level and the message.
var consoleOrder = []string{"user", "verb", "path", "name", "code", "latency", "bytes", "ended", "client", "userAgent", "auditID"}

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
	flush = func() {}
	if format == "console" || (format == "auto" && terminal) {
		w = zerolog.ConsoleWriter{Out: w, NoColor: !terminal, TimeFormat: time.TimeOnly, FieldsOrder: consoleOrder}
	} else {
		buffer := newLogBuffer(w)
		w, flush = buffer, func() { _ = buffer.Stop() }
	}
	return zerolog.New(w).Level(parsed).With().Timestamp().Logger(), flush, nil
}

const (
	// logDelay is how long a line may wait for others, so that a busy server does not need a
	// system call for each request.
	logDelay = 100 * time.Millisecond
	// logBytes is the size of the buffer.
	logBytes = 32 << 10
)

// logBuffer buffers lines. Warnings and errors are written at once, with everything before
// them.
type logBuffer struct{ *zapcore.BufferedWriteSyncer }

var _ zerolog.LevelWriter = logBuffer{}

func newLogBuffer(w io.Writer) logBuffer {
	return logBuffer{&zapcore.BufferedWriteSyncer{WS: lossyWriter{w}, Size: logBytes, FlushInterval: logDelay}}
}

// WriteLevel buffers a line.
func (b logBuffer) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	n, err := b.Write(line)
	if level > zerolog.InfoLevel {
		err = errors.Join(err, b.Sync())
	}
	return n, err
}

// lossyWriter drops what cannot be written: the buffer would not write again after an error.
type lossyWriter struct{ io.Writer }

func (w lossyWriter) Write(lines []byte) (int, error) {
	_, _ = w.Writer.Write(lines)
	return len(lines), nil
}

// Sync does nothing: Write does not buffer.
func (lossyWriter) Sync() error { return nil }
