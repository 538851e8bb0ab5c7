package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/embedded"
)

// receive is the next response of a watch.
func receive(t *testing.T, ch <-chan storage.WatchResponse) storage.WatchResponse {
	t.Helper()
	select {
	case r, ok := <-ch:
		if !ok {
			t.Fatal("the watch was closed")
		}
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("the watch delivered nothing")
	}
	panic("unreachable")
}

// events reads n events and checks what holds for every response.
func events(t *testing.T, ch <-chan storage.WatchResponse, n int) []storage.Event {
	t.Helper()
	var got []storage.Event
	var last int64
	for len(got) < n {
		r := receive(t, ch)
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		for _, e := range r.Events {
			if e.KV.ModRevision <= last {
				t.Fatalf("revision %d again in a response after %d", e.KV.ModRevision, last)
			}
			got = append(got, e)
		}
		if len(r.Events) > 0 {
			last = r.Events[len(r.Events)-1].KV.ModRevision
			if r.Revision != last {
				t.Fatalf("response at revision %d, its last event at %d", r.Revision, last)
			}
		}
	}
	return got
}

func TestWatchEvents(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		key := prefix + "ns/a"
		before := create(t, s, prefix+"ns/before", "")
		live := s.Watch(t.Context(), prefix, storage.WatchOptions{Revision: before})
		r1 := create(t, s, key, "1")
		r2 := put(t, s, key, "2", r1)
		r3 := remove(t, s, key, r2)
		want := []storage.Event{
			{KV: &storage.KeyValue{Key: key, Value: []byte("1"), CreateRevision: r1, ModRevision: r1}},
			{KV: &storage.KeyValue{Key: key, Value: []byte("2"), CreateRevision: r1, ModRevision: r2}},
			{KV: &storage.KeyValue{Key: key, ModRevision: r3}, Deleted: true},
		}
		if d := cmp.Diff(want, events(t, live, 3)); d != "" {
			t.Errorf("live (-want +got)\n%s", d)
		}
		for i, rev := range []int64{before, r1, r2} {
			got := events(t, s.Watch(t.Context(), prefix, storage.WatchOptions{Revision: rev}), len(want)-i)
			if d := cmp.Diff(want[i:], got); d != "" {
				t.Errorf("from revision %d (-want +got)\n%s", rev, d)
			}
		}
	})
}

// Many writers, several watches: each sees every revision once and in order, and one that
// stops in the middle goes on where it stopped.
func TestWatchOrderAndResume(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		const writers, each = 16, 50
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		start := create(t, s, prefix+"start", "")
		whole := s.Watch(ctx, prefix, storage.WatchOptions{Revision: start})
		second := s.Watch(ctx, prefix, storage.WatchOptions{Revision: start})
		done := make(chan error, writers)
		for w := range writers {
			go func() {
				var err error
				for i := 0; i < each && err == nil; i++ {
					_, err = s.Put(ctx, fmt.Sprintf("%sns/%d-%d", prefix, w, i), []byte("v"), storage.PutOptions{})
				}
				done <- err
			}()
		}
		want := events(t, whole, writers*each)
		for range writers {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(want, events(t, second, len(want))); d != "" {
			t.Errorf("two watches differ (-first +second)\n%s", d)
		}
		var got []storage.Event
		for rev := start; len(got) < len(want); rev = got[len(got)-1].KV.ModRevision {
			rctx, rcancel := context.WithCancel(ctx)
			got = append(got, events(t, s.Watch(rctx, prefix, storage.WatchOptions{Revision: rev}), 1)...)
			rcancel()
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("a watch with interruptions differs (-whole +resumed)\n%s", d)
		}
	})
}

func TestWatchKeepsATransactionTogether(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		start := create(t, s, prefix+"start", "")
		live := s.Watch(t.Context(), prefix, storage.WatchOptions{Revision: start})
		const txns, keys = 30, 100
		for i := range txns {
			var ops []clientv3.Op
			for k := range keys {
				ops = append(ops, clientv3.OpPut(fmt.Sprintf("%sns/%03d", prefix, k), fmt.Sprint(i)))
			}
			if _, err := s.client.Txn(t.Context()).Then(ops...).Commit(); err != nil {
				t.Fatal(err)
			}
		}
		for name, ch := range map[string]<-chan storage.WatchResponse{
			"live":   live,
			"replay": s.Watch(t.Context(), prefix, storage.WatchOptions{Revision: start}),
		} {
			for total := 0; total < txns*keys; {
				r := receive(t, ch)
				count := map[int64]int{}
				for _, e := range r.Events {
					count[e.KV.ModRevision]++
				}
				for rev, n := range count {
					if n != keys {
						t.Fatalf("%s: %d events of revision %d in one response, want %d", name, n, rev, keys)
					}
				}
				total += len(r.Events)
			}
		}
	})
}

func TestWatchCompacted(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		r1 := create(t, s, prefix+"a", "1")
		r2 := put(t, s, prefix+"a", "2", r1)
		r3 := put(t, s, prefix+"a", "3", r2)
		if _, err := s.client.Compact(t.Context(), r3); err != nil {
			t.Fatal(err)
		}
		ch := s.Watch(t.Context(), prefix, storage.WatchOptions{Revision: r1})
		if r := receive(t, ch); !errors.Is(r.Err, storage.ErrCompacted) || len(r.Events) != 0 {
			t.Errorf("got %+v, want ErrCompacted", r)
		}
		if r, ok := <-ch; ok {
			t.Errorf("after the error came %+v", r)
		}
	})
}

func TestWatchLeavesNoGoroutine(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		ignore := goleak.IgnoreCurrent()
		ctx, cancel := context.WithCancel(t.Context())
		rev := create(t, s, prefix+"a", "1")
		var open []<-chan storage.WatchResponse
		for range 10 {
			open = append(open, s.Watch(ctx, prefix, storage.WatchOptions{Revision: rev - 1}), s.Watch(ctx, prefix, storage.WatchOptions{Revision: rev}))
		}
		for i := range 100 { // more than the channels hold, and nobody reads
			create(t, s, fmt.Sprintf("%sns/%d", prefix, i), "1")
		}
		cancel()
		for _, ch := range open {
			for r := range ch {
				if r.Err != nil {
					t.Errorf("the end of the context came as %v", r.Err)
				}
			}
		}
		goleak.VerifyNone(t, ignore)
	})
}

func TestWatchClientClosed(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	client, err := newRemoteClient(clients["gRPC"].Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	expectClosed(t, client, client.Close)
	inProcess, err := embedded.Start(t.Context(), embedded.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	expectClosed(t, inProcess.Client(), inProcess.Close)
	goleak.VerifyNone(t, ignore)
}

func expectClosed(t *testing.T, client *clientv3.Client, closeClient func() error) {
	t.Helper()
	s, err := New(client, Config{})
	if err != nil {
		t.Fatal(err)
	}
	prefix := fmt.Sprintf("/registry/closed%d/", prefixes.Add(1))
	rev := create(t, s, prefix+"a", "")
	ch := s.Watch(t.Context(), prefix, storage.WatchOptions{Revision: rev - 1})
	receive(t, ch)
	if err := closeClient(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if r := receive(t, ch); !errors.Is(r.Err, storage.ErrUnavailable) {
		t.Errorf("got %+v, want ErrUnavailable", r)
	}
	if r, ok := <-ch; ok {
		t.Errorf("after the error came %+v", r)
	}
}

// Many watches that overlap come and go; none gets stuck, and none sees another's.
func TestManyWatchesComeAndGo(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for g := range 32 {
			wg.Go(func() {
				for i := range 10 {
					if err := watchOne(ctx, s, prefix, fmt.Sprintf("%s%d/%d", prefix, g, i)); err != nil {
						t.Errorf("%d, %d: %v", g, i, err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// watchOne opens several watches, writes key, and waits for it on one of them.
func watchOne(ctx context.Context, s *Store, prefix, key string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range 3 {
		s.Watch(ctx, prefix, storage.WatchOptions{Revision: 1})
	}
	progress := make(chan struct{}, 1)
	start, err := s.Revision(ctx)
	if err != nil {
		return err
	}
	watch := s.Watch(ctx, key, storage.WatchOptions{Revision: start, Progress: progress})
	if _, err := s.Put(ctx, key, nil, storage.PutOptions{}); err != nil {
		return err
	}
	progress <- struct{}{}
	for r := range watch {
		for _, event := range r.Events {
			if event.KV.Key != key {
				return fmt.Errorf("got the event of %s", event.KV.Key)
			}
			return nil
		}
		if r.Err != nil {
			return r.Err
		}
	}
	return ctx.Err()
}

// A reader that does not read is cut off at the bound, and what was held for it is whole.
func TestWatchSlowReader(t *testing.T) {
	const charge = eventBytes + 1 + 100
	in := make(chan clientv3.WatchResponse)
	out := make(chan storage.WatchResponse)
	ended := make(chan struct{})
	w := &watcher{last: 10, delivered: 10, max: 3*charge - 1}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(t.Context(), in, func() { close(ended) }, out)
	}()
	for revision := int64(11); revision <= 13; revision++ { // the last is taken and is too much
		in <- clientv3.WatchResponse{Events: eventsAt(revision).Events}
	}
	<-ended
	for want := int64(11); want <= 12; want++ {
		if got := events(t, out, 1); got[0].KV.ModRevision != want {
			t.Errorf("got %+v, want the event of revision %d", got, want)
		}
	}
	if r := receive(t, out); !errors.Is(r.Err, storage.ErrUnavailable) || !errors.Is(r.Err, errSlowReader) || r.Revision != 12 {
		t.Errorf("got %+v, want ErrUnavailable at revision 12", r)
	}
	<-done
}
