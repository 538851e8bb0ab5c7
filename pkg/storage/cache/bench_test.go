package cache

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/btree"

	"github.com/berth-project/berth/pkg/storage"
)

// preloaded returns a cache that holds n entries and follows no store.
func preloaded(b *testing.B, n int) *Cache[string] {
	b.Helper()
	c, err := New(stringConfig(shared.store, "/registry/bench/"))
	if err != nil {
		b.Fatal(err)
	}
	c.tree = new(btree.Map[string, *Entry[string]])
	c.history.reset(1)
	for i := range n {
		c.apply(change(int64(i)+2, benchKey(i), strings.Repeat("x", 100)))
	}
	return c
}

func benchKey(i int) string { return fmt.Sprintf("/registry/bench/ns-%02d/e-%06d", i%20, i) }

func change(revision int64, key, value string) storage.WatchResponse {
	kv := &storage.KeyValue{Key: key, Value: []byte(value), CreateRevision: revision, ModRevision: revision}
	return storage.WatchResponse{Events: []storage.Event{{KV: kv}}, Revision: revision}
}

// BenchmarkEventTo1000Watchers is one event that is delivered to all of a thousand
// watchers, who read it in turn.
func BenchmarkEventTo1000Watchers(b *testing.B) {
	c := preloaded(b, 1000)
	revision := c.revision
	watchers := make([]*Watcher[string], 1000)
	for i := range watchers {
		w, err := c.Watch(c.cfg.Prefix, revision)
		if err != nil {
			b.Fatal(err)
		}
		defer w.Close()
		watchers[i] = w
	}
	var events []*Event[string]
	b.ReportAllocs()
	for b.Loop() {
		revision++
		c.apply(change(revision, benchKey(1), "y"))
		for _, w := range watchers {
			<-w.Wake()
			var err error
			if events, _, err = w.Next(events[:0]); err != nil || len(events) != 1 {
				b.Fatalf("%d events, %v", len(events), err)
			}
		}
	}
}

// BenchmarkEventToOneOf10000 is one event among ten thousand watchers of a key each, one of
// whom it concerns.
func BenchmarkEventToOneOf10000(b *testing.B) {
	c := preloaded(b, 10_000)
	revision := c.revision
	var concerned *Watcher[string]
	for i := range 10_000 {
		w, err := c.Watch(benchKey(i), revision)
		if err != nil {
			b.Fatal(err)
		}
		defer w.Close()
		if i == 1 {
			concerned = w
		}
	}
	var events []*Event[string]
	b.ReportAllocs()
	for b.Loop() {
		revision++
		c.apply(change(revision, benchKey(1), "y"))
		<-concerned.Wake()
		var err error
		if events, _, err = concerned.Next(events[:0]); err != nil || len(events) != 1 {
			b.Fatalf("%d events, %v", len(events), err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	c := preloaded(b, 20_000)
	key := benchKey(12_345)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if entry, _, err := c.Get(key); entry == nil || err != nil {
				b.Error(entry, err)
				return
			}
		}
	})
}

// BenchmarkFresh32Readers is the freshness check of each of 32 readers at once.
func BenchmarkFresh32Readers(b *testing.B) {
	store := newFlaky(shared.store)
	c := newCache(b, store, newPrefix())
	store.revisions.Store(0)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		var readers sync.WaitGroup
		for range 32 {
			readers.Go(func() {
				if err := c.Fresh(b.Context()); err != nil {
					b.Error(err)
				}
			})
		}
		readers.Wait()
	}
	b.ReportMetric(float64(store.revisions.Load())/float64(n), "looks/op")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n)/32, "ns/read")
}

// BenchmarkSnapshotAscend reads all of 20,000 entries.
func BenchmarkSnapshotAscend(b *testing.B) {
	c := preloaded(b, 20_000)
	b.ReportAllocs()
	for b.Loop() {
		s, err := c.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		s.Ascend(c.cfg.Prefix, "", func(*Entry[string]) bool { n++; return true })
		if n != 20_000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkPageOf500 reads a page from the middle, as of a snapshot.
func BenchmarkPageOf500(b *testing.B) {
	c := preloaded(b, 20_000)
	b.ReportAllocs()
	for b.Loop() {
		s, err := c.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		page := make([]*Entry[string], 0, 500)
		s.Ascend(c.cfg.Prefix, benchKey(10_000), func(e *Entry[string]) bool {
			page = append(page, e)
			return len(page) < 500
		})
		if len(page) != 500 {
			b.Fatal(len(page))
		}
	}
}

// BenchmarkWriteUnderSnapshots is a change while every reader holds a snapshot: what is
// copied for it.
func BenchmarkWriteUnderSnapshots(b *testing.B) {
	c := preloaded(b, 20_000)
	revision := c.revision
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Snapshot(); err != nil {
			b.Fatal(err)
		}
		revision++
		c.apply(change(revision, benchKey(int(revision)%20_000), "y"))
	}
}
