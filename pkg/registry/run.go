package registry

import (
	"hash/maphash"
	"iter"
	"sync"
)

// run is what was once made of several objects that follow each other in lists. It is kept
// with the first of them, for as long as that is there, and holds none of the others.
type run struct {
	ids  []uint64 // of the objects
	once sync.Once
	data []byte
}

const (
	// runBytes bounds a run of more than one object. A change of an object makes its run
	// anew when it is next asked for; longer runs compress hardly better.
	runBytes = 64 << 10
	// runObjects is how many objects lie, on average, between two that begin a run wherever
	// the one before ends. So what comes or goes leaves all later runs as they are.
	runObjects = 64
)

var runSeed = maphash.MakeSeed()

// DerivedItems returns what derive makes of the items, of several at a time: of the first
// one's second part of Finished, a comma, the next one whole, and so on. It is made once for
// all lists in which the same objects follow each other; derive is always the same. The
// sequence ends with the first error, that of an object that cannot be served.
func (l *objectList) DerivedItems(derive func(items []byte) []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for objects := l.objects; len(objects) > 0; {
			first := objects[0]
			if first.broken != nil {
				yield(nil, first.broken)
				return
			}
			n := runLength(objects)
			data := first.deriveRun(objects[:n], derive)
			if !yield(data, nil) {
				return
			}
			objects = objects[n:]
		}
	}
}

// runLength is how many of the objects the next run has: as many as the one that is there
// already, if it still holds.
func runLength(objects []*object) int {
	if r := objects[0].run.Load(); r != nil && r.leads(objects) {
		return len(r.ids)
	}
	size := len(objects[0].json)
	for i, o := range objects[1:] {
		size += len(o.json)
		if size > runBytes || o.broken != nil || maphash.String(runSeed, o.key)%runObjects == 0 {
			return i + 1
		}
	}
	return len(objects)
}

// leads reports whether the objects begin with those of the run.
func (r *run) leads(objects []*object) bool {
	if len(r.ids) > len(objects) {
		return false
	}
	for i, id := range r.ids {
		if objects[i].id != id {
			return false
		}
	}
	return true
}

// deriveRun returns what derive makes of the objects, of which o is the first.
func (o *object) deriveRun(objects []*object, derive func([]byte) []byte) []byte {
	if len(objects) == 1 {
		return o.Derived(derive)
	}
	r := o.run.Load()
	for r == nil || len(r.ids) != len(objects) || !r.leads(objects) {
		o.run.CompareAndSwap(r, newRun(objects)) // or another list was faster
		r = o.run.Load()
	}
	r.once.Do(func() { r.data = deriveJoined(objects, derive) })
	return r.data
}

func newRun(objects []*object) *run {
	r := &run{ids: make([]uint64, len(objects))}
	for i, o := range objects {
		r.ids[i] = o.id
	}
	return r
}

// joinBuffers are *[]byte for the objects of a run.
var joinBuffers = sync.Pool{New: func() any {
	buf := make([]byte, 0, runBytes)
	return &buf
}}

// deriveJoined returns what derive makes of the objects as they stand in a list, without the
// first brace.
func deriveJoined(objects []*object, derive func([]byte) []byte) []byte {
	buf := joinBuffers.Get().(*[]byte)
	defer joinBuffers.Put(buf)
	items, head := (*buf)[:0], objects[0].resource.typeHeadLen()
	for i, o := range objects {
		if i > 0 {
			items = append(items, ",{"...)
		}
		items = append(items, o.json[head:]...)
	}
	*buf = items
	return derive(items)
}
