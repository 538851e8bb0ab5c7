package cache

import "sort"

// ring keeps the most recent events, numbered from 1 in order of arrival, within bounds of
// count and bytes.
type ring[T any] struct {
	slots     []slot[T] // the event of sequence s is in slots[s%len(slots)]; nil before the first one
	first     uint64    // the oldest sequence that is kept; first == next if none is
	next      uint64    // the sequence of the next event
	bytes     int
	maxEvents int
	maxBytes  int
	since     int64 // every event after this revision is kept
}

type slot[T any] struct {
	event *Event[T]
	bytes int
}

func (r *ring[T]) init(maxEvents, maxBytes int) {
	r.maxEvents, r.maxBytes, r.first, r.next = maxEvents, maxBytes, 1, 1
}

// reset empties the ring, which is then complete after the revision since.
func (r *ring[T]) reset(since int64) {
	clear(r.slots)
	r.first, r.bytes, r.since = r.next, 0, since
}

// append adds an event, drops old ones as the bounds require, and returns the event's
// sequence. The newest event is always kept.
func (r *ring[T]) append(event *Event[T], bytes int) uint64 {
	if r.slots == nil {
		r.slots = make([]slot[T], r.maxEvents)
	}
	if r.next-r.first == uint64(len(r.slots)) {
		r.drop()
	}
	sequence := r.next
	r.slots[sequence%uint64(len(r.slots))] = slot[T]{event, bytes}
	r.next++
	r.bytes += bytes
	for r.bytes > r.maxBytes && r.next-r.first > 1 {
		r.drop()
	}
	return sequence
}

func (r *ring[T]) drop() {
	oldest := &r.slots[r.first%uint64(len(r.slots))]
	r.since = oldest.event.Revision
	r.bytes -= oldest.bytes
	*oldest = slot[T]{}
	r.first++
}

// at returns the event with a sequence that is kept.
func (r *ring[T]) at(sequence uint64) *Event[T] {
	return r.slots[sequence%uint64(len(r.slots))].event
}

// after returns the sequence of the first event after the revision, which may be r.next, and
// reports whether all events after the revision are kept.
func (r *ring[T]) after(revision int64) (uint64, bool) {
	if revision < r.since {
		return 0, false
	}
	offset := sort.Search(int(r.next-r.first), func(i int) bool {
		return r.at(r.first+uint64(i)).Revision > revision
	})
	return r.first + uint64(offset), true
}
