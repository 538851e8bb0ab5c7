package object

import (
	"sync"
	"sync/atomic"
	"weak"
)

// formOverhead is what a form is taken to cost beside its bytes.
const formOverhead = 96

// Budget bounds the memory of the forms that are made of objects. Beyond it the oldest are
// forgotten, and made anew when they are asked for again. Forms of objects that are gone
// count until then, though their memory is freed.
type Budget struct {
	max  int64
	used atomic.Int64

	mu   sync.Mutex
	kept []keptForm // oldest first
}

type keptForm struct {
	of   weak.Pointer[forms]
	slot slot
	size int64
}

// NewBudget returns a budget of so many bytes.
func NewBudget(bytes int64) *Budget { return &Budget{max: bytes} }

// Bytes returns how many bytes of forms are kept.
func (b *Budget) Bytes() int64 { return b.used.Load() }

// add takes a form into the account and forgets the oldest ones for it. The caller holds
// no lock of any forms.
func (b *Budget) add(of *forms, s slot, size int) {
	if b == nil {
		return
	}
	for _, oldest := range b.charge(keptForm{weak.Make(of), s, int64(size) + formOverhead}) {
		if fs := oldest.of.Value(); fs != nil {
			fs.forget(oldest.slot)
		}
	}
}

func (b *Budget) charge(form keptForm) (oldest []keptForm) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = append(b.kept, form)
	used := b.used.Load() + form.size
	n := 0
	for ; used > b.max && n < len(b.kept); n++ {
		used -= b.kept[n].size
	}
	oldest = append(oldest, b.kept[:n]...)
	clear(b.kept[:n])
	b.kept = b.kept[n:]
	b.used.Store(used)
	return oldest
}
