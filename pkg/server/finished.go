package server

import (
	"iter"

	"k8s.io/apimachinery/pkg/runtime"
)

// finished is an object that is kept as plain JSON.
type finished interface {
	// Finished returns the object as plain JSON, without a newline, in two parts: the
	// opening brace with kind and apiVersion, in whose place an item of a list has a mere
	// brace, and the rest. Neither is changed.
	Finished() (head, rest []byte, err error)
	// Derived returns what derive makes of the second part; derive is always the same. It
	// is made once and kept with the object. Finished has returned no error.
	Derived(derive func(rest []byte) []byte) []byte
}

// finishedList is a list of finished objects, put together only while it is written.
type finishedList interface {
	// FinishedItems returns the list as plain JSON up to its first item, and the items.
	FinishedItems() (head []byte, items iter.Seq[runtime.Object])
	// DerivedItems returns what derive makes of the items, of one or of several at a time: of
	// the first one's second part of Finished, a comma, the next one whole, and so on. It is
	// made once for all lists in which the same objects follow each other. derive is always
	// the same, and keeps nothing of what it gets.
	DerivedItems(derive func(items []byte) []byte) iter.Seq2[[]byte, error]
}

// renderFinished writes what is kept as plain JSON where the client wants just that. Else
// it returns false and has written nothing.
func (s *Server) renderFinished(rec *record, res result, out output) (done bool, err error) {
	if out.encoder != s.codecs.json.encoder {
		return false, nil
	}
	switch obj := res.object.(type) {
	case finished:
		return true, writeObject(rec, res.code, obj)
	case finishedList:
		return true, writeList(rec, res.code, obj)
	}
	return false, nil
}

func writeObject(rec *record, code int, obj finished) error {
	head, rest, err := obj.Finished()
	if err != nil {
		return err
	}
	size := len(head) + len(rest) + len("\n")
	j := newJSONStream(rec, code, size > gzipThreshold && rec.acceptsGzip())
	defer j.release()
	if !j.gzip {
		j.length = size
	}
	j.raw(head)
	j.finished(obj, rest)
	j.raw([]byte("\n"))
	return j.end()
}

// writeList streams a list. A list whose beginning cannot be written is still answered by
// an error.
func writeList(rec *record, code int, list finishedList) error {
	head, items := list.FinishedItems()
	j := newJSONStream(rec, code, rec.acceptsGzip() && isLarge(items))
	defer j.release()
	j.raw(head)
	separator := []byte("{")
	for part, err := range parts(list, items, j.gzip) {
		if err != nil {
			return err
		}
		j.raw(separator)
		if j.gzip {
			j.block(part)
		} else {
			j.add(part)
		}
		if j.err != nil {
			break
		}
		separator = []byte(",{")
	}
	j.raw([]byte("]}\n"))
	return j.end()
}

// parts are the items without the brace that each begins with: compressed and several at a
// time, or one after the other.
func parts(list finishedList, items iter.Seq[runtime.Object], gzip bool) iter.Seq2[[]byte, error] {
	if gzip {
		return list.DerivedItems(newBlock)
	}
	return func(yield func([]byte, error) bool) {
		for item := range items {
			if _, rest, err := item.(finished).Finished(); !yield(rest, err) {
				return
			}
		}
	}
}

// isLarge looks at no more items than it needs to. Those that cannot be served count
// nothing.
func isLarge(items iter.Seq[runtime.Object]) bool {
	size := 0
	for item := range items {
		if _, rest, err := item.(finished).Finished(); err == nil {
			size += len(rest)
		}
		if size > gzipThreshold {
			return true
		}
	}
	return false
}
