package apiserver

import (
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
	"time"
)

func TestIsIdle(t *testing.T) {
	const mb = 1 << 20
	for name, tc := range map[string]struct {
		kept, held, recent uint64
		want               bool
	}{
		"after a burst":             {100 * mb, 8000 * mb, 20 * mb, true},
		"during a burst":            {100 * mb, 8000 * mb, 800 * mb, false},
		"at work with a small heap": {50 * mb, 100 * mb, 50 * mb, false},
		"nothing has grown":         {100 * mb, 110 * mb, 0, false},
		"a little of a large heap":  {1000 * mb, 1100 * mb, 0, false},
		"the heap has shrunk":       {1000 * mb, 100 * mb, 0, false},
		"the first time":            {0, 40 * mb, 0, true},
	} {
		h := heap{kept: tc.kept, allocated: 5 * mb}
		if got := h.isIdle(tc.held, 5*mb+tc.recent); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// What a burst has left, in the heap and in pools, goes back to the system.
func TestReturnMemory(t *testing.T) {
	const size = 256 << 20
	held := func() uint64 {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64() + sample[1].Value.Uint64()
	}
	var pool sync.Pool
	burst := make([]byte, size)
	pool.Put(&burst)
	runtime.KeepAlive(burst)
	burst = nil
	if held() < size {
		t.Fatal("nothing is held")
	}
	ticks := make(chan time.Time, 2)
	for range cap(ticks) { // the first has the burst in it
		ticks <- time.Now()
	}
	close(ticks)
	returnMemory(t.Context(), ticks)
	if got := held(); got > size/2 {
		t.Errorf("%d bytes are still held", got)
	}
}
