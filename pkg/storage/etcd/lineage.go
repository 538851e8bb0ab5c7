package etcd

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"
)

// lineageInterval is how often WatchLineage asks etcd who it is, beside each time that it is
// connected again.
const lineageInterval = 5 * time.Second

// lineage tells whether etcd is still the one that it was, by its answers. It is replaced where the
// id of the cluster changes, a linearizable answer has an older revision than one before it,
// or a change that was seen is not in its history.
type lineage struct {
	mu       sync.Mutex
	cluster  uint64           // 0: it is not known yet
	revision int64            // the newest one seen
	latest   *mvccpb.KeyValue // as the newest change that a watch brought left it; nil: none did
	deleted  bool             // that change was a deletion
	replaced chan struct{}
}

// moment is a lineage when a request was sent.
type moment struct {
	replaced chan struct{}
	revision int64
}

func (l *lineage) init() { l.replaced = make(chan struct{}) }

func (l *lineage) now() moment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return moment{l.replaced, l.revision}
}

// see takes note of the header of a linearizable answer to a request that was sent at before.
func (l *lineage) see(header *etcdserverpb.ResponseHeader, before moment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before.replaced != l.replaced {
		return // it may be of the one that there was
	}
	if header.GetRevision() < before.revision {
		l.replace()
	}
	l.seeCluster(header)
	l.revision = max(l.revision, header.GetRevision())
}

// seeEvents takes note of an answer of a watch that began at begun, and reports whether it is
// of the same etcd. Its revision may be that of a member that is behind.
func (l *lineage) seeEvents(resp *clientv3.WatchResponse, begun moment) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if begun.replaced != l.replaced {
		return false
	}
	l.seeCluster(resp.Header)
	if n := len(resp.Events); n > 0 && begun.replaced == l.replaced {
		if event := resp.Events[n-1]; l.latest == nil || event.Kv.ModRevision > l.latest.ModRevision {
			l.latest, l.deleted = event.Kv, event.Type == clientv3.EventTypeDelete
		}
	}
	return begun.replaced == l.replaced
}

// seeCluster compares the cluster of an answer; l.mu must be held.
func (l *lineage) seeCluster(header *etcdserverpb.ResponseHeader) {
	id := header.GetClusterId()
	if l.cluster != 0 && id != 0 && id != l.cluster {
		l.replace()
	}
	if id != 0 {
		l.cluster = id
	}
}

// replace begins another lineage, of which nothing is known; l.mu must be held.
func (l *lineage) replace() {
	close(l.replaced)
	l.replaced = make(chan struct{})
	l.cluster, l.revision, l.latest = 0, 0, nil
}

// lost ends the lineage unless that has happened since before.
func (l *lineage) lost(before moment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before.replaced == l.replaced {
		l.replace()
	}
}

// Replaced implements storage.Interface.
func (s *Store) Replaced() <-chan struct{} { return s.lineage.now().replaced }

// WatchLineage looks whether etcd is still the same one until ctx ends: each time that it is
// connected again, and every few seconds.
func (s *Store) WatchLineage(ctx context.Context) {
	conn := s.client.ActiveConnection()
	if conn == nil {
		return // an etcd in this process
	}
	ticks := time.NewTicker(lineageInterval)
	defer ticks.Stop()
	connected := make(chan struct{}, 1)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	waiting.Go(func() {
		for state := conn.GetState(); conn.WaitForStateChange(ctx, state); {
			if state = conn.GetState(); state == connectivity.Ready {
				select {
				case connected <- struct{}{}:
				default: // one look is enough
				}
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			_, _ = s.Revision(ctx) // whose answer is looked at; requests have the error
		case <-connected:
			s.checkLatest(ctx)
		}
	}
}

// checkLatest looks for the newest change that was seen in etcd's history: an etcd that was
// restored may have made up for the revisions that it had lost, with other changes.
func (s *Store) checkLatest(ctx context.Context) {
	before := s.lineage.now()
	s.lineage.mu.Lock()
	latest, deleted := s.lineage.latest, s.lineage.deleted
	s.lineage.mu.Unlock()
	if latest == nil {
		_, _ = s.Revision(ctx)
		return
	}
	ctx, cancel := context.WithTimeout(requireLeader(ctx), s.timeout)
	defer cancel()
	at := func(revision int64) (*mvccpb.KeyValue, error) {
		resp, err := s.client.Get(ctx, string(latest.Key), clientv3.WithRev(revision))
		if errors.Is(rpctypes.Error(err), rpctypes.ErrFutureRev) {
			s.lineage.lost(before)
		}
		if err != nil {
			return nil, err // it may be compacted, and then the watches learn of that
		}
		s.lineage.see(resp.Header, before)
		if len(resp.Kvs) == 0 {
			return nil, nil
		}
		return resp.Kvs[0], nil
	}
	found, err := at(latest.ModRevision)
	same := !deleted && found != nil && found.ModRevision == latest.ModRevision && bytes.Equal(found.Value, latest.Value)
	if deleted && found == nil && err == nil { // it was there before, or it may never have been
		found, err = at(latest.ModRevision - 1)
		same = found != nil
	}
	if err == nil && !same {
		s.lineage.lost(before)
	}
}
