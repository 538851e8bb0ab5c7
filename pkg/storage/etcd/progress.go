package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"

	"github.com/berth-project/berth/pkg/storage"
)

// progressRetry is how long History waits for a progress report before it asks again:
// etcd leaves a request unanswered while one of the client's watches is behind.
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

// streams are the watches that can be asked for their progress. Each has a stream of its
// own: clientv3 hands a report to all watches of a stream, also to one that began only
// after etcd made the report, whose events before it would then seem to have come.
type streams struct {
	mu      sync.Mutex
	entered uint64                       // how many there have been
	begun   map[context.Context]struct{} // those that etcd knows of
}

// streamKey is the metadata that tells streams apart: clientv3 keys them by it.
const streamKey = "berth-watch"

// enter returns the context of a watch on a stream of its own, which leave gives back.
func (s *streams) enter(ctx context.Context) (_ context.Context, leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entered++
	md := metadata.Join(leaderRequired, metadata.Pairs(streamKey, strconv.FormatUint(s.entered, 10)))
	ctx = metadata.NewOutgoingContext(ctx, md)
	return ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.begun, ctx)
	}
}

// begin says that etcd knows of the watch: a report that is asked for from now on is about
// it, too.
func (s *streams) begin(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun == nil {
		s.begun = map[context.Context]struct{}{}
	}
	s.begun[ctx] = struct{}{}
}

func (s *streams) all() []context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.begun))
}

// RequestProgress implements storage.Interface.
func (s *Store) RequestProgress(ctx context.Context) error {
	for _, stream := range s.streams.all() {
		stream, cancel := context.WithTimeout(stream, s.timeout)
		stop := context.AfterFunc(ctx, cancel)
		err := s.client.RequestProgress(stream)
		stop()
		cancel()
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", storage.ErrTimeout, ctx.Err())
		}
		if err != nil && stream.Err() == nil { // a watch that has ended has nothing to report
			return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
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
			if err := s.RequestProgress(ctx); err != nil && !errors.Is(err, storage.ErrUnavailable) {
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
