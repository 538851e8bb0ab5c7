package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// compactRevKey and its meaning are kube-apiserver's (pkg/storage/etcd3/compact.go), so
// that servers of both kinds on one etcd agree on who compacts.
const compactRevKey = "compact_rev_key"

// RunCompactor removes old revisions until ctx ends: at every interval it compacts the store
// to the revision of one interval before. Without an interval it does nothing. Of several
// compactors on one etcd, only one compacts in each interval; if it stops, another takes
// over within two intervals. Failures are logged and retried at the next interval.
func RunCompactor(ctx context.Context, client *clientv3.Client, interval time.Duration, logger zerolog.Logger) {
	if interval <= 0 {
		return
	}
	c, ticks := compactor{client: client}, time.Tick(interval)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
			if _, err := c.compact(ctx); err != nil && ctx.Err() == nil {
				logger.Error().Err(err).Msg("etcd compaction failed")
			}
		}
	}
}

type compactor struct {
	client  *clientv3.Client
	version int64 // of compactRevKey as last seen: the logical time
	rev     int64 // the store's revision as last seen; 0 if not seen yet
}

// compact does one interval's work and returns the revision it compacted to, 0 if it did
// not. The interval belongs to the compactor that increments the key's version by
// compare-and-swap.
func (c *compactor) compact(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := c.client.Txn(ctx).
		If(clientv3.Compare(clientv3.Version(compactRevKey), "=", c.version)).
		Then(clientv3.OpPut(compactRevKey, strconv.FormatInt(c.rev, 10))).
		Else(clientv3.OpGet(compactRevKey)).
		Commit()
	if err != nil {
		return 0, fmt.Errorf("claiming the interval: %w", err)
	}
	target := c.rev
	c.rev = resp.Header.GetRevision()
	if !resp.Succeeded {
		c.version = 0
		if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
			c.version = kvs[0].Version
		}
		return 0, nil
	}
	c.version++
	if target == 0 {
		return 0, nil
	}
	if _, err := c.client.Compact(ctx, target); err != nil {
		if errors.Is(err, rpctypes.ErrCompacted) {
			return 0, nil // someone else compacted further
		}
		return 0, fmt.Errorf("compacting to revision %d: %w", target, err)
	}
	return target, nil
}
