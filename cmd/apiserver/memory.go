package main

import (
	"os"
	"runtime/debug"
)

// ballastBytes counts as heap in use and is never touched, so that it takes no memory. What
// a small server keeps is some 10 MB: without it, a busy one would collect its garbage
// after every 10 MB, many times a second.
const ballastBytes = 32 << 20

// gcPercent makes up for the ballast: with 50 MB in use, garbage is collected as often as
// without both.
const gcPercent = 60

var ballast []byte

// relaxGC trades some memory for CPU, unless the user has settled that by GOGC. It is for
// after the start, whose garbage would stay.
func relaxGC() {
	if os.Getenv("GOGC") != "" {
		return
	}
	ballast = make([]byte, ballastBytes)
	debug.SetGCPercent(gcPercent)
}
