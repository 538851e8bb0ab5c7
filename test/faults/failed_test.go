package faults

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// plan is all that a run depends on, except for the machine.
type plan struct {
	seed   uint64
	faults int    // 0 means one of each kind that is not slow, for a moment
	kinds  string // separated by commas; empty means all
}

func (p plan) String() string {
	return fmt.Sprintf("-seed=%d -faults=%d -kinds=%q", p.seed, p.faults, p.kinds)
}

// length returns how long a fault lasts: some have no effect before an election or a time-out.
func (p plan) length(random *rand.Rand) time.Duration {
	if p.faults == 0 {
		return time.Duration(100+random.IntN(300)) * time.Millisecond
	}
	return time.Duration(300+random.IntN(1500)) * time.Millisecond
}

func planned() plan { return plan{*seed, *faults, *only} }

// failed are runs that have failed once, for the reasons beside them.
var failed = []plan{
	// Servers were started before etcd had a leader, and gave up after five seconds.
	{3, 5, "cut a server off,cut the leader off one way,break connections"},
}

// What has failed once does not fail again.
func TestFailed(t *testing.T) {
	if !*again {
		t.Skip("only with -again")
	}
	for _, p := range failed {
		t.Run(fmt.Sprint("cluster ", p.seed), func(t *testing.T) { runCluster(t, p) })
		t.Run(fmt.Sprint("embedded ", p.seed), func(t *testing.T) { runEmbedded(t, p) })
	}
}
