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
	// maintainInterval is how often a full database is checked for, and for space that can
	// be reclaimed in it.
	maintainInterval = time.Second

	// maintainTimeout bounds each maintenance request.
	maintainTimeout = 10 * time.Second
)

// maintain reclaims space in a full database until ctx ends or etcd stops by itself.
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
				e.log.Error().Err(err).Msg("reclaiming space in the full etcd database failed")
			}
		}
	}
}

// reclaim makes a full database writable again: etcd counts the whole file, to which even
// a deletion adds. It first compacts the history, in the background. A later round, when
// at least a tenth of the quota is free inside the file, defragments the file and ends the
// alarm.
func (e *Etcd) reclaim(ctx context.Context) error {
	if !e.full() {
		e.compactRev = 0
		return nil
	}
	if e.compactRev > 0 && e.compacted() >= e.compactRev {
		e.countFreePages()
		if e.server.Backend().SizeInUse() <= e.quota-e.quota/10 {
			return e.shrink(ctx)
		}
	}
	rev := e.server.KV().Rev()
	if rev <= e.compactRev {
		return nil // nothing was deleted since the last round
	}
	ctx, cancel := context.WithTimeout(ctx, maintainTimeout)
	defer cancel()
	_, err := e.server.Compact(ctx, &etcdserverpb.CompactionRequest{Revision: rev})
	if err != nil && !errors.Is(err, mvcc.ErrCompacted) {
		return fmt.Errorf("compacting: %w", err)
	}
	e.compactRev = rev
	return nil
}

// shrink defragments the file, which blocks reads and writes, and ends the alarm.
func (e *Etcd) shrink(ctx context.Context) error {
	if err := e.server.Defragment(); err != nil {
		return fmt.Errorf("defragmenting: %w", err)
	}
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
