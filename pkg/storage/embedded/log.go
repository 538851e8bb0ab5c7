package embedded

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/rs/zerolog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// fatalHook replaces what etcd's logger does at Fatal and Panic: instead of exiting, it
// records the first reason and ends the goroutine that logged it. It must not return to
// the caller, which relies on that. Etcd.Err then tells the owner to stop.
//
// As of etcd 3.7 that is right for all of them: they come from the goroutines that write
// the log, apply entries, commit to the database, compact it, or take snapshots between
// two entries. Each ends halfway, holding its locks, and nothing can be acknowledged any
// more. The one exception was the removal of old files, which purger does instead.
type fatalHook chan error

func (h fatalHook) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := fmt.Errorf("etcd: %s", ce.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			err = fmt.Errorf("etcd: %s: %w", ce.Message, cause)
		}
	}
	if errors.Is(err, syscall.ENOSPC) {
		// etcd says of a log that it cannot open for this reason that it cannot be repaired.
		err = fmt.Errorf("%w: no acknowledged write is lost; make room on the disk and start the server again", err)
	}
	select {
	case h <- err:
	default:
	}
	runtime.Goexit()
}

func newZapLogger(log zerolog.Logger, fatal fatalHook) *zap.Logger {
	return zap.New(zerologCore{zapcore.WarnLevel, log}, zap.WithFatalHook(fatal), zap.WithPanicHook(fatal))
}

// routine lists parts of messages above Info that healthy starts and stops log. In a new
// directory etcd tries to record its versions before the first entry is committed, and
// retries later; a stop interrupts that; and the election may precede the member's own
// entry, and is then repeated.
var routine = []string{
	"Failed to detect schema version",
	"failed to update storage version",
	"failed to update cluster version",
	"cannot campaign at term",
}

func isRoutine(message string) bool {
	return slices.ContainsFunc(routine, func(part string) bool { return strings.Contains(message, part) })
}

// zerologCore passes warnings and worse to zerolog, at most as errors, since the process
// lives on.
type zerologCore struct {
	zapcore.LevelEnabler
	log zerolog.Logger
}

func (c zerologCore) With(fields []zapcore.Field) zapcore.Core {
	c.log = c.log.With().Fields(values(fields)).Logger()
	return c
}

func (c zerologCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !isRoutine(e.Message) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c zerologCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := zerolog.ErrorLevel
	if e.Level == zapcore.WarnLevel {
		level = zerolog.WarnLevel
	}
	c.log.WithLevel(level).Str("component", "etcd").Fields(values(fields)).Msg(e.Message)
	return nil
}

func (c zerologCore) Sync() error { return nil }

func values(fields []zapcore.Field) map[string]any {
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(encoder)
	}
	return encoder.Fields
}
