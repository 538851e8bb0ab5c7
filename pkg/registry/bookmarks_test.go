package registry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
