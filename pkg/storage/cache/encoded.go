package cache

import (
	"bytes"
	"io"
	"sync"
)

// maxEncodedBytes bounds the encodings kept for all events together. Watchers write an event
// at about the same time; one that comes later encodes it again.
const maxEncodedBytes = 16 << 20

// encodings tracks the encodings that are kept, oldest first.
type encodings struct {
	mu    sync.Mutex
	kept  []keptEncoding
	bytes int
}

type keptEncoding struct {
	of    *encoded
	bytes int
}

// encoded holds the encodings of one event by name. It is separate from the event, so that
// encodings does not keep objects alive.
type encoded struct {
	mu    sync.Mutex
	forms map[string][]byte
}

// Encoded returns what encode writes for the event, which must depend only on the event and
// id. Calls at about the same time share one encoding.
func (e *Event[T]) Encoded(id string, encode func(io.Writer) error) ([]byte, error) {
	data, added, err := e.encoded.form(id, encode)
	if added > 0 {
		for _, oldest := range e.encodings.add(e.encoded, added) {
			oldest.forget()
		}
	}
	return data, err
}

// form returns the named encoding. If it has to be made, added is its size.
func (e *encoded) form(id string, encode func(io.Writer) error) (data []byte, added int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if data, ok := e.forms[id]; ok {
		return data, 0, nil
	}
	var buf bytes.Buffer
	if err := encode(&buf); err != nil {
		return nil, 0, err
	}
	if e.forms == nil {
		e.forms = map[string][]byte{}
	}
	e.forms[id] = buf.Bytes()
	return buf.Bytes(), buf.Cap(), nil
}

// add records an encoding, and returns the oldest ones, which must be forgotten to make
// room for it. No lock is held while that is done.
func (a *encodings) add(of *encoded, size int) (oldest []*encoded) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept = append(a.kept, keptEncoding{of, size})
	a.bytes += size
	for len(a.kept) > 1 && a.bytes > maxEncodedBytes {
		oldest = append(oldest, a.kept[0].of)
		a.bytes -= a.kept[0].bytes
		a.kept[0] = keptEncoding{}
		a.kept = a.kept[1:]
	}
	return oldest
}

func (e *encoded) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forms = nil
}
