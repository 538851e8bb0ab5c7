package cluster

import "time"

// clock is the time that replicas have in common. It starts with the machine's time and then runs
// by the process's monotonic clock, so that a machine's clock that is set later changes nothing.
// It is put forward to the latest time that another replica has written: all follow the one
// that is ahead, and a time that was written is never in the future.
type clock struct {
	began time.Time
	start int64 // in nanoseconds since 1970, at began
	ahead int64 // how far it was put forward
}

// maxTime is the latest time that a clock can have, in the year 2116: what says more is damaged. A clock
// that is behind by however much, as that of a machine that has just begun in 1970, follows the others.
const maxTime = 1 << 62

func newClock(now time.Time) clock { return clock{began: now, start: now.UnixNano()} }

// at returns the common time at a time of this process.
func (c *clock) at(now time.Time) int64 { return c.start + int64(now.Sub(c.began)) + c.ahead }

// follow puts the clock forward to a time that was written, and reports whether it can be one.
func (c *clock) follow(now time.Time, written int64) bool {
	if written > maxTime {
		return false
	}
	c.ahead += max(0, written-c.at(now))
	return true
}
