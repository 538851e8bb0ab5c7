package etcd

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/storage"
)

// A watch of a quiet prefix learns of writes elsewhere when it is asked for its progress.
func TestProgress(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		start := create(t, s, prefix+"quiet/a", "")
		progress := make(chan struct{})
		watch := s.Watch(t.Context(), prefix+"quiet/", storage.WatchOptions{Revision: start, Progress: progress})
		elsewhere := create(t, s, prefix+"other", "")
		if rev, err := s.Revision(t.Context()); err != nil || rev < elsewhere {
			t.Errorf("Revision = %d, %v, want at least %d", rev, err, elsewhere)
		}
		deadline := time.After(20 * time.Second)
		for {
			select {
			case r := <-watch:
				if r.Err != nil || len(r.Events) > 0 {
					t.Fatalf("got %+v, want a progress report", r)
				}
				if r.Revision >= elsewhere {
					return
				}
			case progress <- struct{}{}:
			case <-deadline:
				t.Fatal("no progress report")
			}
		}
	})
}

func TestHistory(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		key := prefix + "a"
		r1 := create(t, s, key, "1")
		r2 := put(t, s, key, "2", r1)
		r3 := put(t, s, key, "3", r2)
		v1 := &storage.KeyValue{Key: key, Value: []byte("1"), CreateRevision: r1, ModRevision: r1}
		v2 := &storage.KeyValue{Key: key, Value: []byte("2"), CreateRevision: r1, ModRevision: r2}
		v3 := &storage.KeyValue{Key: key, Value: []byte("3"), CreateRevision: r1, ModRevision: r3}
		all := []storage.Event{{KV: v1}, {KV: v2, Prev: v1}, {KV: v3, Prev: v2}}
		for _, tc := range []struct {
			after, upTo int64
			want        []storage.Event
		}{
			{r1 - 1, r3, all},
			{r1, r2, all[1:2]},
			{r2, r3, all[2:]}, // what was before is asked of the store
			{r3, r3, nil},
		} {
			got, err := s.History(t.Context(), prefix, tc.after, tc.upTo, 100)
			if err != nil {
				t.Error(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(%d, %d] (-want +got)\n%s", tc.after, tc.upTo, d)
			}
		}
	})
}

// Reports of progress that others ask for never take the place of a new watch's events.
func TestHistoryAmidProgress(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		first := create(t, s, prefix+"a", "")
		last := first
		const events = 20
		for range events {
			last = put(t, s, prefix+"a", "", last)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		defer asking.Wait()
		defer cancel()
		for range 4 {
			progress := make(chan struct{})
			watch := s.Watch(ctx, prefix, storage.WatchOptions{Revision: last, Progress: progress})
			asking.Go(func() {
				for {
					select {
					case progress <- struct{}{}:
					case _, ok := <-watch:
						if !ok {
							return
						}
					}
				}
			})
		}
		var reading sync.WaitGroup
		defer reading.Wait()
		for range 40 {
			reading.Go(func() {
				if got, err := s.History(t.Context(), prefix, first, last, 0); err != nil || len(got) != events {
					t.Errorf("got %d events, want %d: %v", len(got), events, err)
				}
			})
		}
	})
}
