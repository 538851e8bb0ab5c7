package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// body is a request's body, read whole. The decoders copy what they keep of it.
type body struct {
	buffer *bytes.Buffer
	done   func() // gives back what a large body has of maxLargeBodies; nil: nothing
}

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooledBody keeps a few large bodies from occupying memory for ever, in bytes.
const maxPooledBody = 256 << 10

const (
	// largeBody is the size in bytes from which a request waits for its turn once its body is
	// read, and has it until it is answered: what is decoded lives as long.
	largeBody = 64 << 10
	// maxLargeBodies bounds the large bodies that are worked on at once, in bytes: lists of
	// empty elements become a hundred times as large when they are decoded.
	maxLargeBodies = 2 * maxBodyBytes
)

var errBodyTooLarge = apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBodyBytes))

func (b body) bytes() []byte { return b.buffer.Bytes() }

func (b body) release() {
	if b.done != nil {
		b.done()
	}
	if b.buffer.Cap() <= maxPooledBody {
		b.buffer.Reset()
		bodies.Put(b.buffer)
	}
}

// readBody reads the body, of which at most maxBodyBytes are taken: a longer one is
// refused before it is read where it tells its length, and else once the limit is passed. A
// large one comes when it is its turn.
func (s *Server) readBody(c *call) (body, error) {
	if c.req.ContentLength > maxBodyBytes {
		return body{}, errBodyTooLarge
	}
	// A deadline that has passed would cost a connection of HTTP/1, whatever has come on it.
	if err := c.timedOut("before its body was read"); err != nil {
		return body{}, err
	}
	if deadline, ok := c.ctx.Deadline(); ok {
		c.rec.limitReading(deadline)
	}
	b := body{buffer: bodies.Get().(*bytes.Buffer)}
	// One byte more than the limit tells a body at the limit from one beyond it.
	n, err := b.buffer.ReadFrom(io.LimitReader(c.rec, maxBodyBytes+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errTimedOut("while its body was being read")
	case err != nil:
		err = apierrors.NewBadRequest(fmt.Sprintf("the body of the request could not be read: %v", err))
	case n > maxBodyBytes:
		err = errBodyTooLarge
	default:
		err = c.timedOut("while its body was being read")
	}
	if err != nil {
		b.release()
		return body{}, err
	}
	if n < largeBody {
		return b, nil
	}
	if s.largeBodies.Acquire(c.ctx, n) != nil {
		b.release()
		return body{}, errTimedOut("before it was the turn of its body, which is large, to be decoded")
	}
	b.done = func() { s.largeBodies.Release(n) }
	return b, nil
}
