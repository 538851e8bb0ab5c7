package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/storage"
)

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	for name, change := range map[string]func(*Config[string]){
		"no storage":     func(c *Config[string]) { c.Storage = nil },
		"no prefix":      func(c *Config[string]) { c.Prefix = "" },
		"no make":        func(c *Config[string]) { c.Make = nil },
		"no size":        func(c *Config[string]) { c.Size = nil },
		"negative count": func(c *Config[string]) { c.HistoryEvents = -1 },
		"negative bytes": func(c *Config[string]) { c.HistoryBytes = -1 },
	} {
		cfg := stringConfig(shared.store, newPrefix())
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// contents are the keys of a snapshot, with their revisions and values.
func contents(s Snapshot[string]) map[string]string {
	all := map[string]string{}
	s.Ascend("", "", func(e *Entry[string]) bool {
		all[e.Key] = fmt.Sprintf("%d %s", e.Revision, e.Value)
		return true
	})
	return all
}

// storedContents are those of the store at a revision.
func storedContents(t testing.TB, store storage.Interface, prefix string, revision int64) map[string]string {
	t.Helper()
	list, err := store.List(t.Context(), prefix, storage.ListOptions{Revision: revision})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, kv := range list.KVs {
		all[kv.Key] = fmt.Sprintf("%d %s", kv.ModRevision, kv.Value)
	}
	return all
}

func snapshot(t testing.TB, c *Cache[string]) Snapshot[string] {
	t.Helper()
	s, err := c.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// scribble makes n random changes of a few keys, some of them several in one transaction.
func scribble(t testing.TB, db database, prefix string, random *rand.Rand, n int) {
	t.Helper()
	key := func() string { return fmt.Sprintf("%sns%d/%c", prefix, random.IntN(3), 'a'+random.IntN(8)) }
	for range n {
		switch random.IntN(5) {
		case 0:
			db.delete(t, key())
		case 1:
			keys := map[string]bool{key(): true, key(): true, key(): true}
			db.putAll(t, fmt.Sprint(random.Int()), slices.Sorted(maps.Keys(keys))...)
		default:
			db.put(t, key(), fmt.Sprint(random.Int()))
		}
	}
}

func newRandom(seed uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, 2))
}

// A cache that was filled from the store and one that saw every change are the store's
// state as of their revision, key by key, in the order of the keys.
func TestContentsAreTheStores(t *testing.T) {
	prefix, random := newPrefix(), newRandom(3)
	first := newCache(t, shared.store, prefix)
	for range 10 {
		scribble(t, shared, prefix, random, 30)
		shared.put(t, "/elsewhere"+prefix, "not in the cache")
		shared.put(t, prefix[:len(prefix)-1]+"0/a", "behind the prefix")
		second := newCache(t, shared.store, prefix)
		for _, c := range []*running{first, second} {
			if err := c.Fresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			s := snapshot(t, c.Cache)
			if diff := cmp.Diff(storedContents(t, shared.store, prefix, s.Revision), contents(s)); diff != "" {
				t.Fatalf("at %d (-stored +cached):\n%s", s.Revision, diff)
			}
			for key := range contents(s) {
				entry, revision, err := c.Get(key)
				if err != nil || entry == nil || revision < s.Revision {
					t.Fatalf("%s: %v at %d, %v", key, entry, revision, err)
				}
			}
		}
		second.stop()
	}
	if entry, revision, err := first.Get(prefix + "missing"); entry != nil || revision == 0 || err != nil {
		t.Errorf("a missing key is %v at %d, %v", entry, revision, err)
	}
}

func TestAscend(t *testing.T) {
	prefix := newPrefix()
	for _, key := range []string{"b/2", "a/1", "b/1", "a/2", "b0/1", "b/3"} {
		shared.put(t, prefix+key, key)
	}
	s := snapshot(t, newCache(t, shared.store, prefix).Cache)
	for _, tc := range []struct {
		prefix, from string
		limit        int
		want         []string
	}{
		{"", "", 0, []string{"a/1", "a/2", "b/1", "b/2", "b/3", "b0/1"}},
		{"b/", "", 0, []string{"b/1", "b/2", "b/3"}},
		{"b/", "b/2", 0, []string{"b/2", "b/3"}},
		{"b/", "b/1\x00", 1, []string{"b/2"}},
		{"b/", "a/2", 2, []string{"b/1", "b/2"}},
		{"b/", "c/", 0, []string{}},
		{"c/", "", 0, []string{}},
	} {
		got := []string{}
		s.Ascend(prefix+tc.prefix, prefix+tc.from, func(e *Entry[string]) bool {
			got = append(got, e.Value)
			return len(got) != tc.limit
		})
		if !slices.Equal(got, tc.want) {
			t.Errorf("%q from %q: %v, want %v", tc.prefix, tc.from, got, tc.want)
		}
		if n := s.Count(prefix+tc.prefix, prefix+tc.from); tc.limit == 0 && n != len(tc.want) {
			t.Errorf("%q from %q: counted %d, want %d", tc.prefix, tc.from, n, len(tc.want))
		}
	}
}

// A snapshot does not change, whatever is written and however many others are taken.
func TestSnapshotsDoNotChange(t *testing.T) {
	prefix, random := newPrefix(), newRandom(4)
	c := newCache(t, shared.store, prefix)
	var snapshots []Snapshot[string]
	var want []map[string]string
	for range 20 {
		scribble(t, shared, prefix, random, 10)
		if err := c.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := snapshot(t, c.Cache)
		snapshots, want = append(snapshots, s), append(want, storedContents(t, shared.store, prefix, s.Revision))
	}
	for i, s := range snapshots {
		if diff := cmp.Diff(want[i], contents(s)); diff != "" {
			t.Errorf("snapshot %d at %d (-want +got):\n%s", i, s.Revision, diff)
		}
	}
}

// More than one page is loaded completely, at one revision.
func TestFillReadsManyPages(t *testing.T) {
	prefix := newPrefix()
	const keys = 2007
	names := make([]string, 0, 100)
	for i := range keys {
		if names = append(names, fmt.Sprintf("%sns/e-%06d", prefix, i)); len(names) == cap(names) || i == keys-1 {
			shared.putAll(t, "first", names...)
			names = names[:0]
		}
	}
	store, changed := newFlaky(shared.store), false
	store.list = func(ctx context.Context, p string, o storage.ListOptions) (storage.ListResponse, error) {
		page, err := shared.store.List(ctx, p, o)
		if !changed { // between the first page and the second
			changed = true
			shared.delete(t, fmt.Sprintf("%sns/e-%06d", prefix, keys-1))
			shared.put(t, prefix+"ns/e-000001", "second")
		}
		return page, err
	}
	c := newCache(t, store, prefix)
	c.waitFor(t, shared.revision(t))
	s := snapshot(t, c.Cache)
	got := contents(s)
	if diff := cmp.Diff(storedContents(t, shared.store, prefix, s.Revision), got); diff != "" || len(got) != keys-1 {
		t.Errorf("%d keys (-stored +cached):\n%s", len(got), diff)
	}
}

// Until it is filled a cache says so, and it is filled as soon as the store can be read.
func TestFillIsTriedAgain(t *testing.T) {
	prefix := newPrefix()
	shared.put(t, prefix+"a", "1")
	store, reachable := newFlaky(shared.store), make(chan struct{})
	store.list = func(ctx context.Context, p string, o storage.ListOptions) (storage.ListResponse, error) {
		select {
		case <-reachable:
			return shared.store.List(ctx, p, o)
		default:
			return storage.ListResponse{}, storage.ErrUnavailable
		}
	}
	c := start(t, stringConfig(store, prefix))
	eventually(t, "a report", func() bool { return c.reports.Load() > 0 })
	_, _, getErr := c.Get(prefix + "a")
	_, snapshotErr := c.Snapshot()
	_, _, listErr := c.List(prefix)
	_, watchErr := c.Watch(prefix, 1)
	_, revisionErr := c.Revision()
	for _, err := range []error{getErr, snapshotErr, listErr, watchErr, revisionErr} {
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("got %v before the cache is filled, want ErrUnavailable", err)
		}
	}
	close(reachable)
	c.waitFor(t, 0)
	if entry, _, err := c.Get(prefix + "a"); err != nil || entry == nil || entry.Value != "1" {
		t.Errorf("got %v, %v", entry, err)
	}
}

// Nothing is made while the cache is locked: readers do not wait for it.
func TestNothingIsMadeUnderTheLock(t *testing.T) {
	prefix := newPrefix()
	first := shared.put(t, prefix+"a", "1")
	shared.put(t, prefix+"a", "2")
	shared.delete(t, prefix+"a")
	cfg := stringConfig(shared.store, prefix)
	var c *Cache[string]
	made := 0
	cfg.Make = func(kv *storage.KeyValue) string {
		made++
		_, _ = c.Revision() // would wait forever
		return string(kv.Value)
	}
	r := &running{}
	var err error
	if r.Cache, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	c = r.Cache
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	defer func() { cancel(); <-done }()
	r.waitFor(t, shared.put(t, prefix+"b", "3"))
	if _, err := next(t, r.watch(t, prefix, first), first+2); err != nil {
		t.Fatal(err)
	}
	if cancel(); made < 3 {
		t.Errorf("%d values were made", made)
	}
}

// A watch of the store that breaks again and again loses no event and repeats none.
func TestBrokenWatchIsResumed(t *testing.T) {
	prefix, random := newPrefix(), newRandom(5)
	store := newFlaky(shared.store)
	c := newCache(t, store, prefix)
	begin := shared.revision(t)
	c.waitFor(t, begin)
	w := c.watch(t, prefix, begin)
	for range 4 {
		scribble(t, shared, prefix, random, 10)
		reports := c.reports.Load()
		store.breakWatches(storage.ErrUnavailable)
		scribble(t, shared, prefix, random, 10)
		eventually(t, "a report", func() bool { return c.reports.Load() > reports })
		if _, err := c.Snapshot(); err != nil {
			t.Fatalf("while the store is away: %v", err)
		}
		store.breakWatches(nil)
		scribble(t, shared, prefix, random, 10)
	}
	events, err := next(t, w, shared.revision(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(storedLines(t, shared.store, prefix, begin), lines(events)); diff != "" {
		t.Errorf("(-stored +delivered):\n%s", diff)
	}
}

// A compaction that overtakes a broken watch costs all watchers their place, wherever they
// are; the cache is filled again, and is right.
func TestCompactionWhileTheWatchIsBroken(t *testing.T) {
	db := newDatabase(t)
	prefix, random := newPrefix(), newRandom(6)
	scribble(t, db, prefix, random, 20)
	store := newFlaky(db.store)
	c := newCache(t, store, prefix)
	begin := db.revision(t)
	c.waitFor(t, begin)
	behind := c.watch(t, prefix, begin-10)
	idle := c.watch(t, prefix+"ns0/nothing", begin)
	current := c.watch(t, prefix, begin)

	store.breakWatches(storage.ErrUnavailable)
	scribble(t, db, prefix, random, 50)
	db.delete(t, prefix+"ns0/a")
	db.compact(t, db.revision(t))
	store.breakWatches(nil)

	for name, w := range map[string]*Watcher[string]{"behind": behind, "idle": idle, "current": current} {
		if _, err := next(t, w, db.revision(t)); !errors.Is(err, storage.ErrCompacted) {
			t.Errorf("%s: got %v, want ErrCompacted", name, err)
		}
	}
	c.waitFor(t, db.revision(t))
	s := snapshot(t, c.Cache)
	if diff := cmp.Diff(storedContents(t, db.store, prefix, s.Revision), contents(s)); diff != "" {
		t.Errorf("(-stored +cached):\n%s", diff)
	}
	if _, err := c.Watch(prefix, begin); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("a watch from before: %v, want ErrCompacted", err)
	}
	again := c.watch(t, prefix, s.Revision)
	revision := db.put(t, prefix+"ns0/a", "again")
	events, err := next(t, again, revision)
	if want := []string{fmt.Sprintf("%d %sns0/a to %q@%d", revision, prefix, "again", revision)}; err != nil || !slices.Equal(lines(events), want) {
		t.Errorf("got %v, %v, want %v", lines(events), err, want)
	}
}

// A store that reports a revision before its events costs all watchers their place, and the
// cache does not go on from that revision: it is filled again, and is right.
func TestMissedEvents(t *testing.T) {
	prefix := newPrefix()
	begin := shared.put(t, prefix+"a", "1")
	store := newFlaky(shared.store)
	store.overtake = make(chan int64)
	c := newCache(t, store, prefix)
	c.waitFor(t, begin)
	w := c.watch(t, prefix, begin)
	revision := shared.put(t, prefix+"b", "2")
	store.overtake <- revision
	if _, err := next(t, w, revision+1); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("a watcher got %v, want ErrCompacted", err)
	}
	c.waitFor(t, shared.put(t, prefix+"c", "3"))
	s := snapshot(t, c.Cache)
	if diff := cmp.Diff(storedContents(t, shared.store, prefix, s.Revision), contents(s)); diff != "" {
		t.Errorf("(-stored +cached):\n%s", diff)
	}
}

// However much was written, what a start reads of the history is bounded, newest first and
// by whole revisions; Bytes counts what there is.
func TestHistoryAtStartIsBounded(t *testing.T) {
	prefix := newPrefix()
	value := strings.Repeat("x", 1000)
	begin := shared.revision(t)
	for i := range 100 {
		shared.putAll(t, value, fmt.Sprintf("%sns/a%d", prefix, i%3), fmt.Sprintf("%sns/b%d", prefix, i%3))
	}
	shared.delete(t, prefix+"ns/a0")
	last := shared.revision(t)
	cfg := stringConfig(shared.store, prefix)
	cfg.HistoryBytes = 20_500 // of 21 values, and each revision but the last has two
	c := filled(t, start(t, cfg))
	if _, err := c.Watch(prefix, begin); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("a watch from before the history: %v, want ErrCompacted", err)
	}
	since := c.history.since
	if since < last-20 || since >= last-1 {
		t.Errorf("the history begins after %d of %d", since, last)
	}
	events, err := next(t, c.watch(t, prefix, since), last)
	if diff := cmp.Diff(storedLines(t, shared.store, prefix, since), lines(events)); err != nil || diff != "" {
		t.Errorf("%v (-stored +delivered):\n%s", err, diff)
	}
	if got := c.Bytes(); got != 5*1000 {
		t.Errorf("%d bytes, want those of five values", got)
	}
	shared.delete(t, prefix+"ns/b1")
	c.waitFor(t, shared.put(t, prefix+"ns/b2", "short"))
	if got := c.Bytes(); got != 3*1000+int64(len("short")) {
		t.Errorf("%d bytes after changes", got)
	}
}
