package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"strings"
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
	return fmt.Errorf("%q is none of %s", s, strings.Join(allowed, ", "))
}

// newLogger writes to w what level lets pass. The format auto is console where w is a
// terminal and json elsewhere.
func newLogger(w io.Writer, level, format string) (zerolog.Logger, error) {
	parsed, err := zerolog.ParseLevel(level)
	if err != nil {
		return zerolog.Nop(), err
	}
	file, isFile := w.(*os.File)
	terminal := isFile && term.IsTerminal(int(file.Fd()))
	if format == "console" || (format == "auto" && terminal) {
		w = zerolog.ConsoleWriter{Out: w, NoColor: !terminal, TimeFormat: time.TimeOnly}
	}
	return zerolog.New(w).Level(parsed).With().Timestamp().Logger(), nil
}

// httpErrorLog takes what net/http has to say, failed TLS handshakes for the most part:
// a matter for whoever looks for it, since anybody can cause it at any rate.
func httpErrorLog(logger zerolog.Logger) *log.Logger {
	return log.New(lineWriter{logger}, "", 0)
}

type lineWriter struct{ logger zerolog.Logger }

func (w lineWriter) Write(line []byte) (int, error) {
	w.logger.Debug().Str("detail", strings.TrimSpace(string(line))).Msg("connection failed")
	return len(line), nil
}
