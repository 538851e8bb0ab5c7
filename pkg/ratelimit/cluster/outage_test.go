package cluster

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/ratelimit"
)

// Without an answer of the store each replica admits its share, and tells later.
func TestStoreDoesNotAnswer(t *testing.T) {
	replicas := startReplicas(t, 2, reads(0.01, 100))
	r, alice := replicas[0], newSubject()
	r.timeout = askTimeout
	r.gate.closed.Store(true)
	admitted := 0
	for r.read(alice, 1) == 0 {
		admitted++
	}
	if admitted != 50 {
		t.Errorf("%d were admitted alone, want half of the burst", admitted)
	}
	if state, _ := r.State(time.Now(), alice, ratelimit.Read); !state.Alone || state.Tokens >= 1 {
		t.Errorf("state %+v, want one that is alone without tokens", state)
	}
	if wait, want := r.read(alice, 1), 200*time.Second; wait < want-2*time.Second || wait > want {
		t.Errorf("the wait alone is %v, want %v", wait, want)
	}
	r.gate.closed.Store(false)
	eventually(t, "what was admitted alone is told", func() bool {
		state, ok := r.stored(t, alice)
		return ok && state.debt > 49 && state.debt <= 50
	})
	rest := 0
	for replicas[1].read(alice, 1) == 0 {
		rest++
	}
	if rest != 50 {
		t.Errorf("the other replica admits %d afterwards, want 50", rest)
	}
	if r.hasFailed() {
		t.Error("it still thinks that the store does not answer")
	}
}

// A store that takes no writes, while its watch goes on: registrations end, and a replica's share stays
// that of the replicas that there were. What it holds stays its own.
func TestStoreTakesNoWrites(t *testing.T) {
	replicas := startReplicas(t, 2, reads(0.001, 160))
	r, alice := replicas[0], newSubject()
	if wait := r.read(alice, 1); wait != 0 {
		t.Fatalf("it must wait %v", wait)
	}
	for _, r := range replicas {
		r.gate.full.Store(true)
	}
	of, _ := r.Bucket(alice, ratelimit.Read)
	r.mu.Lock()
	r.tell(r.buckets[of.Key])
	r.mu.Unlock()
	eventually(t, "it notices", r.hasFailed)
	r.mu.Lock()
	held := r.countHeld()
	r.mu.Unlock()
	if held != 1 {
		t.Error("it has lost its block, although nothing was written")
	}
	if _, err := client.Delete(t.Context(), replicaPrefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it hears that the registrations have ended", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.peers.live) == 0
	})
	bob, admitted := newSubject(), 0
	for r.read(bob, 1) == 0 {
		admitted++
	}
	if admitted != 80 {
		t.Errorf("%d were admitted alone, want half of the burst", admitted)
	}
}

// What is owed while the store does not answer is taken of the replica's share, and charged afterwards
// as far as the bucket has it.
func TestOweAlone(t *testing.T) {
	r, alice := startReplicas(t, 2, reads(0.01, 100))[0], newSubject()
	r.timeout = askTimeout
	r.gate.closed.Store(true)
	if wait := r.read(alice, 1); wait != 0 {
		t.Fatalf("it must wait %v", wait)
	}
	r.Owe(time.Now(), alice, ratelimit.Read, 1000)
	if wait, want := r.read(alice, 1), 190_400*time.Second; wait < want-2*time.Second || wait > want {
		t.Errorf("the wait alone is %v, want %v", wait, want)
	}
	r.gate.closed.Store(false)
	eventually(t, "it is told", func() bool {
		state, ok := r.stored(t, alice)
		return ok && state.level() < 1
	})
	if state, _ := r.stored(t, alice); state.level() < 0 {
		t.Errorf("the bucket owes %v", -state.level())
	}
}

// A write that may have been done tells what it was for: it is not charged again.
func TestOutcomesThatAreUnknown(t *testing.T) {
	r, alice := startReplicas(t, 1, reads(0.01, 100))[0], newSubject()
	r.gate.slow.Store(true)
	r.Owe(time.Now(), alice, ratelimit.Read, 200)
	eventually(t, "a write has no answer", r.hasFailed)
	eventually(t, "the store answers again", func() bool { return !r.hasFailed() })
	r.gate.slow.Store(false)
	r.Owe(time.Now(), alice, ratelimit.Read, 50)
	eventually(t, "what is owed is told", func() bool {
		state, ok := r.stored(t, alice)
		return ok && state.level() < -149
	})
	if state, _ := r.stored(t, alice); state.level() < -151 {
		t.Errorf("of 100 tokens %v are left after 250 are owed", state.level())
	}
}

// A registration that has ended, as after a pause of the process, is another one afterwards: the others
// count the blocks of the first one as used. It is noticed by the watch at once, and else when it is
// renewed.
func TestRegistrationEnds(t *testing.T) {
	r := startReplicas(t, 1, reads(0.001, 160))[0]
	sessions := func() (number, valid int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.session, r.validSession(r.now())
	}
	end := func() {
		if _, err := client.Delete(t.Context(), replicaPrefix+r.replica); err != nil {
			t.Fatal(err)
		}
	}
	first, _ := sessions()
	end()
	eventually(t, "the blocks of the registration are not valid any more", func() bool {
		_, valid := sessions()
		return valid != first
	})
	eventually(t, "it registers again", func() bool {
		_, valid := sessions()
		return valid == first+1
	})
	r.stop() // which ends the registration, and the watch
	last, _ := sessions()
	defer end()
	r.register(t.Context(), 1)
	if number, valid := sessions(); number != last+1 || valid != number {
		t.Errorf("after registration %d follows %d, and %d is valid", last, number, valid)
	}
}
