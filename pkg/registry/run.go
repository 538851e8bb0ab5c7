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
	// borderEvery is how many objects lie, on average, between two that begin a run wherever
	// the one before ends. So what comes, goes or grows leaves all later runs as they are.
	borderEvery = 64
)

var borderSeed = maphash.MakeSeed()

// isBorder says whether the object under the key always begins a run.
func isBorder(key string) bool { return maphash.String(borderSeed, key)%borderEvery == 0 }

// DerivedItems returns what derive makes of the items, of one or of several at a time: of the
// first one's second part of Finished, a comma, the next one whole, and so on. It is made
// once for all lists in which the same objects follow each other. derive is always the same,
// and keeps nothing of what it gets. There are no errors.
func (l *objectList) DerivedItems(derive func(items []byte) []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		// Runs that begin anywhere, or with gaps, would be as many as there are lists.
		inRuns := !l.selected && !l.continued
		for objects := l.objects; len(objects) > 0; {
			first, n := objects[0], 1
			inRuns = inRuns || first.border && !l.selected
			if inRuns {
				n = runLength(objects)
			}
			if !yield(first.deriveRun(objects[:n], derive), nil) {
				return
			}
			objects = objects[n:]
		}
	}
}

// runLength is how many of the objects the first one's run has.
func runLength(objects []*object) int {
	size := len(objects[0].json)
	for i, o := range objects[1:] {
		if size += len(o.json); size > runBytes || o.border {
			return i + 1
		}
	}
	return len(objects)
}

// is reports whether the run is that of the objects.
func (r *run) is(objects []*object) bool {
	if len(r.ids) != len(objects) {
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
	if r == nil || !r.is(objects) {
		made := newRun(objects)
		o.run.CompareAndSwap(r, made) // if another list was faster, its run stays
		r = made
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
	items, head := (*buf)[:0], objects[0].head
	for i, o := range objects {
		if i > 0 {
			items = append(items, ",{"...)
		}
		items = append(items, o.json[head:]...)
	}
	*buf = items
	return derive(items)
}
