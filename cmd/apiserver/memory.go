package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// gcHeadroom is how many bytes a busy server may allocate before they are collected.
	// What a small one keeps is some 10 MB, and Go would collect after every 10 MB more.
	gcHeadroom = 32 << 20
	// gcBusy is the rate of allocation, in bytes a second, from which on a server is busy
	// if it lasts for gcLasting collections. One that is not has no need of the memory.
	gcBusy, gcLasting = 40 << 20, 8
	// gcStays: up to one byte in so many that are allocated may stay, as objects and watches
	// do. Where more stay, less garbage gathers than it seems, and the memory is needed.
	gcStays = 6
	// idleGCPercent is half of Go's default: most of the memory lasts, objects and watches,
	// and what a server that is not busy allocates is soon collected. minGCPercent is what a
	// busy one with much in memory gets along with.
	idleGCPercent, minGCPercent = 50, 60
)

// gcTuner sets the garbage collector's percentage after each collection.
type gcTuner struct {
	last      time.Time
	allocated uint64 // bytes, until then
	live      uint64 // bytes, then, stacks included
	busy      int    // how many collections in a row came under a high rate
	percent   int
}

// tuneGC trades memory for CPU while the server is busy, unless the user has settled that
// by GOGC.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(idleGCPercent)
		(&gcTuner{last: time.Now(), percent: idleGCPercent}).arm()
	}
}

// sentinel is garbage as soon as it is made: its finalizer runs after the next collection.
type sentinel struct{ tuner *gcTuner }

func (t *gcTuner) arm() {
	runtime.SetFinalizer(&sentinel{t}, func(s *sentinel) {
		s.tuner.collected(time.Now())
		s.tuner.arm()
	})
}

func (t *gcTuner) collected(now time.Time) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	before := t.percent
	live := samples[0].Value.Uint64() + samples[1].Value.Uint64()
	if t.next(now, live, samples[2].Value.Uint64()); t.percent != before {
		debug.SetGCPercent(t.percent)
	}
}

// next settles how much may be allocated until the next collection, in percent of the live
// bytes. It moves in steps, since each change stops the server for a moment.
func (t *gcTuner) next(now time.Time, live, allocated uint64) {
	rate := float64(allocated-t.allocated) / max(now.Sub(t.last).Seconds(), 1e-3)
	grows := live > t.live+(allocated-t.allocated)/gcStays
	t.last, t.allocated, t.live = now, allocated, live
	if t.busy++; rate < gcBusy || grows {
		t.busy = 0
	}
	t.percent = idleGCPercent
	if t.busy >= gcLasting {
		t.percent = max(minGCPercent, int(gcHeadroom*100/max(live, 1<<20))/20*20)
	}
}
