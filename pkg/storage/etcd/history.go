package etcd

import (
	"context"
	"fmt"
	"time"

	"github.com/berth-project/berth/pkg/storage"
)

// progressRetry is how long History waits for a progress report before it asks again: etcd
// does not answer a request while the watch is behind.
const progressRetry = 20 * time.Millisecond

// History implements storage.Interface.
func (s *Store) History(ctx context.Context, prefix string, after, upTo int64, maxBytes int) ([]storage.Event, error) {
	after = max(after, 1) // nothing is written by then, and a Get at 0 would read the latest
	if after >= upTo {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	events, err := s.changes(ctx, prefix, after, upTo, maxBytes)
	if err != nil {
		return nil, err
	}
	return events, s.addPrevious(ctx, events, after, maxBytes)
}

// changes reads the events after the revision after and up to upTo from a watch.
func (s *Store) changes(ctx context.Context, prefix string, after, upTo int64, maxBytes int) ([]storage.Event, error) {
	var events []storage.Event
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	progress := make(chan struct{}, 1)
	watch := s.Watch(ctx, prefix, storage.WatchOptions{Revision: after, Progress: progress})
	retry := time.Tick(progressRetry)
	for {
		select {
		case <-retry:
			select {
			case progress <- struct{}{}:
			default: // the previous request has not been sent yet
			}
		case response, ok := <-watch:
			if !ok { // ctx has ended
				return nil, fmt.Errorf("%w: %w", storage.ErrTimeout, ctx.Err())
			}
			for _, event := range response.Events {
				if event.KV.ModRevision <= upTo {
					events = append(events, event)
					maxBytes -= len(event.KV.Value)
				}
			}
			if maxBytes < 0 {
				return nil, storage.ErrTooMuch
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

// addPrevious sets Prev, from the previous event of the same key or, for a key's first
// event, from the store at the revision after.
func (s *Store) addPrevious(ctx context.Context, events []storage.Event, after int64, maxBytes int) error {
	latest := map[string]*storage.KeyValue{}
	for i := range events {
		event := &events[i]
		prev, known := latest[event.KV.Key]
		if isNew := !event.Deleted && event.KV.CreateRevision == event.KV.ModRevision; !known && !isNew {
			got, err := s.Get(ctx, event.KV.Key, storage.GetOptions{Revision: after})
			if err != nil {
				return err
			}
			if prev = got.KV; prev != nil {
				maxBytes -= len(prev.Value)
			}
			if maxBytes < 0 {
				return storage.ErrTooMuch
			}
		}
		event.Prev, latest[event.KV.Key] = prev, event.KV
		if event.Deleted {
			latest[event.KV.Key] = nil
		}
	}
	return nil
}
