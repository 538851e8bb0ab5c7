//go:build !linux

package schedule

import "time"

// sleepUntil returns at t, or as soon after it as the system's timers allow.
func sleepUntil(t time.Time) { <-time.After(time.Until(t)) }
