package apiserver

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// memoryInterval is how often the heap is looked at.
	memoryInterval = 5 * time.Second
	// minGrowth is what the heap must have grown by for a collection to be worth it, in bytes.
	minGrowth = 32 << 20
)

// heap is what is known of the heap, in bytes.
type heap struct {
	kept      uint64 // what it took when memory was last returned
	allocated uint64 // since the process started, as of the last look
}

// isIdle reports whether memory is worth returning: the heap has grown, and what is allocated
// now is so little that nobody notices a collection. held is what the heap takes.
func (h *heap) isIdle(held, allocated uint64) bool {
	recent := allocated - h.allocated
	h.allocated, h.kept = allocated, min(h.kept, held)
	grown := held - h.kept
	return grown >= max(minGrowth, h.kept/4) && recent < grown/16
}

// returnMemory gives memory back to the system once the requests that needed it have ended,
// until ctx ends or ticks is closed. Go by itself waits until the heap has doubled, or two
// minutes: after a burst of large requests that is a heap of gigabytes.
func returnMemory(ctx context.Context, ticks <-chan time.Time) {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"},
	}
	read := func() (held, allocated uint64) {
		metrics.Read(samples)
		return samples[0].Value.Uint64() + samples[1].Value.Uint64() + samples[2].Value.Uint64(), samples[3].Value.Uint64()
	}
	var h heap
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-ticks:
			if !ok {
				return
			}
		}
		if h.isIdle(read()) {
			runtime.GC() // what pools hold goes with the second collection
			debug.FreeOSMemory()
			h.kept, h.allocated = read()
		}
	}
}
