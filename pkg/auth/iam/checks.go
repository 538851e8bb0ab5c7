package iam

import (
	"context"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

const (
	// waitingPerCheck is how many checks of passwords may wait for each that runs.
	waitingPerCheck = 16
	// busyWait is how long a client is told to wait where there is no place.
	busyWait = time.Second
)

// checks bounds how many passwords are checked at once, which takes a core for a tenth of a second
// on purpose: one core is left for all other requests. Of the places that wait, an address may
// have half.
type checks struct {
	running chan struct{}
	places  int // running and waiting together

	mu        sync.Mutex
	taken     int
	byAddress map[netip.Addr]int
}

func newChecks() *checks {
	running := max(1, runtime.GOMAXPROCS(0)-1)
	return &checks{running: make(chan struct{}, running), places: running * (1 + waitingPerCheck), byAddress: map[netip.Addr]int{}}
}

// do calls check once it may run. It returns a *BusyError if there is no place, and ctx's error
// if ctx ends before it is its turn.
func (c *checks) do(ctx context.Context, address netip.Addr, check func()) error {
	if !c.enter(address) {
		return &BusyError{Wait: busyWait, Reason: "too many passwords are being checked"}
	}
	defer c.leave(address)
	select {
	case c.running <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.running }()
	check()
	return nil
}

func (c *checks) enter(address netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken >= c.places || c.byAddress[address] >= max(1, c.places/2) {
		return false
	}
	c.taken++
	c.byAddress[address]++
	return true
}

func (c *checks) leave(address netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken--
	if c.byAddress[address]--; c.byAddress[address] == 0 {
		delete(c.byAddress, address)
	}
}
