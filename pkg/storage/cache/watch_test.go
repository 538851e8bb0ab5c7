package cache

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/storage"
)

// A watch that begins at any revision gets exactly the rest: from a cache that was there
// all the time, and from one that has just been filled.
func TestResumeAtEveryRevision(t *testing.T) {
	db := newDatabase(t) // a store whose revisions begin at the first
	prefix, random := newPrefix(), newRandom(7)
	old := newCache(t, db.store, prefix)
	scribble(t, db, prefix, random, 60)
	db.putAll(t, "many", keysOf(prefix+"ns1/", 100)...)
	db.putAll(t, "more", keysOf(prefix+"ns1/", 100)...)
	scribble(t, db, prefix, random, 10)
	all := storedLines(t, db.store, prefix, 1)
	upTo := db.revision(t)
	for name, c := range map[string]*running{"followed": old, "filled": newCache(t, db.store, prefix)} {
		c.waitFor(t, upTo)
		for after := range upTo + 1 {
			for _, scope := range []string{prefix, prefix + "ns1/", prefix + "ns0/a", prefix + "ns2/missing"} {
				want := slices.DeleteFunc(slices.Clone(all), func(line string) bool {
					revision, key := splitLine(t, line)
					return revision <= after || key != scope && !(strings.HasSuffix(scope, "/") && strings.HasPrefix(key, scope))
				})
				w := c.watch(t, scope, after)
				got := drain(t, w)
				w.Close()
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("%s: %s after %d (-want +got):\n%s", name, scope, after, diff)
				}
			}
		}
	}
}

func keysOf(prefix string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%sk-%04d", prefix, i)
	}
	return keys
}

func splitLine(t testing.TB, line string) (revision int64, key string) {
	t.Helper()
	if _, err := fmt.Sscanf(line, "%d %s", &revision, &key); err != nil {
		t.Fatal(err)
	}
	return revision, key
}

// drain reads what a watcher of a store at rest has to tell, as long as it says that it is
// awake, and checks that no revision is split.
func drain(t testing.TB, w *Watcher[string]) []string {
	t.Helper()
	described, told := []string{}, int64(0)
	for {
		select {
		case <-w.Wake():
		default:
			return described
		}
		events, revision, err := w.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range events {
			if event.Revision <= told || event.Revision > revision {
				t.Fatalf("an event of revision %d after %d was told and before %d", event.Revision, told, revision)
			}
		}
		told = revision
		described = append(described, lines(events)...)
	}
}

// What the store no longer has is not watched from there.
func TestWatchFromACompactedRevision(t *testing.T) {
	db := newDatabase(t)
	prefix := newPrefix()
	first := db.put(t, prefix+"a", "1")
	db.put(t, prefix+"a", "2")
	last := db.put(t, prefix+"a", "3")
	db.compact(t, last)
	c := newCache(t, db.store, prefix)
	if _, err := c.Watch(prefix, first); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("got %v, want ErrCompacted", err)
	}
	c.watch(t, prefix, last)
	if n := len(c.watchers[prefix]); n != 1 {
		t.Errorf("%d watchers are known, want 1", n)
	}
}

// A list and the watch that comes with it leave no gap between them, under writes.
func TestListAndWatchWithoutAGap(t *testing.T) {
	prefix := newPrefix()
	c := newCache(t, shared.store, prefix)
	enough, written := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		for random := newRandom(8); ; {
			scribble(t, shared, prefix, random, 50)
			select {
			case <-enough:
				return
			default:
			}
		}
	}()
	stop := sync.OnceFunc(func() { close(enough); <-written })
	defer stop()
	type place struct {
		snapshot Snapshot[string]
		watcher  *Watcher[string]
	}
	var places []place
	for range 5 {
		s, w, err := c.List(prefix)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Close)
		places = append(places, place{s, w})
		c.waitFor(t, s.Revision+1)
	}
	stop()
	c.waitFor(t, shared.put(t, prefix+"ns0/a", "last"))
	upTo := shared.revision(t)
	for _, p := range places {
		state := map[string]string{}
		p.snapshot.Ascend(prefix, "", func(e *Entry[string]) bool { state[e.Key] = e.Value; return true })
		events, err := next(t, p.watcher, upTo)
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range events {
			if before, ok := state[event.Key]; ok != (event.Prev != nil) || ok && before != event.Prev.Value {
				t.Fatalf("%v does not follow on %q", lines([]*Event[string]{event}), before)
			}
			if delete(state, event.Key); event.Entry != nil {
				state[event.Key] = event.Entry.Value
			}
		}
		want := map[string]string{}
		snapshot(t, c.Cache).Ascend(prefix, "", func(e *Entry[string]) bool { want[e.Key] = e.Value; return true })
		if diff := cmp.Diff(want, state); diff != "" {
			t.Fatalf("from %d (-want +got):\n%s", p.snapshot.Revision, diff)
		}
	}
}

// The events of a transaction come together, in the store's order, however many there are.
func TestTransactionsAreNotSplit(t *testing.T) {
	prefix := newPrefix()
	c := newCache(t, shared.store, prefix)
	begin := shared.revision(t)
	c.waitFor(t, begin)
	var revisions []int64
	keys := keysOf(prefix+"ns/", 100)
	for range 4 {
		revisions = append(revisions, shared.putAll(t, "v", keys...))
	}
	c.waitFor(t, revisions[3])
	w := c.watch(t, prefix, begin)
	var got []int64
	for len(got) < 4 {
		<-w.Wake()
		events, revision, err := w.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) == 0 || len(events)%len(keys) != 0 || revision < events[len(events)-1].Revision {
			t.Fatalf("%d events up to %d", len(events), revision)
		}
		for i, event := range events {
			if event.Key != keys[i%len(keys)] || event.Revision != events[i-i%len(keys)].Revision {
				t.Fatalf("event %d is %v", i, lines(events[i:i+1]))
			}
			if i%len(keys) == 0 {
				got = append(got, event.Revision)
			}
		}
	}
	if !slices.Equal(got, revisions) {
		t.Errorf("transactions of %v, want %v", got, revisions)
	}
}

// A watcher that does not read loses its place, says so, and keeps nothing in memory; one
// that reads does not notice.
func TestSlowWatcher(t *testing.T) {
	prefix := newPrefix()
	cfg := stringConfig(shared.store, prefix)
	cfg.HistoryEvents = 16
	c := filled(t, start(t, cfg))
	begin := shared.revision(t)
	c.waitFor(t, begin)
	slow, quick := c.watch(t, prefix, begin), c.watch(t, prefix, begin)
	value := strings.Repeat("x", 1<<10)
	freed := make(chan struct{})
	var once sync.Once
	for i := range 40 {
		revision := shared.put(t, prefix+"a", value)
		events, err := next(t, quick, revision)
		if err != nil || len(events) != 1 || events[0].Revision != revision {
			t.Fatalf("the quick watcher got %v, %v", lines(events), err)
		}
		if i == 0 {
			runtime.AddCleanup(events[0], func(struct{}) { once.Do(func() { close(freed) }) }, struct{}{})
		}
	}
	eventually(t, "an event that left the history is freed", func() bool {
		runtime.GC()
		select {
		case <-freed:
			return true
		default:
			return false
		}
	})
	events, _, err := slow.Next(nil)
	if len(events) != 0 || !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("the slow watcher got %v, %v, want ErrCompacted", lines(events), err)
	}
	if c.history.bytes > 16*(len(value)+300) {
		t.Errorf("the history takes %d bytes", c.history.bytes)
	}
}

// The last state of what an event takes away is made once, for all who watch.
func TestLastStateIsShared(t *testing.T) {
	db := newDatabase(t)
	prefix := newPrefix()
	c := newCache(t, db.store, prefix)
	begin := db.put(t, prefix+"a", "x")
	c.waitFor(t, begin)
	watchers := []*Watcher[string]{c.watch(t, prefix, begin), c.watch(t, prefix+"a", begin)}
	db.delete(t, prefix+"a")
	upTo := db.revision(t)
	made := 0
	for _, w := range watchers {
		events, err := next(t, w, upTo)
		if err != nil || len(events) != 1 {
			t.Fatalf("%d events, %v", len(events), err)
		}
		last := events[0].Last(func(prev string, revision int64) string {
			made++
			return fmt.Sprint(prev, " until ", revision)
		})
		if want := fmt.Sprint(events[0].Prev.Value, " until ", events[0].Revision); last != want {
			t.Errorf("got %s, want %s", last, want)
		}
	}
	if made != 1 {
		t.Errorf("it was made %d times", made)
	}
}

// Watchers of other keys and of other namespaces are not woken.
func TestOthersAreNotWoken(t *testing.T) {
	prefix := newPrefix()
	c := newCache(t, shared.store, prefix)
	begin := shared.revision(t)
	c.waitFor(t, begin)
	watchers := map[string]*Watcher[string]{}
	for _, key := range append(keysOf(prefix+"ns/", 3000), prefix+"ns/", prefix+"other/", prefix, prefix+"ns/k", prefix+"n") {
		watchers[key] = c.watch(t, key, begin)
	}
	revision := shared.put(t, prefix+"ns/k-0007", "1")
	c.waitFor(t, revision)
	concerned := []string{prefix + "ns/k-0007", prefix + "ns/", prefix}
	for _, scope := range concerned {
		events, err := next(t, watchers[scope], revision)
		if err != nil || len(events) != 1 || events[0].Key != prefix+"ns/k-0007" {
			t.Errorf("%s got %v, %v", scope, lines(events), err)
		}
	}
	for scope, w := range watchers { // they would have been woken by now, or at the next change
		if slices.Contains(concerned, scope) {
			continue
		}
		select {
		case <-w.Wake():
			t.Errorf("%s is woken", scope)
		default:
		}
	}
	for _, w := range watchers {
		w.Close()
		w.Close() // twice is harmless
	}
	if n := len(c.watchers); n != 0 {
		t.Errorf("%d scopes are left when nobody watches", n)
	}
}

// Watchers that come, read and go at any time, from several goroutines, each see a part of
// the history that has no hole.
func TestWatchersComeAndGo(t *testing.T) {
	prefix := newPrefix()
	c := newCache(t, shared.store, prefix)
	begin := shared.revision(t)
	c.waitFor(t, begin)
	written := make(chan struct{})
	var watching sync.WaitGroup
	seen := make(chan []string, 200)
	for range 4 {
		watching.Go(func() {
			for after := begin; ; {
				w, err := c.Watch(prefix, after)
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case <-w.Wake():
				case <-written:
				}
				events, revision, err := w.Next(nil)
				if w.Close(); err != nil {
					t.Error(err)
					return
				}
				seen <- lines(events)
				if after = revision; len(events) > 0 {
					continue
				}
				select {
				case <-written:
					seen <- nil
					return
				default:
				}
			}
		})
	}
	go func() {
		defer close(written)
		scribble(t, shared, prefix, newRandom(9), 150)
		c.waitFor(t, shared.revision(t))
	}()
	go func() { watching.Wait(); close(seen) }()
	total := map[string]int{}
	for batch := range seen {
		for _, line := range batch {
			total[line]++
		}
	}
	want := map[string]int{}
	for _, line := range storedLines(t, shared.store, prefix, begin) {
		want[line] = 4
	}
	if diff := cmp.Diff(want, total); diff != "" {
		t.Errorf("events by how many watchers saw them (-want +got):\n%s", diff)
	}
}
