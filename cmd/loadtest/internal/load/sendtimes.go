package load

import (
	"sync"
	"time"
)

// remembered is how many writes sendTimes knows: at 10,000 per second, those of the last 6 s.
const remembered = 1 << 16

// sendTimes remembers when the latest writes and deletions were sent, so that a watcher can
// tell how long their events took. It is safe for concurrent use.
type sendTimes struct {
	mu      sync.Mutex
	writes  [remembered]sending // by number of the write
	deletes [remembered]sending // by number of the object
}

type sending struct {
	number uint64
	at     time.Time
}

// mark records that an operation is being sent now.
func (s *sendTimes) mark(op *operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case op.write > 0:
		s.writes[op.write%remembered] = sending{op.write, op.connected}
	case op.verb == verbDelete:
		s.deletes[op.number%remembered] = sending{op.number, op.connected}
	}
}

func (s *sendTimes) ofWrite(number uint64) (at time.Time, ok bool) {
	return s.lookUp(&s.writes[number%remembered], number)
}

func (s *sendTimes) ofDelete(number uint64) (at time.Time, ok bool) {
	return s.lookUp(&s.deletes[number%remembered], number)
}

func (s *sendTimes) lookUp(slot *sending, number uint64) (at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slot.at, number != 0 && slot.number == number
}
