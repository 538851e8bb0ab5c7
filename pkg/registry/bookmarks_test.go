package registry_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/storage"
)

// quiet is a storage whose only life is what a test sends to its watches. It is for a
// bubble of synctest, where a real one cannot be.
type quiet struct {
	storage.Interface
	watches chan chan storage.WatchResponse // of the two resources
}

func (q *quiet) List(context.Context, string, storage.ListOptions) (storage.ListResponse, error) {
	return storage.ListResponse{Revision: 5}, nil
}

func (q *quiet) Replaced() <-chan struct{} { return nil }

func (q *quiet) Revision(context.Context) (int64, error) { return 5, nil }

func (q *quiet) History(context.Context, string, int64, int64, int) ([]storage.Event, error) {
	return nil, nil
}

func (q *quiet) Watch(ctx context.Context, _ string, _ storage.WatchOptions) <-chan storage.WatchResponse {
	responses, out := make(chan storage.WatchResponse), make(chan storage.WatchResponse)
	q.watches <- responses
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case response := <-responses:
				select {
				case out <- response:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

// Whoever wants bookmarks hears once a minute how far the watch has come, though nothing
// happens, or nothing that is selected.
func TestBookmarks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &quiet{watches: make(chan chan storage.WatchResponse, 2)}
		s := newStores(t, store)
		defer s.stop()
		watches := []chan storage.WatchResponse{<-store.watches, <-store.watches}
		begin := time.Now()
		w := startWatchFor(t, 200*time.Second, s.endpoints, "ns", &metav1.ListOptions{ResourceVersion: "5", AllowWatchBookmarks: true, LabelSelector: "app=x"})
		defer w.stop()
		w.expect(t, "BOOKMARK @5")
		if waited := time.Since(begin); waited != time.Minute {
			t.Errorf("the first bookmark came after %v", waited)
		}
		for _, responses := range watches {
			responses <- storage.WatchResponse{Revision: 9}
		}
		w.expect(t, "BOOKMARK @9")
		kv := &storage.KeyValue{Key: s.endpoints.Key("ns", "a"), CreateRevision: 12, ModRevision: 12, Value: []byte(`{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":"a","namespace":"ns"}}`)}
		for _, responses := range watches { // the other resource knows no such key, and does not mind
			responses <- storage.WatchResponse{Revision: 12, Events: []storage.Event{{KV: kv}}}
		}
		w.expect(t, "BOOKMARK @12")
		if waited := time.Since(begin); waited != 3*time.Minute {
			t.Errorf("three bookmarks took %v", waited)
		}
		w.expect(t, "BOOKMARK @12") // the last one, shortly before the end
		if left := 200*time.Second - time.Since(begin); left != 2*time.Second {
			t.Errorf("the last bookmark came %v before the end", left)
		}
		if _, _, ok := w.pull(); ok {
			t.Error("the watch goes on")
		}
	})
}

// A watch of a server that stops ends with what has come and a bookmark, which only those get who
// want bookmarks.
func TestBookmarkOfAServerThatStops(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	for name, opts := range map[string]metav1.ListOptions{"with bookmarks": {AllowWatchBookmarks: true}, "without": {}} {
		t.Run(name, func(t *testing.T) {
			ns := s.newNamespace(t)
			ctx, stop := context.WithCancelCause(t.Context())
			defer stop(nil)
			opts.ResourceVersion = s.create(t, ns, newEndpoints("a")).ResourceVersion
			sequence, _, err := s.endpoints.Watch(ctx, ns, &opts)
			if err != nil {
				t.Fatal(err)
			}
			b, last := s.create(t, ns, newEndpoints("b")), ""
			var got, types []string
			for events, err := range sequence {
				if err != nil {
					t.Fatal(err)
				}
				for _, event := range events {
					got, types = append(got, describe(t, event)), append(types, string(event.Type))
				}
				if last == "" { // it comes while the server stops
					last = s.create(t, ns, newEndpoints("c")).ResourceVersion
					if err := s.endpoints.Fresh(t.Context()); err != nil {
						t.Fatal(err)
					}
					stop(object.ErrStopping)
				}
			}
			want := []string{"ADDED"}
			if opts.AllowWatchBookmarks {
				want = append(want, "ADDED", "BOOKMARK")
			}
			if !slices.Equal(types, want) || got[0] != "ADDED b@"+b.ResourceVersion {
				t.Fatalf("got %v, want %v from b on", got, want)
			}
			if opts.AllowWatchBookmarks && (got[1] != "ADDED c@"+last || got[2] < "BOOKMARK @"+last && len(got[2]) <= len("BOOKMARK @"+last)) {
				t.Errorf("got %v, want c and a bookmark at or after %s", got, last)
			}
		})
	}
}
