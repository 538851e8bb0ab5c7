package object

import (
	"errors"
	"iter"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// List is the objects of a list, put together only while it is written.
type List struct {
	Type    *Type
	Meta    metav1.ListMeta
	Objects []*Object
	// Adjacent says that nothing stored lies between the objects, so that other lists have
	// the same ones next to each other; FromStart, that nothing precedes the first one.
	Adjacent, FromStart bool
	// Comparisons is how many requirements of selectors objects were compared with to find
	// these.
	Comparisons int
	// Release gives back the memory that is reserved for the objects; nil: none is.
	Release func()
}

// Done says that the list is not used any more. A nil List is none.
func (l *List) Done() {
	if l != nil && l.Release != nil {
		l.Release()
	}
}

// ErrStopping is the cause of the end of a watch's context whose server stops.
var ErrStopping = errors.New("the server is shutting down")

// WatchCost is what a watch costs.
type WatchCost struct {
	// Bytes are those of JSON that the objects have with which it begins, and Comparisons is how
	// many requirements of selectors were compared with objects to find these.
	Bytes, Comparisons int
	// Requirements are those of its selectors, which each change is compared with.
	Requirements int
}

// Event is one event of a watch.
type Event struct {
	Type   watch.EventType
	Object *Object
}

// run is what was once made of several objects that follow each other in lists. It is kept
// with the first of them, for as long as that is there, and holds none of the others.
type run struct {
	framing *Framing
	ids     []uint64 // of the objects
	block   *Block
}

const (
	// runBytes bounds a run of more than one object, in bytes of JSON. A change of an object
	// makes its run anew when it is next asked for; longer runs compress hardly better.
	runBytes = 64 << 10
	// borderEvery is how many objects lie, on average, between two that begin a run wherever
	// the one before ends. So what comes, goes or grows leaves all later runs as they are.
	borderEvery = 64
)

// Run is objects of a list in one block of gzip: the first one's bytes, and each further
// one as it stands in a list, with what separates it from the one before.
type Run struct {
	First int // bytes of the first one
	Block Block
}

// Runs yields the objects of the list as framed, compressed, one or several at a time. What
// is made for a framing is kept by its address and form.
// The sequence ends with the first error.
func (l *List) Runs(f *Framing) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		// A run that starts in the middle or skips objects would serve this list alone.
		inRuns := l.Adjacent && l.FromStart
		for objects := l.Objects; len(objects) > 0; {
			first, n := objects[0], 1
			inRuns = inRuns || first.border && l.Adjacent
			if inRuns {
				n = runLength(objects)
			}
			made, err := first.run(f, objects[:n])
			if !yield(made, err) || err != nil {
				return
			}
			objects = objects[n:]
		}
	}
}

// runLength is how many of the objects the first one's run has.
func runLength(objects []*Object) int {
	size := len(objects[0].json)
	for i, o := range objects[1:] {
		if size += len(o.json); size > runBytes || o.border {
			return i + 1
		}
	}
	return len(objects)
}

// run returns the run of the objects, of which o is the first.
func (o *Object) run(f *Framing, objects []*Object) (Run, error) {
	body, err := o.Body(f.Form)
	if err != nil {
		return Run{}, err
	}
	if len(objects) == 1 {
		block, err := o.Block(f.Form)
		return Run{len(body), block}, err
	}
	fs := o.formSet()
	fs.making.Lock()
	defer fs.making.Unlock()
	fs.mu.Lock()
	kept := fs.runs[f.Form]
	fs.mu.Unlock()
	if kept != nil && kept.framing == f && kept.is(objects) {
		return Run{len(body), *kept.block}, nil
	}
	made := &run{framing: f, ids: make([]uint64, len(objects))}
	for i, o := range objects {
		made.ids[i] = o.id
	}
	if made.block, err = compressJoined(f, objects); err != nil {
		return Run{}, err
	}
	fs.mu.Lock()
	fs.runs[f.Form] = made
	fs.mu.Unlock()
	o.Type.Forms.add(fs, runSlot+slot(f.Form), len(made.block.Data)+8*len(made.ids))
	return Run{len(body), *made.block}, nil
}

// is reports whether the run is that of the objects.
func (r *run) is(objects []*Object) bool {
	return slices.EqualFunc(r.ids, objects, func(id uint64, o *Object) bool { return id == o.id })
}

// joinBuffers are *[]byte for the objects of a run.
var joinBuffers = sync.Pool{New: func() any {
	buf := make([]byte, 0, runBytes)
	return &buf
}}

// compressJoined compresses the objects as they stand in a list, without the head of the
// first and the tail of the last.
func compressJoined(f *Framing, objects []*Object) (*Block, error) {
	buf := joinBuffers.Get().(*[]byte)
	defer joinBuffers.Put(buf)
	items := (*buf)[:0]
	for i, o := range objects {
		body, err := o.Body(f.Form)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			items = f.AppendHead(append(append(items, f.Tail...), f.Separator...), len(body))
		}
		items = append(items, body...)
	}
	*buf = items
	return Compress(items), nil
}
