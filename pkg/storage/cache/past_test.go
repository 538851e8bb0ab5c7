package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/storage"
)

// newShortCache returns a cache whose history is so short that older events have to come
// from the store's, and the revision before those.
func newShortCache(t testing.TB, store storage.Interface, prefix string, change func(*Config[string])) (*running, int64) {
	t.Helper()
	begin := shared.revision(t)
	for i := range 40 {
		shared.put(t, prefix+"ns/a", fmt.Sprint(i))
	}
	cfg := stringConfig(store, prefix)
	cfg.HistoryEvents = 8
	if change != nil {
		change(&cfg)
	}
	c := filled(t, start(t, cfg))
	c.waitFor(t, shared.revision(t))
	return c, begin
}

// A watcher that has only old events to deliver is woken for them.
func TestOldEventsAloneWakeTheWatcher(t *testing.T) {
	prefix := newPrefix()
	begin := shared.revision(t)
	shared.put(t, prefix+"ns/a", "1")
	c, tried := start(t, stringConfig(nothingAtFirst(shared.store), prefix)), false
	c.waitFor(t, 0) // its own history begins now, and is empty
	w := c.watch(t, prefix, begin)
	select {
	case <-w.Wake():
		tried = true
	default:
	}
	events, _, err := w.Next(nil)
	if diff := cmp.Diff(storedLines(t, shared.store, prefix, begin), lines(events)); !tried || err != nil || diff != "" {
		t.Errorf("woken: %v, %v (-stored +delivered):\n%s", tried, err, diff)
	}
}

// nothingAtFirst is a store that cannot tell its history in time when a cache is filled.
func nothingAtFirst(store storage.Interface) *flaky {
	f, calls := newFlaky(store), 0
	f.history = func(ctx context.Context, prefix string, after, upTo int64) ([]storage.Event, error) {
		if calls++; calls == 1 {
			return nil, storage.ErrTimeout
		}
		return store.History(ctx, prefix, after, upTo)
	}
	return f
}

// Writes go on while a watcher reads the store's history: it does not lose its place for a
// few of them, though the cache's history is full and moves with each.
func TestOldEventsWhileTheHistoryMoves(t *testing.T) {
	prefix := newPrefix()
	store := newFlaky(shared.store)
	c, begin := newShortCache(t, store, prefix, nil)
	store.history = func(ctx context.Context, p string, after, upTo int64) ([]storage.Event, error) {
		events, err := shared.store.History(ctx, p, after, upTo)
		c.waitFor(t, shared.put(t, prefix+"ns/b", "meanwhile"))
		c.waitFor(t, shared.put(t, prefix+"ns/b", "again"))
		return events, err
	}
	events, err := next(t, c.watch(t, prefix, begin), shared.revision(t))
	if diff := cmp.Diff(storedLines(t, shared.store, prefix, begin), lines(events)); err != nil || diff != "" {
		t.Errorf("%v (-stored +delivered):\n%s", err, diff)
	}
	if store.histories.Load() < 2 {
		t.Error("the store's history was not read")
	}
}

// What all watchers hold of the past is bounded together, and given back when it is
// delivered or its watcher goes.
func TestPastIsBounded(t *testing.T) {
	prefix := newPrefix()
	value := strings.Repeat("x", 1000)
	begin := shared.revision(t)
	for range 32 {
		shared.put(t, prefix+"ns/a", value)
	}
	c, _ := newShortCache(t, shared.store, prefix, func(cfg *Config[string]) { cfg.HistoryBytes = 200_000 })
	var held []*Watcher[string]
	for {
		w, err := c.Watch(t.Context(), prefix, begin)
		if errors.Is(err, storage.ErrCompacted) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Close)
		if held = append(held, w); len(held) > 100 {
			t.Fatal("no bound")
		}
	}
	if bytes := c.past.bytes.Load(); len(held) < 2 || bytes > 200_000 {
		t.Fatalf("%d watchers hold %d bytes", len(held), bytes)
	}
	if w, err := c.Watch(t.Context(), prefix+"ns/other", begin); err != nil {
		t.Errorf("a watcher with nothing to hold: %v", err)
	} else {
		w.Close()
	}
	for i, w := range held {
		if i%2 == 0 {
			w.Close()
		} else if got := drain(t, w); len(got) != 72 {
			t.Errorf("%d events, want 72", len(got))
		}
	}
	if bytes := c.past.bytes.Load(); bytes != 0 {
		t.Errorf("%d bytes are still held", bytes)
	}
	c.watch(t, prefix, begin)
}

// A store that does not tell its history holds a watcher up no longer than it waits.
func TestPastGivesUp(t *testing.T) {
	prefix := newPrefix()
	store := newFlaky(shared.store)
	c, begin := newShortCache(t, store, prefix, nil)
	begun := make(chan struct{}, catchUps)
	store.history = func(ctx context.Context, _ string, _, _ int64) ([]storage.Event, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return nil, storage.ErrTimeout
	}
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, catchUps+1)
	watch := func() {
		_, err := c.Watch(ctx, prefix, begin)
		results <- err
	}
	for range catchUps {
		go watch()
	}
	for range catchUps {
		<-begun
	}
	go watch() // waits its turn
	cancel()
	for range cap(results) {
		if err := <-results; !errors.Is(err, storage.ErrTimeout) {
			t.Errorf("got %v, want ErrTimeout", err)
		}
	}
	if n := len(c.watchers); n != 0 {
		t.Errorf("%d scopes are watched by nobody", n)
	}
}
