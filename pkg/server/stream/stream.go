// Package stream writes the bodies of answers: objects, lists and watches, plain or as one
// gzip stream, over HTTP/1.1 and HTTP/2 alike.
package stream

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/berth-project/berth/pkg/object"
)

const (
	// Threshold is the size in bytes from which an answer is compressed for a client that
	// accepts it, as in kube-apiserver: below that, time counts more than bytes.
	Threshold = 128 << 10
	// pieceSize is about how many bytes are written at once: each write of a large answer
	// costs a turn of net/http's goroutines.
	pieceSize = 64 << 10
	// storedUpTo is the size up to which bytes are put into a gzip stream as they are.
	storedUpTo = 512
)

var (
	gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}
	// emptyStored is a stored block without content, after which decoders have delivered
	// everything before it.
	emptyStored = []byte{0, 0, 0, 0xff, 0xff}
)

// compression says what is known of an answer's form.
type compression uint8

const (
	undecided compression = iota // the answer is held until it is clear whether it is large
	plain
	compressed
)

// Writer writes one body. The header goes out with the first bytes of it, so that what
// fails before can still be answered by an error. Errors of the connection are returned by
// every later call, too. It is for one goroutine.
type Writer struct {
	response http.ResponseWriter // nil: out is everything
	out      io.Writer
	code     int
	mode     compression
	length   int // of the body; 0: not known
	begun    bool

	buf  *[]byte // from buffers; nil while nothing waits to be written
	text *[]byte // from buffers: of a gzip stream, bytes that wait to be compressed

	taken     int64  // bytes of the body, before compression
	crc, size uint32 // of what was put into a gzip stream
	err       error
}

// buffers holds *[]byte of pieceSize.
var buffers = sync.Pool{New: func() any {
	buf := make([]byte, 0, pieceSize)
	return &buf
}}

// New returns a Writer of an answer with that status. The caller sets the Content-Type in
// w's header before the first bytes are written, and calls Release in the end.
func New(w http.ResponseWriter, code int, acceptsGzip bool) *Writer {
	sw := &Writer{response: w, out: w, code: code, mode: plain}
	if acceptsGzip {
		sw.mode = undecided
	}
	return sw
}

// To returns a Writer of plain bytes to w.
func To(w io.Writer) *Writer { return &Writer{out: w, mode: plain, begun: true} }

// Expect says how many bytes the body is going to have before compression; a watch expects
// Unbounded. It reports whether the body is compressed: then Block may be called. It comes
// before the first bytes.
func (w *Writer) Expect(size int) (compress bool) {
	switch {
	case w.mode == undecided && size > Threshold:
		w.compress()
	case w.mode == undecided:
		w.mode = plain
	}
	if w.mode == plain {
		w.length = size
	}
	return w.mode == compressed
}

// Unbounded is what a watch expects.
const Unbounded = 1 << 62

// Compressed reports whether the body is a gzip stream, which Expect or the first Threshold
// bytes decide.
func (w *Writer) Compressed() bool { return w.mode == compressed }

func (w *Writer) compress() {
	w.mode = compressed
	w.emit(gzipHeader)
}

// Write takes bytes of the body.
func (w *Writer) Write(p []byte) (int, error) {
	w.taken += int64(len(p))
	switch w.mode {
	case plain:
		w.emit(p)
	case compressed:
		w.gather(p)
	case undecided:
		if held := w.held(&w.text); len(*held)+len(p) <= Threshold {
			*held = append(*held, p...)
		} else {
			w.compress()
			w.settle()
			w.gather(p)
		}
	}
	return len(p), w.err
}

// WriteString is Write for a string.
func (w *Writer) WriteString(s string) { _, _ = w.Write([]byte(s)) }

// Block takes bytes of the body that are compressed already. Expect has returned true.
func (w *Writer) Block(b *object.Block) {
	w.taken += int64(b.Size)
	w.settle()
	w.crc, w.size = b.Extend(w.crc), w.size+b.Size
	w.emit(b.Data)
}

// gather collects what is to be compressed.
func (w *Writer) gather(p []byte) {
	for len(p) > 0 {
		text := w.held(&w.text)
		n := min(len(p), pieceSize-len(*text))
		*text = append(*text, p[:n]...)
		if p = p[n:]; len(*text) == pieceSize {
			w.settle()
		}
	}
}

// settle puts what was gathered into the gzip stream.
func (w *Writer) settle() {
	if w.text == nil {
		return
	}
	for text := *w.text; len(text) > 0; {
		n := min(len(text), pieceSize)
		if n <= storedUpTo {
			w.store(text[:n])
		} else {
			b := object.Compress(text[:n])
			w.crc, w.size = b.Extend(w.crc), w.size+b.Size
			w.emit(b.Data)
		}
		text = text[n:]
	}
	w.giveBack(&w.text)
}

// store puts p into the gzip stream as it is.
func (w *Writer) store(p []byte) {
	w.crc = crc32.Update(w.crc, crc32.IEEETable, p)
	w.size += uint32(len(p))
	var head [5]byte
	binary.LittleEndian.PutUint16(head[1:], uint16(len(p)))
	binary.LittleEndian.PutUint16(head[3:], ^uint16(len(p)))
	w.emit(head[:])
	w.emit(p)
}

// emit hands bytes on to the connection, a large piece at a time.
func (w *Writer) emit(p []byte) {
	if w.err != nil {
		return
	}
	if len(p) >= pieceSize/4 {
		w.send()
		w.write(p)
		return
	}
	buf := w.held(&w.buf)
	if len(*buf)+len(p) > pieceSize {
		w.write(*buf)
		*buf = (*buf)[:0]
	}
	*buf = append(*buf, p...)
}

// send writes what waits.
func (w *Writer) send() {
	if w.buf != nil {
		w.write(*w.buf)
		w.giveBack(&w.buf)
	}
}

func (w *Writer) write(p []byte) {
	for len(p) > 0 && w.err == nil {
		w.begin()
		n := min(len(p), 4*pieceSize) // so that who does not read is noticed in time
		_, w.err = w.out.Write(p[:n])
		p = p[n:]
	}
}

// begin writes the header. Nothing is set in it before: an error may be answered instead.
func (w *Writer) begin() {
	if w.begun {
		return
	}
	w.begun = true
	header := w.response.Header()
	if w.mode == compressed {
		header.Set("Content-Encoding", "gzip")
		header.Add("Vary", "Accept-Encoding")
	} else if w.length > 0 && w.length != Unbounded {
		header.Set("Content-Length", strconv.Itoa(w.length))
	}
	w.response.WriteHeader(w.code)
}

// Flush sends all that was written, so that the client can read it.
func (w *Writer) Flush() error {
	if w.mode == undecided {
		w.Expect(Unbounded)
	}
	w.settle()
	if w.mode == compressed {
		w.emit(emptyStored)
	}
	w.send()
	if w.err == nil && w.response != nil {
		w.begin()
		w.err = http.NewResponseController(w.response).Flush()
	}
	return w.err
}

// Close writes what is left, and the end of a gzip stream. Release must still be called.
func (w *Writer) Close() error {
	if w.mode == undecided { // it has stayed small
		w.mode = plain
		if w.text != nil {
			w.length = len(*w.text)
			w.emit(*w.text)
			w.giveBack(&w.text)
		}
	}
	w.settle()
	if w.mode == compressed {
		trailer := [10]byte{0: 0x03} // an empty last block
		binary.LittleEndian.PutUint32(trailer[2:], w.crc)
		binary.LittleEndian.PutUint32(trailer[6:], w.size)
		w.emit(trailer[:])
	}
	w.send()
	if w.err == nil && w.response != nil {
		w.begin()
	}
	return w.err
}

// Size returns how many bytes of the body it has taken, before compression.
func (w *Writer) Size() int64 { return w.taken }

// Begun reports whether the header is out: from then on an error can only be told by
// cutting the answer off.
func (w *Writer) Begun() bool { return w.begun }

// Release gives back what was lent. Nothing that was not sent is sent.
func (w *Writer) Release() {
	w.giveBack(&w.buf)
	w.giveBack(&w.text)
}

func (w *Writer) held(at **[]byte) *[]byte {
	if *at == nil {
		*at = buffers.Get().(*[]byte)
	}
	return *at
}

func (w *Writer) giveBack(at **[]byte) {
	if *at == nil {
		return
	}
	if cap(**at) <= Threshold { // a longer one has held the beginning of a large answer
		**at = (**at)[:0]
		buffers.Put(*at)
	}
	*at = nil
}
