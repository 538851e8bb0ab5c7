package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/berth-project/berth/pkg/server/share"
)

// body is a request's body, read whole. The decoders copy what they keep of it.
type body struct {
	buffer *bytes.Buffer
	taken  share.Taken // of the uploads
}

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooledBody keeps a few large bodies from occupying memory for ever, in bytes.
const maxPooledBody = 256 << 10

// largeBody is the size in bytes from which a body or an object counts as a large one, which
// needs memory that others may be using.
const largeBody = 64 << 10

var errBodyTooLarge = apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d bytes (%d MiB)", maxBodyBytes, maxBodyBytes>>20))

// errSlowBody is a 504, as for every request that takes too long; kube-apiserver has no 408.
var errSlowBody = apierrors.NewTimeoutError(fmt.Sprintf("the body of the request came too slowly: less than %d bytes a second after the first %v", minBodyRate, bodyGrace), 0)

func (b *body) bytes() []byte { return b.buffer.Bytes() }

func (b *body) release() {
	b.taken.GiveBack()
	if b.buffer.Cap() <= maxPooledBody {
		b.buffer.Reset()
		bodies.Put(b.buffer)
	}
}

// readBody reads the body, of which at most maxBodyBytes are taken, and begins the call's
// work. A longer body is refused before it is read where it tells its length, and else once
// the limit is passed. The caller releases the body.
func (s *Server) readBody(c *call) (*body, error) {
	if c.req.ContentLength > maxBodyBytes {
		return nil, errBodyTooLarge
	}
	// A deadline that has passed would cost a connection of HTTP/1, whatever has come on it.
	if err := c.timedOut("before its body was read"); err != nil {
		return nil, err
	}
	if deadline, ok := c.ctx.Deadline(); ok {
		c.rec.keepPace(deadline)
	}
	b := &body{buffer: bodies.Get().(*bytes.Buffer)}
	err := s.receive(c, b)
	if err == nil {
		c.rec.bodySize = b.buffer.Len()
		err = s.begin(c, b.buffer.Len())
	}
	if err != nil {
		b.release()
		return nil, err
	}
	return b, nil
}

// receive reads the body into b. Of a large one it takes the beginning, and the rest if there
// is room for it.
func (s *Server) receive(c *call, b *body) error {
	n, err := b.buffer.ReadFrom(io.LimitReader(c.rec, largeBody))
	if err == nil && n == largeBody {
		rest := maxBodyBytes - largeBody
		if length := int(c.req.ContentLength); length > 0 {
			rest = length - largeBody
		}
		// Not waited for: what waits unread on a connection of HTTP/2 keeps its other requests
		// from sending theirs.
		if b.taken, err = s.enter(c.rec, s.pools.uploads, rest); err != nil {
			return err
		}
		b.buffer.Grow(rest + bytes.MinRead) // what is taken, and no more
		// One byte more than the limit tells a body at the limit from one beyond it.
		_, err = b.buffer.ReadFrom(io.LimitReader(c.rec, maxBodyBytes-largeBody+1))
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && c.rec.body.tooSlow():
		return errSlowBody
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errTimedOut("while its body was being read")
	case err != nil:
		c.rec.cut = true
		return apierrors.NewBadRequest(fmt.Sprintf("the body of the request could not be read: %v", err))
	case b.buffer.Len() > maxBodyBytes:
		return errBodyTooLarge
	}
	return c.timedOut("while its body was being read")
}
