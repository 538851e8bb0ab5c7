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
type body struct{ buffer *bytes.Buffer }

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooledBody keeps a few large bodies from occupying memory for ever, in bytes.
const maxPooledBody = 256 << 10

var errBodyTooLarge = apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBodyBytes))

func (b body) bytes() []byte { return b.buffer.Bytes() }

func (b body) release() {
	if b.buffer.Cap() <= maxPooledBody {
		b.buffer.Reset()
		bodies.Put(b.buffer)
	}
}

// readBody reads the body, of which at most maxBodyBytes are taken: a longer one is
// refused before it is read where it tells its length, and else once the limit is passed.
func readBody(c *call) (body, error) {
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
	b := body{bodies.Get().(*bytes.Buffer)}
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
	return b, nil
}
