package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// gate is a store that stops answering while it is closed, has no room while it is full, writes buckets
// without an answer while it is slow, and where others are always first while it is contended.
type gate struct {
	storage.Interface
	closed, full, slow, contended atomic.Bool
}

func (g *gate) Put(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
	if g.closed.Load() {
		<-ctx.Done()
		return storage.WriteResponse{}, fmt.Errorf("%w: %w", storage.ErrUnavailable, ctx.Err())
	}
	if g.full.Load() {
		return storage.WriteResponse{}, &storage.NearlyFullError{}
	}
	if g.contended.Load() {
		opts.Expect = 1 << 60
	}
	response, err := g.Interface.Put(ctx, key, value, opts)
	if err == nil && g.slow.Load() && strings.HasPrefix(key, bucketPrefix) {
		return storage.WriteResponse{}, storage.ErrUnknownOutcome
	}
	return response, err
}

// replica is a Limiter that runs.
type replica struct {
	*Limiter
	gate *gate
	stop func()
}

// startReplicas runs several replicas on the test's etcd, which know of each other.
func startReplicas(t testing.TB, count int, cfg *ratelimit.Config) []*replica {
	t.Helper()
	return startReplicasOn(t, client, count, cfg)
}

// startReplicasOn is startReplicas on another etcd.
func startReplicasOn(t testing.TB, client *clientv3.Client, count int, cfg *ratelimit.Config) []*replica {
	t.Helper()
	store, err := etcd.New(client, etcd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	replicas := make([]*replica, count)
	for i := range replicas {
		g := &gate{Interface: store}
		l := New(ratelimit.New(cfg), Config{Store: g})
		l.timeout = 5 * time.Second // a machine under load is no outage
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { l.Run(ctx) })
		replicas[i] = &replica{l, g, func() { cancel(); running.Wait() }}
		t.Cleanup(replicas[i].stop)
	}
	eventually(t, "the replicas know of each other", func() bool {
		for _, r := range replicas {
			r.mu.Lock()
			ready := r.watch > 0 && r.peers.count() == count && r.session > 0
			r.mu.Unlock()
			if !ready {
				return false
			}
		}
		return true
	})
	return replicas
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

var subjects atomic.Int64

// newSubject returns somebody without a bucket in the store.
func newSubject() ratelimit.Subject {
	n := subjects.Add(1)
	return ratelimit.Subject{Token: [32]byte{byte(n >> 8), byte(n), 1}, User: "alice"}
}

func reads(qps float64, burst int) *ratelimit.Config {
	return &ratelimit.Config{Defaults: ratelimit.Defaults{Read: &ratelimit.Limit{QPS: qps, Burst: burst}}}
}

func (r *replica) read(s ratelimit.Subject, n int) time.Duration {
	return r.Allow(time.Now(), s, ratelimit.Read, n)
}

// count returns how many transactions the replicas have made.
func count(replicas ...*replica) (n float64) {
	for _, r := range replicas {
		for _, outcome := range []string{taken, returned, conflict, failed} {
			n += testutil.ToFloat64(r.metrics.transactions.WithLabelValues(outcome))
		}
	}
	return n
}

// stored returns a bucket's state in the store; false: there is none.
func (r *replica) stored(t testing.TB, s ratelimit.Subject) (stateOf, bool) {
	t.Helper()
	of, _ := r.Bucket(s, ratelimit.Read)
	response, err := r.store.Get(t.Context(), bucketKey(of.Key), storage.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if response.KV == nil {
		return stateOf{}, false
	}
	state, err := decode(response.KV.Value, of.Limit)
	if err != nil {
		t.Fatal(err)
	}
	return state, true
}

// Far beyond their limit replicas admit what one bucket has, and then who waits is admitted.
func TestReplicasAdmitTogether(t *testing.T) {
	const qps, burst, seconds = 40, 100, 4
	replicas := startReplicas(t, 3, reads(qps, burst))
	alice, bob := newSubject(), newSubject()
	var admitted, asked atomic.Int64
	began := time.Now()
	var clients sync.WaitGroup
	for i, r := range replicas {
		clients.Go(func() {
			tick := time.NewTicker(time.Duration(i+1) * 2 * time.Millisecond)
			defer tick.Stop()
			for now := range tick.C {
				if now.Sub(began) > seconds*time.Second {
					return
				}
				if asked.Add(1); r.read(alice, 1) == 0 {
					admitted.Add(1)
				}
			}
		})
	}
	clients.Wait()
	took := time.Since(began).Seconds()
	all := burst + qps*took
	t.Logf("%d of %d admitted, %.1f by one bucket, %v transactions", admitted.Load(), asked.Load(), all, count(replicas...))
	if got := float64(admitted.Load()); got > all || got < all-2*batch(ratelimit.Limit{QPS: qps, Burst: burst}) {
		t.Errorf("%v were admitted in %.2f s, want %v", got, took, all)
	}
	if each := float64(admitted.Load()) / count(replicas...); each < 5 {
		t.Errorf("a transaction for each %.1f admitted requests", each)
	}
	for i := range 3 {
		wait := time.Duration(0)
		for wait == 0 {
			wait = replicas[i].read(alice, 1)
		}
		if wait > 1500*time.Millisecond {
			t.Errorf("it must wait %v", wait)
		}
		<-time.After(wait)
		if again := replicas[(i+1)%3].read(alice, 1); again != 0 {
			t.Errorf("after the wait of %v it must wait %v at another", wait, again)
		}
	}
	if wait := replicas[0].read(bob, 1); wait != 0 {
		t.Errorf("another token must wait %v", wait)
	}
}

// What somebody far from the limit costs the store, and what somebody beyond it.
func TestTransactions(t *testing.T) {
	replicas := startReplicas(t, 2, reads(0.01, 1600))
	r, alice := replicas[0], newSubject()
	before := count(r)
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			if wait := r.read(alice, 1); wait != 0 {
				t.Errorf("it must wait %v", wait)
			}
		})
	}
	clients.Wait()
	if got := count(r) - before; got != 1 {
		t.Errorf("%v transactions for 50 requests at once, want that of the first", got)
	}
	for r.read(alice, 1) == 0 {
	}
	if used := count(r) - before; used > 60 {
		t.Errorf("%v transactions for 1600 requests", used)
	}
	before = count(r)
	for range 1000 {
		if r.read(alice, 1) == 0 {
			t.Fatal("more than the burst was admitted")
		}
	}
	if got := count(r) - before; got != 0 {
		t.Errorf("%v transactions for 1000 refusals, want none", got)
	}
	if got := replicas[1].read(alice, 1); got == 0 {
		t.Error("the other replica admits more")
	}
}

// Heavy requests that are refused, and light ones between that are admitted, cost the store little.
func TestRefusalsOfHeavyRequests(t *testing.T) {
	r, alice := startReplicas(t, 2, reads(0.001, 400))[0], newSubject()
	light, heavy := 0, 0
	for r.read(alice, 1) == 0 {
		if light++; light <= 200 {
			continue
		}
		before := count(r)
		if r.read(alice, 200) == 0 {
			t.Fatalf("a request of 200 is admitted after %d of 400", light)
		}
		if got := count(r) - before; got > 0 {
			heavy++
		}
	}
	if light != 400 || heavy > 10 {
		t.Errorf("%d light requests were admitted, and the refusals of %d heavy ones cost a transaction", light, heavy)
	}
}

// Heavy requests need what is there, or half a bucket, and what is owed counts everywhere.
func TestWeights(t *testing.T) {
	replicas := startReplicas(t, 2, reads(0.1, 100))
	alice := newSubject()
	if wait := replicas[0].read(alice, 5000); wait != 0 {
		t.Fatalf("a heavy request must wait %v", wait)
	}
	if wait, want := replicas[1].read(alice, 1), 49_010*time.Second; wait < want-time.Second || wait > want {
		t.Errorf("after it one must wait %v, want %v", wait, want)
	}
	bob := newSubject()
	replicas[0].Owe(time.Now(), bob, ratelimit.Read, 1000)
	eventually(t, "the other replica hears of what is owed", func() bool {
		wait := replicas[1].read(bob, 1)
		return wait > 8990*time.Second && wait < 9210*time.Second
	})
	state, limited := replicas[1].State(time.Now(), bob, ratelimit.Read)
	if !limited || state.Tokens > -890 || state.Alone {
		t.Errorf("state %+v, want some -900 tokens", state)
	}
}

// What others hold comes back for a request that needs it.
func TestBlocksComeBack(t *testing.T) {
	replicas := startReplicas(t, 3, reads(0.001, 160))
	alice := newSubject()
	for _, r := range replicas {
		if wait := r.read(alice, 1); wait != 0 {
			t.Fatalf("it must wait %v", wait)
		}
	}
	if state, _ := replicas[0].stored(t, alice); len(state.blocks) != 3 {
		t.Fatalf("blocks %v, want one for each", state.blocks)
	}
	admitted := 3
	eventually(t, "one replica admits all of the bucket", func() bool {
		for replicas[0].read(alice, 1) == 0 {
			admitted++
		}
		return admitted == 160
	})
	if state, _ := replicas[0].stored(t, alice); len(state.blocks) != 0 || state.level() > 1 {
		t.Errorf("state %+v", state)
	}
}

// A replica that stops gives back what it has.
func TestStopGivesBack(t *testing.T) {
	replicas := startReplicas(t, 2, reads(0.001, 160))
	alice := newSubject()
	replicas[0].read(alice, 1)
	if state, _ := replicas[0].stored(t, alice); state.own(replicas[0].replica) == 0 {
		t.Fatalf("it has no block: %+v", state)
	}
	replicas[0].stop()
	if state, _ := replicas[0].stored(t, alice); len(state.blocks) != 0 || state.level() < 158.9 {
		t.Errorf("the state is %+v, want 159 tokens", state)
	}
	eventually(t, "the other hears that it has gone", func() bool { return testutilReplicas(replicas[1]) == 1 })
}

func testutilReplicas(r *replica) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers.count()
}

// A damaged state counts as an empty bucket, and is replaced.
func TestDamagedState(t *testing.T) {
	replicas := startReplicas(t, 1, reads(10, 100))
	r, alice := replicas[0], newSubject()
	of, _ := r.Bucket(alice, ratelimit.Read)
	if _, err := client.Put(t.Context(), bucketKey(of.Key), "\x00"); err != nil {
		t.Fatal(err)
	}
	if wait := r.read(alice, 1); wait == 0 {
		t.Error("a damaged bucket admits")
	}
	eventually(t, "it is replaced", func() bool { return r.read(alice, 1) == 0 })
}

// Keys tell nobody who it is, and are those of all replicas.
func TestKeys(t *testing.T) {
	replicas := startReplicas(t, 1, nil)
	alice := newSubject()
	r := replicas[0]
	r.read(alice, 1)
	of, _ := r.Bucket(alice, ratelimit.Read)
	other, _ := ratelimit.New(nil).Bucket(alice, ratelimit.Read)
	write, _ := r.Bucket(alice, ratelimit.Write)
	key := bucketKey(of.Key)
	if key != bucketKey(other.Key) || key == bucketKey(write.Key) || key == bucketKey(of.Overflow) {
		t.Errorf("keys: %s, %s, %s, %s", key, bucketKey(other.Key), bucketKey(write.Key), bucketKey(of.Overflow))
	}
	if strings.Contains(key, "alice") || len(key) != len(bucketPrefix)+32 {
		t.Errorf("key %s", key)
	}
	response, err := client.Get(t.Context(), key)
	if err != nil || len(response.Kvs) != 1 || response.Kvs[0].Lease == 0 {
		t.Errorf("stored: %v, %v; want one with a lease", response, err)
	}
}

// Without room newcomers share a bucket, and idle ones leave.
func TestTableIsBounded(t *testing.T) {
	replicas := startReplicas(t, 1, reads(0.001, 4))
	r := replicas[0]
	// That of newcomers is the same each time.
	if _, err := client.Delete(t.Context(), bucketPrefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.max = 2
	r.mu.Unlock()
	for range 2 {
		if wait := r.read(newSubject(), 1); wait != 0 {
			t.Fatalf("who finds room must wait %v", wait)
		}
	}
	admitted := 0
	for range 10 {
		if r.read(newSubject(), 1) == 0 {
			admitted++
		}
	}
	if admitted != 4 || len(r.slots) != 3 {
		t.Errorf("%d newcomers were admitted with %d buckets, want 4 with 3", admitted, len(r.slots))
	}
	r.mu.Lock()
	for _, b := range r.slots {
		b.usedAt = b.usedAt.Add(-time.Hour)
		b.dry = 0
	}
	r.mu.Unlock()
	eventually(t, "idle buckets leave", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.slots) == 0 && len(r.buckets) == 0 && len(r.names) == 0
	})
}
