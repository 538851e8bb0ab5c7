package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/procfs"

	"github.com/berth-project/berth/cmd/loadtest/internal/report"
)

// usageInterval is how often the memory of a process is looked at.
const usageInterval = 100 * time.Millisecond

// usage adds up what a process uses while it is measured.
type usage struct {
	proc procfs.Proc
	used report.Process
	err  error // why it is not known; nil: it is
}

// newUsage returns the usage of a process that exists, or an error that says which flag is
// wrong.
func newUsage(flag string, pid int) (*usage, error) {
	proc, err := procfs.NewProc(pid)
	if err == nil {
		_, err = proc.Stat()
	}
	if err != nil {
		return nil, flagError(flag, fmt.Errorf("the process %d cannot be observed: %w", pid, err))
	}
	return &usage{proc: proc, used: report.Process{PID: pid}}, nil
}

// measure begins to measure, and returns a function that ends it. Nil measures nothing.
func (u *usage) measure() (end func()) {
	if u == nil {
		return func() {}
	}
	before := u.look()
	var looking sync.WaitGroup
	done := make(chan struct{})
	looking.Go(func() {
		ticker := time.NewTicker(usageInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				u.look()
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		looking.Wait()
		u.used.CPUSeconds += u.look() - before
	}
}

// look returns the CPU time so far in seconds, and notes the memory if it is the most.
func (u *usage) look() (cpu float64) {
	stat, err := u.proc.Stat()
	if err != nil {
		u.err = err
		return 0
	}
	u.used.PeakRSSBytes = max(u.used.PeakRSSBytes, int64(stat.ResidentMemory()))
	return stat.CPUTime()
}

// result returns what was used, nil if it is not known.
func (u *usage) result() *report.Process {
	if u == nil || u.err != nil {
		return nil
	}
	return &u.used
}
