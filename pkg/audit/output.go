package audit

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

// output is where lines go: a file, which is rotated, or what is no file, such as a pipe. It
// belongs to one goroutine, except where a method says otherwise.
type output struct {
	path string
	// rotated writes to the file at path; nil: there is none. Its library never ends the goroutine
	// that compresses and removes old files, of which there is one for each log.
	rotated *lumberjack.Logger
	current os.FileInfo // the file that rotated has open, nil for none
	reopen  atomic.Bool // set by anybody

	stream   io.Writer // in place of rotated; nil: not open yet
	isOpened bool      // whether stream is the output's own
	stopping atomic.Pointer[os.File]

	torn bool // whether a line was written in part
}

// openOutput returns the output that cfg describes. A file and its directory are created, for
// their owner alone, so that it is known now whether that is possible.
func openOutput(cfg *Config) (*output, error) {
	if cfg.Path == "-" {
		return &output{stream: cfg.Stdout}, nil
	}
	o := &output{path: cfg.Path}
	if target, err := filepath.EvalSymlinks(cfg.Path); err == nil {
		o.path = target // or the link would be renamed
	}
	info, err := os.Stat(o.path)
	switch {
	case err == nil && info.IsDir():
		return nil, &fs.PathError{Op: "open", Path: o.path, Err: errors.New("it is a directory")}
	case err == nil && !info.Mode().IsRegular():
		return o, nil // opened by whoever may have to wait for it
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	size := cfg.MaxSize
	if size == 0 {
		size = math.MaxInt64 >> 20 // for the library 0 is 100
	}
	o.rotated = &lumberjack.Logger{Filename: o.path, MaxSize: size, MaxAge: cfg.MaxAge, MaxBackups: cfg.MaxBackups, Compress: cfg.Compress}
	return o, o.create()
}

// create creates the file and its directory if they do not exist, and finds out whether the
// file ends within a line.
func (o *output) create() error {
	if err := os.MkdirAll(filepath.Dir(o.path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(o.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		o.torn = false
		return err
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, size-1)
	o.torn = last[0] != '\n'
	return err
}

// write writes whole lines. After an error the first n bytes were written.
func (o *output) write(lines []byte) (n int, err error) {
	w, err := o.writer()
	if err != nil {
		return 0, err
	}
	if o.torn { // the rest of its line is lost: it must not swallow the next
		if _, err := w.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
	}
	n, err = w.Write(lines)
	if o.rotated != nil && err != nil && n == 0 {
		// The library gives up a rotation whose new file it may not give to the old one's owner, as
		// under some sandboxes, and goes on with it at the next call.
		n, err = w.Write(lines)
	}
	o.torn = err != nil && n > 0 && lines[n-1] != '\n'
	if o.rotated != nil {
		o.current, _ = os.Stat(o.path) // nil has it opened again
	}
	return n, err
}

// writer returns what is written to, opened again if somebody has asked for that, or has moved or
// removed the file.
func (o *output) writer() (io.Writer, error) {
	again := o.reopen.Swap(false)
	if o.rotated == nil {
		return o.openStream(again)
	}
	info, err := os.Stat(o.path)
	if again || err != nil || o.current == nil || !os.SameFile(info, o.current) {
		_ = o.rotated.Close() // what was written to it is there
		if err := o.create(); err != nil {
			return nil, err
		}
	}
	return o.rotated, nil
}

// openStream opens what is no file, unless it is open. A named pipe is opened for reading, too:
// that needs no reader on the other side, and neither does going on without one.
func (o *output) openStream(again bool) (io.Writer, error) {
	if o.isOpened && again {
		o.closeStream()
	}
	if o.stream != nil {
		return o.stream, nil
	}
	f, err := os.OpenFile(o.path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrPermission) { // a device may be for writing alone
		f, err = os.OpenFile(o.path, os.O_WRONLY|os.O_APPEND, 0)
	}
	if err != nil {
		return nil, err
	}
	o.stream, o.isOpened = f, true
	o.stopping.Store(f)
	return f, nil
}

func (o *output) closeStream() {
	if f := o.stopping.Swap(nil); f != nil {
		f.Close()
	}
	o.stream, o.isOpened = nil, false
}

// interrupt has a write to a pipe fail, now and from now on. Anybody may call it.
func (o *output) interrupt() {
	if f := o.stopping.Load(); f != nil {
		_ = f.SetWriteDeadline(time.Unix(1, 0)) // only pipes and the like have deadlines
	}
}

// close closes what the output has opened.
func (o *output) close() {
	if o.rotated != nil {
		_ = o.rotated.Close() // each write has told its own error
		return
	}
	o.closeStream()
}
