package server

import (
	"sync"

	"github.com/klauspost/compress/gzip"
)

var gzipWriters = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level exists
	}
	return w
}}

// answer writes the body of an answer. The header goes out with the first byte; where the
// client accepts gzip, not before it is clear whether the body is large.
type answer struct {
	rec       *record
	code      int
	mediaType string
	held      []byte // the beginning of a body that may become large
	gzip      *gzip.Writer
}

func (a *answer) Write(p []byte) (int, error) {
	switch {
	case a.gzip != nil:
		return a.gzip.Write(p)
	case a.rec.code != 0 || !a.rec.acceptsGzip():
		a.begin()
		return a.rec.Write(p)
	case len(a.held)+len(p) <= gzipThreshold:
		a.held = append(a.held, p...)
		return len(p), nil
	}
	setGzip(a.rec.Header())
	a.begin()
	a.gzip = gzipWriters.Get().(*gzip.Writer)
	a.gzip.Reset(a.rec)
	if _, err := a.gzip.Write(a.held); err != nil {
		return 0, err
	}
	a.held = nil
	return a.gzip.Write(p)
}

func (a *answer) begin() {
	if a.rec.code == 0 {
		a.rec.Header().Set("Content-Type", a.mediaType)
		a.rec.WriteHeader(a.code)
	}
}

// finish writes what is still held.
func (a *answer) finish() error {
	if a.gzip != nil {
		return a.gzip.Close()
	}
	if len(a.held) == 0 {
		return nil
	}
	a.begin()
	_, err := a.rec.Write(a.held)
	return err
}

// release gives back what was lent.
func (a *answer) release() {
	if a.gzip != nil {
		a.gzip.Reset(nil)
		gzipWriters.Put(a.gzip)
		a.gzip = nil
	}
}
