package metrics

import (
	"sync"
	"time"
)

// InFlight is how many requests are in progress, and how many were at most within the last
// second: a scrape would meet none of those that take milliseconds.
type InFlight struct {
	mu     sync.Mutex
	now    int
	second int64 // since 1970, that most is of
	most   int
	before int // the most in the second before
}

// Enter counts a request that begins.
func (f *InFlight) Enter() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn(time.Now().Unix())
	f.now++
	f.most = max(f.most, f.now)
}

// Leave counts a request that has ended.
func (f *InFlight) Leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn(time.Now().Unix())
	f.now--
}

// Most returns the most within the second that now is in, and the one before.
func (f *InFlight) Most(now time.Time) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn(now.Unix())
	return max(f.most, f.before)
}

// turn begins another second. f.mu must be held.
func (f *InFlight) turn(second int64) {
	switch {
	case second <= f.second:
		return
	case second == f.second+1:
		f.before = f.most
	default:
		f.before = f.now
	}
	f.second, f.most = second, f.now
}
