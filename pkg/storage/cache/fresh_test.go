package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// register is a key whose versions are ordered by the store, so that linearizability is
// this: a read returns no version older than any write, or the result of any read, that
// ended before it began.
type register struct {
	key   string
	ended atomic.Int64 // the newest version of all writes and reads that have ended
}

func (r *register) end(revision int64) {
	for {
		known := r.ended.Load()
		if known >= revision || r.ended.CompareAndSwap(known, revision) {
			return
		}
	}
}

func TestFreshIsLinearizable(t *testing.T) {
	prefix := newPrefix()
	// The other server is another storage over the same etcd, and another cache.
	other, err := etcd.New(shared.client, etcd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	stores := []storage.Interface{shared.store, other}
	caches := []*running{newCache(t, stores[0], prefix), newCache(t, stores[1], prefix)}
	registers := make([]*register, 3)
	for i := range registers {
		registers[i] = &register{key: fmt.Sprintf("%sns/r%d", prefix, i)}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var writers, readers sync.WaitGroup
	for i := range 6 {
		writers.Go(func() { writeRegisters(ctx, t, stores[i%2], registers, i) })
	}
	written := make(chan struct{})
	var reads atomic.Int64
	for i := range 8 {
		readers.Go(func() {
			for n := i; ; n++ {
				select {
				case <-written:
					return
				default:
				}
				r := registers[n%len(registers)]
				least := r.ended.Load()
				if err := caches[i%2].Fresh(ctx); err != nil {
					t.Error(err)
					return
				}
				entry, _, err := caches[i%2].Get(r.key)
				if err != nil {
					t.Error(err)
					return
				}
				var got int64
				if entry != nil {
					got = entry.Revision
				}
				if got < least {
					t.Errorf("%s: read version %d after %d was known", r.key, got, least)
					return
				}
				r.end(got)
				reads.Add(1)
			}
		})
	}
	writers.Wait()
	close(written)
	readers.Wait()
	if reads.Load() < 100 {
		t.Errorf("only %d reads", reads.Load())
	}
}

// writeRegisters writes each register a number of times, by compare-and-swap.
func writeRegisters(ctx context.Context, t *testing.T, store storage.Interface, registers []*register, writer int) {
	for n := range 60 {
		r := registers[(writer+n)%len(registers)]
		var expect int64
		for {
			response, err := store.Put(ctx, r.key, []byte("v"), storage.PutOptions{Expect: expect})
			if err != nil {
				t.Error(err)
				return
			}
			if response.Succeeded {
				r.end(response.Revision)
				break
			}
			if expect = 0; response.Current != nil {
				expect = response.Current.ModRevision
			}
		}
	}
}

// A write that has been answered is waited for, as long as it takes to arrive.
func TestFreshWaitsForTheWatch(t *testing.T) {
	prefix := newPrefix()
	store := newFlaky(shared.store)
	c := newCache(t, store, prefix)
	release := store.hold()
	defer release()
	shared.put(t, prefix+"a", "1")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Fresh(ctx); !errors.Is(err, storage.ErrTimeout) {
		t.Fatalf("got %v before the event arrived, want ErrTimeout", err)
	}
	release()
	if err := c.Fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if entry, _, err := c.Get(prefix + "a"); entry == nil || err != nil {
		t.Errorf("got %v, %v", entry, err)
	}
}

// Writes outside the prefix bring no events: the watch's progress tells, and one request
// for it serves all who wait for the same revision.
func TestWaitForForeignWrites(t *testing.T) {
	prefix := newPrefix()
	store := newFlaky(shared.store)
	c := newCache(t, store, prefix)
	for range 5 {
		before := store.progress.Load()
		revision := shared.put(t, newPrefix()+"foreign", "1")
		var readers sync.WaitGroup
		for range 100 {
			readers.Go(func() { c.waitFor(t, revision) })
		}
		readers.Wait()
		if asked := store.progress.Load() - before; asked > 20 {
			t.Errorf("100 readers asked for progress %d times", asked)
		}
	}
	if err := c.Fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWaitForGivesUp(t *testing.T) {
	c := newCache(t, shared.store, newPrefix())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.WaitFor(ctx, 1<<60); !errors.Is(err, storage.ErrTimeout) {
		t.Errorf("got %v, want ErrTimeout", err)
	}
	if c.reports.Load() != 0 {
		t.Errorf("%d reports of a reader that gave up", c.reports.Load())
	}
}

// heldRevision makes calls of Revision wait for release; begun receives each call.
func heldRevision(store *flaky) (begun chan struct{}, release func()) {
	begun = make(chan struct{}, 1000)
	held := make(chan struct{})
	store.revision = func(ctx context.Context) (int64, error) {
		begun <- struct{}{}
		select {
		case <-held:
			return store.Interface.Revision(ctx)
		case <-ctx.Done():
			return 0, storage.ErrTimeout
		}
	}
	return begun, sync.OnceFunc(func() { close(held) })
}

// waitsForALook reports whether somebody has joined the next look.
func waitsForALook(c *running) bool {
	c.fresh.mu.Lock()
	defer c.fresh.mu.Unlock()
	return c.fresh.waiting != nil
}

// Readers that arrive during a look share the next one.
func TestFreshAfterItsContextHasEnded(t *testing.T) {
	c := newCache(t, shared.store, newPrefix())
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if err := c.Fresh(ctx); !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrUnavailable and the context's error", err)
	}
}

func TestFreshSharesLooks(t *testing.T) {
	store := newFlaky(shared.store)
	begun, release := heldRevision(store)
	c := newCache(t, store, newPrefix())
	var readers sync.WaitGroup
	fresh := func() {
		if err := c.Fresh(t.Context()); err != nil {
			t.Error(err)
		}
	}
	readers.Go(fresh)
	<-begun
	var come atomic.Int64
	for range 500 {
		readers.Go(func() {
			come.Add(1)
			fresh()
		})
	}
	eventually(t, "all readers come", func() bool { return come.Load() == 500 && waitsForALook(c) })
	release()
	readers.Wait()
	if looks := store.revisions.Load(); looks < 2 || looks > 10 {
		t.Errorf("501 readers took %d looks, want a few and at least 2", looks)
	}
}

// A reader that gives up returns at once, whether it looks for others or waits its turn;
// the others are served.
func TestFreshOutlivesItsLeader(t *testing.T) {
	store := newFlaky(shared.store)
	begun, release := heldRevision(store)
	c := newCache(t, store, newPrefix())
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp, served := make(chan error, 2), make(chan error, 10)
	go func() { gaveUp <- c.Fresh(ctx) }()
	<-begun
	go func() { gaveUp <- c.Fresh(ctx) }()
	eventually(t, "a second look", func() bool { return waitsForALook(c) })
	for range cap(served) {
		go func() { served <- c.Fresh(t.Context()) }()
	}
	cancel()
	for range cap(gaveUp) {
		select {
		case err := <-gaveUp:
			if !errors.Is(err, storage.ErrTimeout) {
				t.Errorf("a reader that gave up: %v, want ErrTimeout", err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("a reader that gave up still waits")
		}
	}
	<-begun // another looks
	release()
	for range cap(served) {
		if err := <-served; err != nil {
			t.Errorf("a reader that waits: %v", err)
		}
	}
}

type cancelKey struct{}

// A look that ends because the reader who looked gave up is repeated by another.
func TestFreshRepeatsAbandonedLooks(t *testing.T) {
	store := newFlaky(shared.store)
	c := newCache(t, store, newPrefix())
	const readers, giveUp = 10, 3
	come := make(chan struct{})
	var looks atomic.Int64
	store.revision = func(ctx context.Context) (int64, error) {
		switch n := looks.Add(1); {
		case n == 1:
			<-come
		case n <= 1+giveUp:
			ctx.Value(cancelKey{}).(context.CancelFunc)()
			return 0, storage.ErrTimeout
		}
		return shared.store.Revision(ctx)
	}
	results := make(chan error, readers)
	fresh := func() {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		results <- c.Fresh(context.WithValue(ctx, cancelKey{}, cancel))
	}
	go fresh()
	eventually(t, "a look", func() bool { return looks.Load() == 1 })
	for range readers - 1 {
		go fresh()
	}
	eventually(t, "another look", func() bool { return waitsForALook(c) })
	close(come)
	failed := 0
	for range readers {
		if err := <-results; errors.Is(err, storage.ErrTimeout) {
			failed++
		} else if err != nil {
			t.Error(err)
		}
	}
	if failed != giveUp {
		t.Errorf("%d readers failed, want the %d that gave up", failed, giveUp)
	}
}

// A store that cannot be asked fails the reads that wait for it, and no later ones.
func TestFreshFails(t *testing.T) {
	store := newFlaky(shared.store)
	c := newCache(t, store, newPrefix())
	store.revision = func(context.Context) (int64, error) { return 0, storage.ErrUnavailable }
	if err := c.Fresh(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	store.revision = nil
	if err := c.Fresh(t.Context()); err != nil {
		t.Error(err)
	}
}

// On a store at rest, the watch of a cache that has just been filled does not keep others
// from hearing how far they are.
func TestProgressOnAStoreAtRest(t *testing.T) {
	db := newDatabase(t)
	db.put(t, "/elsewhere", "1")
	first := newCache(t, db.store, newPrefix())
	db.put(t, "/elsewhere", "2")
	newCache(t, db.store, newPrefix())
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // etcd tells by itself every 5 s
	defer cancel()
	if err := first.Fresh(ctx); err != nil {
		t.Error(err)
	}
	if _, err := db.store.History(ctx, newPrefix(), 1, db.revision(t), 1<<20); err != nil {
		t.Error(err)
	}
}
