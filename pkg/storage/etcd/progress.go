package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/storage"
)

// progressRetry is how long History waits for a progress report before it asks again:
// etcd leaves a request unanswered while one of the client's watches is behind.
const progressRetry = 20 * time.Millisecond

// freshnessKey is read for the revision in the answer's header; it never exists.
const freshnessKey = "/registry/\x00"

// Revision implements storage.Interface.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	resp, err := s.read(ctx, "revision", freshnessKey, clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return resp.Header.GetRevision(), nil
}

// RequestProgress implements storage.Interface.
func (s *Store) RequestProgress(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	// clientv3 puts the watches of equal metadata on one stream, and asks that one.
	if err := s.client.RequestProgress(clientv3.WithRequireLeader(ctx)); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	return nil
}

// History implements storage.Interface.
func (s *Store) History(ctx context.Context, prefix string, after, upTo int64) ([]storage.Event, error) {
	if after >= upTo {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	retry := time.NewTicker(progressRetry)
	defer retry.Stop()
	var events []storage.Event
	watch := s.Watch(ctx, prefix, storage.WatchOptions{Revision: after, Prev: true})
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
