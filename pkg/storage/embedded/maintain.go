package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

const (
	// maintainInterval is how often the database's size is looked at, and whether space can be
	// reclaimed in it.
	maintainInterval = time.Second

	// maintainTimeout bounds each maintenance request.
	maintainTimeout = 10 * time.Second
)

// maintain reclaims space in a database that is nearly full until ctx ends or etcd stops by
// itself.
func (e *Etcd) maintain(ctx context.Context) {
	ticks := time.Tick(maintainInterval)
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-e.failed:
			e.errc <- err
			return
		case <-e.server.StopNotify():
			e.errc <- errors.New("etcd stopped")
			return
		case <-ticks:
			if err := e.reclaim(ctx); err != nil && ctx.Err() == nil {
				e.log.Error().Err(err).Msg("reclaiming space in the etcd database failed")
			}
		}
	}
}

// reclaim keeps a database from filling up, and makes a full one writable again. etcd counts
// the whole file, to which even a deletion adds. From four fifths of the quota on it compacts
// the history, in the background, and the file is filled up again inside. A file that grows
// beyond 95 % of the quota all the same is defragmented once that gains a fortieth of the quota,
// and then the alarm ends.
func (e *Etcd) reclaim(ctx context.Context) (err error) {
	full, backend := e.full(), e.server.Backend()
	large := backend.Size() >= e.quota-e.quota/20
	if !full && !large && backend.SizeInUse() < e.quota/5*4 {
		e.compactRev = 0
		return nil
	}
	if e.compactRev > 0 {
		if e.compacted() < e.compactRev {
			return nil
		}
		e.countFreePages()
		if gain := backend.Size() - backend.SizeInUse(); large && gain >= e.quota/40 {
			if large, err = e.defragment(); err != nil {
				return err
			}
		}
		if full && !large {
			return e.endAlarm(ctx)
		}
	}
	rev := e.server.KV().Rev()
	if rev <= e.compactRev {
		return nil // nothing was written since the last round
	}
	ctx, cancel := context.WithTimeout(ctx, maintainTimeout)
	defer cancel()
	_, err = e.server.Compact(ctx, &etcdserverpb.CompactionRequest{Revision: rev})
	if err != nil && !errors.Is(err, mvcc.ErrCompacted) {
		return fmt.Errorf("compacting: %w", err)
	}
	e.compactRev = rev
	return nil
}

// defragment rewrites the file, which blocks reads and writes. While a snapshot is read it is
// postponed: they would be blocked until its end.
func (e *Etcd) defragment() (postponed bool, err error) {
	if !e.copying.TryLock() {
		return true, nil
	}
	defer e.copying.Unlock()
	if err := e.server.Defragment(); err != nil {
		return false, fmt.Errorf("defragmenting: %w", err)
	}
	return false, nil
}

// endAlarm has etcd write again.
func (e *Etcd) endAlarm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maintainTimeout)
	defer cancel()
	_, err := e.server.Alarm(ctx, &etcdserverpb.AlarmRequest{
		MemberID: uint64(e.server.MemberID()),
		Action:   etcdserverpb.AlarmRequest_DEACTIVATE,
		Alarm:    etcdserverpb.AlarmType_NOSPACE,
	})
	if err != nil {
		return fmt.Errorf("ending the alarm: %w", err)
	}
	e.log.Warn().Int64("sizeBytes", e.server.Backend().Size()).Int64("quotaBytes", e.quota).
		Msg("the etcd database was full; space was reclaimed and writes resume")
	return nil
}

// compacted returns the revision of the last finished compaction, 0 if there is none.
func (e *Etcd) compacted() int64 {
	tx := e.server.Backend().ReadTx()
	tx.RLock()
	defer tx.RUnlock()
	rev, _ := mvcc.UnsafeReadFinishedCompact(tx)
	return rev
}

// countFreePages makes bbolt count the pages that compaction freed. It releases them two
// commits later, and without writes there are no commits. Deleting a key that does not
// exist is a write that changes nothing.
func (e *Etcd) countFreePages() {
	backend := e.server.Backend()
	for range 2 {
		tx := backend.BatchTx()
		tx.LockOutsideApply()
		tx.UnsafeDelete(schema.Meta, []byte("no such key"))
		tx.Unlock()
		backend.ForceCommit()
	}
}

func (e *Etcd) full() bool {
	return slices.ContainsFunc(e.server.Alarms(), func(a *etcdserverpb.AlarmMember) bool {
		return a.Alarm == etcdserverpb.AlarmType_NOSPACE
	})
}
