package cluster

import (
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/ratelimit"
)

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
