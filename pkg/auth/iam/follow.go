package iam

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/berth-project/berth/pkg/storage"
)

const (
	// storeTimeout bounds what a request waits for the store.
	storeTimeout = 2 * time.Second
	// retryPause is the wait after a failure before the store is followed again.
	retryPause = 200 * time.Millisecond
	// askPause is the time between two questions about tokens that are not known here: whoever
	// makes up tokens causes a hundred reads a second at most, all together.
	askPause = 10 * time.Millisecond
	// progressRetry is how often the store's watch is asked how far it is.
	progressRetry = 50 * time.Millisecond
	// sweepInterval is how often expired tokens are deleted from the store.
	sweepInterval = 5 * time.Second
	// maxRecordBytes is several times what a record takes.
	maxRecordBytes = 4 << 10
)

// follower is what keeps the tokens as the store has them.
type follower struct {
	store    storage.Interface
	ask      chan struct{} // somebody waits for round
	progress chan struct{} // requests a progress report from the store's watch
	sweep    chan struct{}

	mu    sync.Mutex
	round *round // that has not begun; nil: nobody waits
}

// round is a question to the store that all who wait for it share.
type round struct {
	done chan struct{}
	err  error
}

func (f *follower) wakeSweep() {
	select {
	case f.sweep <- struct{}{}:
	default: // it is awake
	}
}

// Start has the service keep its tokens in the store and register its metrics, and returns once
// it has read the tokens. The file must have been loaded. ctx bounds that; the work in the background goes on until run ends, and the
// function wait returns when it has ended.
func (s *Service) Start(ctx, run context.Context, store storage.Interface, registerer prometheus.Registerer) (wait func(), err error) {
	if s.current() == nil {
		return func() {}, errors.New("iam: the configuration is not loaded")
	}
	registerer.MustRegister(s.metrics.collectors()...)
	s.follower.store = store
	var running sync.WaitGroup
	running.Go(func() { s.followStore(run) })
	running.Go(func() { s.answerRounds(run) })
	running.Go(func() { s.sweepTokens(run) })
	if err := s.waitFor(ctx, 1); err != nil {
		return running.Wait, fmt.Errorf("cannot read the tokens: %w", err)
	}
	return running.Wait, nil
}

// followStore keeps the tokens up to date until ctx ends. After a failure it retries, and the
// tokens that are known stay.
func (s *Service) followStore(ctx context.Context) {
	stale := true
	for ctx.Err() == nil {
		var err error
		if stale {
			err = s.fill(ctx)
		}
		if err == nil {
			err = s.watch(ctx)
			stale = errors.Is(err, storage.ErrCompacted) || errors.Is(err, storage.ErrMissedEvents)
		}
		if ctx.Err() != nil {
			return
		}
		s.logger.Error().Err(err).Msg("cannot follow the tokens of the token service; it is tried again")
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

// fill reads all tokens.
func (s *Service) fill(ctx context.Context) error {
	fresh, revision := map[hash]*token{}, int64(0)
	for page, err := range storage.Pages(ctx, s.follower.store, keyPrefix, storage.ListOptions{}) {
		if err != nil {
			return err
		}
		for _, kv := range page.KVs {
			if h, t := s.read(kv); t != nil {
				fresh[h] = t
			}
		}
		revision = page.Revision
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, t := range s.tokens {
		switch found := fresh[h]; {
		case found != nil:
			fresh[h] = t // it is never written again
		case t.revision > revision:
			fresh[h] = t // issued here in the meantime
		default:
			t.forget()
		}
	}
	s.tokens, s.perUser = fresh, map[ID]int{}
	for _, t := range s.tokens {
		s.perUser[t.user]++
		// Whoever was disabled while no server ran must not come back by being enabled.
		if u := s.directory.users[t.user]; u != nil && !u.enabled {
			t.revoked = true
		}
	}
	s.reach(revision)
	s.follower.wakeSweep()
	return nil
}

// watch applies changes until the store's watch ends.
func (s *Service) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.RLock()
	revision := s.revision
	s.mu.RUnlock()
	for response := range s.follower.store.Watch(ctx, keyPrefix, storage.WatchOptions{Revision: revision, Progress: s.follower.progress}) {
		s.apply(response)
		if response.Err != nil {
			return response.Err
		}
	}
	return ctx.Err()
}

func (s *Service) apply(response storage.WatchResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, event := range response.Events {
		if h, ok := hashOfKey(event.KV.Key); event.Deleted && ok {
			s.remove(h)
		} else if h, t := s.read(event.KV); t != nil {
			s.add(h, t)
		}
	}
	s.reach(max(s.revision, response.Revision))
}

// add remembers a token. s.mu must be held.
func (s *Service) add(h hash, t *token) {
	if s.tokens[h] == nil {
		s.tokens[h] = t
		s.perUser[t.user]++
	}
}

// remove forgets a token that the store no longer has. s.mu must be held.
func (s *Service) remove(h hash) {
	t := s.tokens[h]
	if t == nil {
		return
	}
	t.forget()
	delete(s.tokens, h)
	if s.perUser[t.user]--; s.perUser[t.user] == 0 {
		delete(s.perUser, t.user)
	}
}

// reach notes the store's revision up to which there is everything. s.mu must be held.
func (s *Service) reach(revision int64) {
	s.revision = revision
	close(s.advance)
	s.advance = make(chan struct{})
}

// read returns the token under a key, nil if it cannot be read.
func (s *Service) read(kv *storage.KeyValue) (hash, *token) {
	h, ok := hashOfKey(kv.Key)
	if !ok || len(kv.Value) > maxRecordBytes {
		s.logger.Warn().Str("key", kv.Key).Msg("there is no token of the token service under this key of etcd; it is ignored")
		return h, nil
	}
	r, err := decodeRecord(kv.Value)
	if err != nil {
		s.logger.Warn().Str("key", kv.Key).Err(err).Msg("a token of the token service cannot be read; it is not accepted")
		return h, nil
	}
	return h, &token{record: *r, revision: kv.ModRevision}
}

// waitFor waits until everything up to the revision is known. While the prefix is not written to,
// the watch tells only if it is asked.
func (s *Service) waitFor(ctx context.Context, revision int64) error {
	retry := time.NewTimer(time.Millisecond)
	defer retry.Stop()
	for {
		s.mu.RLock()
		reached, advance := s.revision, s.advance
		s.mu.RUnlock()
		if reached >= revision {
			return nil
		}
		select {
		case <-advance:
		case <-retry.C:
			select {
			case s.follower.progress <- struct{}{}:
			default: // it is asked already
			}
			retry.Reset(progressRetry)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", storage.ErrTimeout, ctx.Err())
		}
	}
}

// catchUp waits until every token is known that the store had when it was called. All who call
// it at the same time share one question.
func (s *Service) catchUp(ctx context.Context) error {
	f := &s.follower
	f.mu.Lock()
	if f.round == nil {
		f.round = &round{done: make(chan struct{})}
	}
	r := f.round
	f.mu.Unlock()
	select {
	case f.ask <- struct{}{}:
	default: // it was asked already
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", storage.ErrTimeout, ctx.Err())
	case <-time.After(2 * storeTimeout): // a round may have to wait for the one before
		return storage.ErrTimeout
	}
}

// answerRounds asks the store for those who wait, until ctx ends.
func (s *Service) answerRounds(ctx context.Context) {
	f := &s.follower
	for {
		select {
		case <-f.ask:
		case <-ctx.Done():
			return
		}
		f.mu.Lock()
		r := f.round
		f.round = nil
		f.mu.Unlock()
		if r == nil {
			continue
		}
		s.metrics.lookups.Inc()
		r.err = s.askStore(ctx)
		close(r.done)
		select {
		case <-time.After(askPause):
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) askStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	revision, err := s.follower.store.Revision(ctx)
	if err != nil {
		return err
	}
	return s.waitFor(ctx, revision)
}

// sweepTokens deletes tokens that have expired or ended from the store, until ctx ends. Each
// server of the store does so; the first one succeeds.
func (s *Service) sweepTokens(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.follower.sweep:
		case <-ctx.Done():
			return
		}
		for h, revision := range s.ended() {
			if _, err := s.delete(ctx, h, revision); err != nil {
				s.logger.Warn().Err(err).Msg("cannot delete tokens that have ended; it is tried again")
				break
			}
		}
	}
}

// ended returns the tokens that are to be deleted, with the revisions of their creation.
func (s *Service) ended() map[hash]int64 {
	now, ended := time.Now(), map[hash]int64{}
	s.mu.RLock()
	for h, t := range s.tokens {
		if !t.deleted && (t.revoked || t.expired(now)) {
			ended[h] = t.revision
		}
	}
	s.mu.RUnlock()
	return ended
}

// delete deletes a token from the store, and reports whether it was there. It is revoked here
// until the watch removes it from memory.
func (s *Service) delete(ctx context.Context, h hash, revision int64) (found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	response, err := s.follower.store.Delete(ctx, h.key(), storage.DeleteOptions{Expect: revision})
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens[h]; t != nil {
		t.revoked, t.deleted = true, true
		t.forget()
	}
	return response.Succeeded, nil
}
