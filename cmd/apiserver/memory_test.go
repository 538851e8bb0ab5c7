package main

import (
	"runtime"
	"testing"
	"time"
)

func TestGCPercent(t *testing.T) {
	now := time.Unix(0, 0)
	tuner := &gcTuner{last: now, percent: idleGCPercent}
	step := func(live, allocated uint64, took time.Duration, want int) {
		t.Helper()
		now = now.Add(took)
		if tuner.next(now, live, tuner.allocated+allocated); tuner.percent != want {
			t.Errorf("%d live and %d allocated in %v: %d %%, want %d", live, allocated, took, tuner.percent, want)
		}
	}
	const mb = 1 << 20
	step(10*mb, 10*mb, 100*time.Millisecond, idleGCPercent)
	for range gcLasting - 1 {
		step(10*mb, 10*mb, 100*time.Millisecond, idleGCPercent) // busy, but not for long
	}
	step(10*mb, 10*mb, 100*time.Millisecond, 320)
	step(10*mb, 32*mb, 320*time.Millisecond, 320) // as busy, collected less often
	step(9*mb, 32*mb, 320*time.Millisecond, 340)
	step(13*mb, 32*mb, 320*time.Millisecond, 240) // an eighth stays
	step(0, 32*mb, 0, 3200)
	step(0, 10*mb, time.Second, idleGCPercent)
	step(0, 10*mb, 100*time.Millisecond, idleGCPercent)
	step(100*mb, 100*mb, time.Second, idleGCPercent)
	for range gcLasting - 1 {
		step(100*mb, 10*mb, 100*time.Millisecond, idleGCPercent)
	}
	step(100*mb, 10*mb, 100*time.Millisecond, minGCPercent)
	for live := uint64(104 * mb); live < 150*mb; live += 4 * mb { // two fifths stay
		step(live, 10*mb, 100*time.Millisecond, idleGCPercent)
	}
}

func TestTheTunerFollowsTheCollector(t *testing.T) {
	tuner := &gcTuner{percent: idleGCPercent}
	seen := make(chan uint64, 2)
	runtime.SetFinalizer(&sentinel{tuner}, func(s *sentinel) {
		s.tuner.collected(time.Now())
		seen <- s.tuner.allocated
	})
	for {
		runtime.GC()
		select {
		case allocated := <-seen:
			if allocated == 0 {
				t.Error("the tuner does not know what was allocated")
			}
			return
		default:
		}
	}
}
