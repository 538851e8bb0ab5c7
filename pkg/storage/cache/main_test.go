package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// shared is the etcd of all tests that compact nothing; each has a prefix of its own.
var shared database

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "berth-cache-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if shared, err = startDatabase(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code = m.Run()
	if err := errors.Join(shared.etcd.Close(), goleak.Find()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// database is a running etcd and the storage over it.
type database struct {
	etcd   *embedded.Etcd
	client *clientv3.Client
	store  storage.Interface
}

func startDatabase(dir string) (database, error) {
	db, err := embedded.Start(context.Background(), embedded.Config{DataDir: dir})
	if err != nil {
		return database{}, err
	}
	store, err := etcd.New(db.Client(), etcd.Config{})
	if err != nil {
		return database{}, errors.Join(err, db.Close())
	}
	return database{db, db.Client(), &fenced{store, db.Client()}}, nil
}

// fenced is a storage that tells its history by what etcd promises of events alone: behind
// them it writes a key of its own, and waits for that.
type fenced struct {
	storage.Interface
	client *clientv3.Client
}

const fenceKey = "/fence"

func (f *fenced) History(ctx context.Context, prefix string, after, upTo int64, _ int) ([]storage.Event, error) {
	if after >= upTo {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	fence, err := f.client.Put(ctx, fenceKey, "")
	if err != nil {
		return nil, err
	}
	var events []storage.Event
	for response := range f.Watch(ctx, prefix[:1], storage.WatchOptions{Revision: after}) {
		if response.Err != nil {
			return nil, response.Err
		}
		for _, event := range response.Events {
			switch revision := event.KV.ModRevision; {
			case revision == fence.Header.GetRevision():
				return events, nil
			case revision > upTo || !strings.HasPrefix(event.KV.Key, prefix):
			default:
				before, err := f.Get(ctx, event.KV.Key, storage.GetOptions{Revision: revision - 1})
				if err != nil {
					return nil, err
				}
				event.Prev = before.KV
				events = append(events, event)
			}
		}
	}
	return nil, storage.ErrTimeout
}

// newDatabase returns an etcd for a test that compacts it.
func newDatabase(t testing.TB) database {
	t.Helper()
	db, err := startDatabase(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.etcd.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// put writes one key and returns the revision.
func (db database) put(t testing.TB, key, value string) int64 {
	t.Helper()
	response, err := db.client.Put(context.Background(), key, value)
	if err != nil {
		t.Fatal(err)
	}
	return response.Header.GetRevision()
}

// delete removes one key.
func (db database) delete(t testing.TB, key string) {
	t.Helper()
	if _, err := db.client.Delete(context.Background(), key); err != nil {
		t.Fatal(err)
	}
}

// putAll writes the keys in one transaction and returns its revision.
func (db database) putAll(t testing.TB, value string, keys ...string) int64 {
	t.Helper()
	ops := make([]clientv3.Op, len(keys))
	for i, key := range keys {
		ops[i] = clientv3.OpPut(key, value)
	}
	response, err := db.client.Txn(context.Background()).Then(ops...).Commit()
	if err != nil {
		t.Fatal(err)
	}
	return response.Header.GetRevision()
}

// compact forgets what was before the revision.
func (db database) compact(t testing.TB, revision int64) {
	t.Helper()
	if _, err := db.client.Compact(context.Background(), revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
}

func (db database) revision(t testing.TB) int64 {
	t.Helper()
	revision, err := db.store.Revision(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

var prefixes atomic.Int64

// newPrefix is a part of the store that no other test uses.
func newPrefix() string { return fmt.Sprintf("/registry/test%d/", prefixes.Add(1)) }

// stringConfig has a cache keep the values as strings.
func stringConfig(store storage.Interface, prefix string) Config[string] {
	return Config[string]{
		Storage: store, Prefix: prefix,
		Make: func(kv *storage.KeyValue) string { return string(kv.Value) },
		Size: func(value string) int { return len(value) },
	}
}

// running is a cache that follows the store until stop, or the test's end.
type running struct {
	*Cache[string]
	reports atomic.Int64
	stop    func() // waits until nothing of it runs
}

func start(t testing.TB, cfg Config[string]) *running {
	t.Helper()
	r := &running{}
	cfg.Report = func(error) { r.reports.Add(1) }
	var err error
	if r.Cache, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { r.Run(ctx) })
	r.stop = func() { cancel(); group.Wait() }
	t.Cleanup(r.stop)
	return r
}

// newCache returns a cache of the prefix that is filled.
func newCache(t testing.TB, store storage.Interface, prefix string) *running {
	t.Helper()
	return filled(t, start(t, stringConfig(store, prefix)))
}

func filled(t testing.TB, r *running) *running {
	t.Helper()
	r.waitFor(t, 0)
	return r
}

func (r *running) waitFor(t testing.TB, revision int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := r.WaitFor(ctx, revision); err != nil {
		t.Fatalf("waiting for revision %d: %v", revision, err)
	}
}

// watch returns a watcher that is closed at the test's end.
func (r *running) watch(t testing.TB, scope string, revision int64) *Watcher[string] {
	t.Helper()
	w, err := r.Watch(scope, revision)
	if err != nil {
		t.Fatalf("watching %s after %d: %v", scope, revision, err)
	}
	t.Cleanup(w.Close)
	return w
}

// next waits for events, an error, or progress to the revision, and returns the events.
func next(t testing.TB, w *Watcher[string], upTo int64) ([]*Event[string], error) {
	t.Helper()
	patience := time.NewTimer(20 * time.Second)
	defer patience.Stop()
	var events []*Event[string]
	for {
		select {
		case <-w.Wake():
		case <-patience.C:
			t.Fatalf("a watcher of %s was not woken, after %d events", w.scope, len(events))
		}
		var revision int64
		var err error
		if events, revision, err = w.Next(events); err != nil || revision >= upTo {
			return events, err
		}
	}
}

// lines describes events, to be compared.
func lines(events []*Event[string]) []string {
	described := []string{}
	for _, e := range events {
		line := fmt.Sprintf("%d %s", e.Revision, e.Key)
		if e.Prev != nil {
			line += fmt.Sprintf(" from %q@%d", e.Prev.Value, e.Prev.Revision)
		}
		if e.Entry != nil {
			line += fmt.Sprintf(" to %q@%d", e.Entry.Value, e.Entry.Revision)
		}
		described = append(described, line)
	}
	return described
}

// storedLines describes the store's own history of the prefix after a revision.
func storedLines(t testing.TB, store storage.Interface, prefix string, after int64) []string {
	t.Helper()
	upTo, err := store.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	changes, err := store.History(t.Context(), prefix, after, upTo, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	events := make([]*Event[string], len(changes))
	for i, change := range changes {
		events[i] = &Event[string]{Key: change.KV.Key, Revision: change.KV.ModRevision}
		if change.Prev != nil {
			events[i].Prev = &Entry[string]{Value: string(change.Prev.Value), Revision: change.Prev.ModRevision}
		}
		if !change.Deleted {
			events[i].Entry = &Entry[string]{Value: string(change.KV.Value), Revision: change.KV.ModRevision}
		}
	}
	return lines(events)
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for !cond() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}
