package etcd

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/berth-project/berth/pkg/storage"
)

// progressRetry is how long History waits for a progress report before it asks again:
// etcd leaves a request unanswered while the watch is behind.
const progressRetry = 20 * time.Millisecond

// freshnessKey is read for the revision in the answer's header; it never exists.
var freshnessKey = []byte("/registry/\x00")

// Revision implements storage.Interface.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	resp, err := s.read(ctx, "revision", &etcdserverpb.RangeRequest{Key: freshnessKey, CountOnly: true})
	if err != nil {
		return 0, err
	}
	return resp.Header.GetRevision(), nil
}

// streams are the watches that etcd has confirmed, each on a stream of its own: a request
// for progress concerns all watches of a stream, and is left unanswered while one of them
// is behind.
type streams struct {
	mu  sync.Mutex
	ask map[chan<- struct{}]struct{}
}

// enter says that a report that is asked for from now on is about the watch, too.
func (s *streams) enter(ask chan<- struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ask == nil {
		s.ask = map[chan<- struct{}]struct{}{}
	}
	s.ask[ask] = struct{}{}
}

func (s *streams) leave(ask chan<- struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ask, ask)
}

// RequestProgress implements storage.Interface. It waits for nothing.
func (s *Store) RequestProgress(context.Context) error {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	for ask := range s.streams.ask {
		select {
		case ask <- struct{}{}:
		default: // a request that is yet to be sent serves this one, too
		}
	}
	return nil
}

// emptyRevision is that of a store to which nothing has been written.
const emptyRevision = 1

// History implements storage.Interface.
func (s *Store) History(ctx context.Context, prefix string, after, upTo int64) ([]storage.Event, error) {
	after = max(after, emptyRevision)
	if after >= upTo {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	events, err := s.changes(ctx, prefix, after, upTo)
	if err != nil {
		return nil, err
	}
	return events, s.addPrevious(ctx, events, after)
}

// changes reads the events after the one revision and up to the other off a watch.
func (s *Store) changes(ctx context.Context, prefix string, after, upTo int64) ([]storage.Event, error) {
	retry := time.NewTicker(progressRetry)
	defer retry.Stop()
	var events []storage.Event
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := s.Watch(ctx, prefix, storage.WatchOptions{Revision: after})
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", storage.ErrTimeout, ctx.Err())
		case <-retry.C:
			if err := s.RequestProgress(ctx); err != nil {
				return nil, err
			}
		case response, ok := <-watch:
			if !ok {
				return nil, fmt.Errorf("%w: %w", storage.ErrTimeout, ctx.Err())
			}
			for _, event := range response.Events {
				if event.KV.ModRevision <= upTo {
					events = append(events, event)
				}
			}
			if response.Revision >= upTo {
				return events, nil
			}
			if response.Err != nil {
				return nil, response.Err
			}
		}
	}
}

// addPrevious sets Prev: the event before of the same key says it, and of a key's first
// event the store does, as it was at the revision after.
func (s *Store) addPrevious(ctx context.Context, events []storage.Event, after int64) error {
	latest := map[string]*storage.KeyValue{}
	for i := range events {
		event := &events[i]
		prev, known := latest[event.KV.Key]
		if isNew := !event.Deleted && event.KV.CreateRevision == event.KV.ModRevision; !known && !isNew {
			got, err := s.Get(ctx, event.KV.Key, storage.GetOptions{Revision: after})
			if err != nil {
				return err
			}
			prev = got.KV
		}
		event.Prev = prev
		if latest[event.KV.Key] = event.KV; event.Deleted {
			latest[event.KV.Key] = nil
		}
	}
	return nil
}
