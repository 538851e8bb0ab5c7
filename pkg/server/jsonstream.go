package server

import (
	"encoding/binary"
	"hash/crc32"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"

	k8sruntime "k8s.io/apimachinery/pkg/runtime"
)

const (
	// gzipThreshold is how large an answer must be to be compressed for a client that
	// accepts it, as in kube-apiserver: below that, time counts more than bytes.
	gzipThreshold = 128 << 10
	// pieceSize is about how much of an answer is written at once.
	pieceSize = 64 << 10
	// smallPiece is the size of the buffer that an answer begins with.
	smallPiece = 8 << 10
	// largePart is from where on a part is not copied to the others, but written by itself.
	largePart = 16 << 10
	// turnPatience is how long a piece of a large answer waits for its turn.
	turnPatience = 50 * time.Millisecond
)

// jsonStream writes an answer of finished parts, plain or as one gzip stream, in few large
// pieces. Failures come from end and flush, and make everything else do nothing. release
// must follow.
type jsonStream struct {
	rec         *record
	control     *http.ResponseController
	burst       *burstConn
	code        int
	contentType string
	length      int // of the answer; 0: not known
	gzip        bool

	line      []byte  // memory for the beginning of an event
	buf       []byte  // nil while there is nothing to write
	small     *[]byte // buf's, where it is of smallPieces; else it is of pieces
	held      bool    // whether net/http or the connection may hold something back
	hurried   bool    // whether it takes no turns any more
	crc, size uint32  // of what was written so far, before it was compressed
	err       error
}

var (
	pieces      = newLent(pieceSize)
	smallPieces = sync.Pool{New: func() any {
		buf := make([]byte, 0, smallPiece)
		return &buf
	}}
)

func newJSONStream(rec *record, code int, gzip bool) *jsonStream {
	j := &jsonStream{
		rec: rec, control: http.NewResponseController(rec), burst: burstOf(rec),
		code: code, contentType: k8sruntime.ContentTypeJSON, gzip: gzip,
	}
	if gzip {
		j.add(gzipHeader)
	}
	return j
}

// raw writes p; in a gzip stream it is stored as it is.
func (j *jsonStream) raw(p []byte) {
	if !j.gzip {
		j.add(p)
		return
	}
	j.crc = crc32.Update(j.crc, crc32.IEEETable, p)
	j.size += uint32(len(p))
	for len(p) > 0 {
		n := min(len(p), maxStored)
		var head [5]byte
		binary.LittleEndian.PutUint16(head[1:], uint16(n))
		binary.LittleEndian.PutUint16(head[3:], ^uint16(n))
		j.add(head[:])
		j.add(p[:n])
		p = p[n:]
	}
}

// Write is raw as an io.Writer.
func (j *jsonStream) Write(p []byte) (int, error) {
	j.raw(p)
	return len(p), j.err
}

// finished writes the rest of an object; in a gzip stream that is what was compressed once
// for all.
func (j *jsonStream) finished(obj finished, rest []byte) {
	if !j.gzip {
		j.add(rest)
		return
	}
	j.block(obj.Derived(newBlock))
}

// block writes what newBlock has returned.
func (j *jsonStream) block(b []byte) {
	crc, size, shift, data := splitBlock(b)
	j.crc = multiply(shift, j.crc) ^ crc
	j.size += size
	j.add(data)
}

func (j *jsonStream) add(p []byte) {
	if len(p) < largePart && j.makeRoom(len(p)) {
		j.buf = append(j.buf, p...)
		return
	}
	j.hold(len(p)) // what precedes it goes with it
	j.write(j.buf)
	j.buf = j.buf[:0]
	j.write(p)
	j.yield()
}

// hold has the connection gather what is written from now on, if n more bytes are worth it.
// A detached connection writes small pieces at once, as they are.
func (j *jsonStream) hold(n int) {
	if n > burstThreshold && !(j.rec.detached && n <= smallPiece) {
		j.burst.hold()
		j.held = true
	}
}

// makeRoom sees to it that n more bytes fit into buf: it begins with a small buffer, goes on
// with a large one if one is to be had, and writes what is there. false: they do not fit.
func (j *jsonStream) makeRoom(n int) bool {
	if j.buf == nil {
		j.small = smallPieces.Get().(*[]byte)
		j.buf = *j.small
	}
	if len(j.buf)+n <= cap(j.buf) {
		return true
	}
	if j.small == nil {
		j.write(j.buf)
		j.buf = j.buf[:0]
		j.yield()
		return true
	}
	large := pieces.get()
	if large == nil {
		return false
	}
	large = append(large, j.buf...)
	j.giveBack()
	j.buf = large
	return true
}

// yield lets others go first: a few large answers must not keep many small ones waiting.
func (j *jsonStream) yield() {
	if !j.rec.watch {
		runtime.Gosched()
	}
}

// write writes p, a piece at a time, and before the first byte the header.
func (j *jsonStream) write(p []byte) {
	for len(p) > 0 && j.err == nil {
		n := min(len(p), pieceSize+largePart)
		j.writePiece(p[:n])
		p = p[n:]
	}
}

func (j *jsonStream) writePiece(p []byte) {
	j.begin()
	j.hold(len(p))
	if j.takeTurn() {
		late := time.AfterFunc(turnPatience, func() { <-turns })
		defer func() {
			if late.Stop() {
				<-turns
			} else {
				j.hurried = true
			}
		}()
	}
	_, j.err = j.rec.Write(p)
}

// turns are held by those who write a piece of a large answer. Many of them at the same time
// would leave no core to anything else, and would not be done any earlier. Who waits for a
// client that does not read gives up the turn after turnPatience, and takes no more.
var turns = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// takeTurn waits for a turn, if it writes a large answer, and returns whether there is
// one to give back. Who has waited in vain asks no more.
func (j *jsonStream) takeTurn() bool {
	if !j.held || j.rec.watch || j.hurried {
		return false
	}
	select {
	case turns <- struct{}{}:
		return true
	default:
	}
	patience := time.NewTimer(turnPatience)
	defer patience.Stop()
	select {
	case turns <- struct{}{}:
		return true
	case <-patience.C:
		j.hurried = true
		return false
	}
}

func (j *jsonStream) begin() {
	if j.rec.code != 0 {
		return
	}
	header := j.rec.Header()
	header.Set("Content-Type", j.contentType)
	if j.gzip {
		setGzip(header)
	}
	if j.length > 0 {
		header.Set("Content-Length", strconv.Itoa(j.length))
	}
	j.rec.WriteHeader(j.code)
}

// flush sends what has been written, so that the client can read all of it.
func (j *jsonStream) flush() error {
	if j.gzip {
		j.add(emptyStored) // makes every decoder deliver what it has
	}
	j.begin()
	j.held = true
	err := j.send()
	j.rec.stopTimeout()
	return err
}

// end writes what is left, and the end of a gzip stream.
func (j *jsonStream) end() error {
	if j.gzip {
		trailer := [10]byte{0: 0x03} // an empty last block
		binary.LittleEndian.PutUint32(trailer[2:], j.crc)
		binary.LittleEndian.PutUint32(trailer[6:], j.size)
		j.add(trailer[:])
	}
	return j.send()
}

// send writes what is there. What is small is left to net/http, which sends it with the
// header and the end of the answer.
func (j *jsonStream) send() error {
	j.write(j.buf)
	j.giveBack()
	if j.err == nil && j.held {
		j.err = j.control.Flush()
	}
	j.release()
	return j.err
}

// release gives back what was lent.
func (j *jsonStream) release() {
	if err := j.burst.release(); err != nil && j.err == nil {
		j.err, j.rec.writeErr = err, err
	}
	j.held = false
	j.giveBack()
}

func (j *jsonStream) giveBack() {
	switch {
	case j.small != nil:
		smallPieces.Put(j.small)
	case j.buf != nil:
		pieces.put(j.buf)
	}
	j.buf, j.small = nil, nil
}
