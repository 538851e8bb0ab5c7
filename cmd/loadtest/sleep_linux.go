package main

import (
	"syscall"
	"time"
)

// sleepUntil returns at t, or as soon after it as the system's timers allow. At 50 requests a
// second on an idle machine, the median request began 0.3 ms late with it, and 0.8 ms late
// with a timer of Go's, which is more than many a request takes.
func sleepUntil(t time.Time) {
	for {
		rest := time.Until(t)
		if rest <= 0 {
			return
		}
		// A signal ends it early; then there is a rest.
		interval := syscall.NsecToTimespec(rest.Nanoseconds())
		_ = syscall.Nanosleep(&interval, nil)
	}
}
