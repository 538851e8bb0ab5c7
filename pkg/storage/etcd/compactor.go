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

// CompactorConfig configures a Compactor.
type CompactorConfig struct {
	// Interval is how often the store is compacted, and the minimum time that old revisions
	// are kept: --etcd-compaction-interval. 0 disables compaction.
	Interval time.Duration
	// Timeout bounds all requests of one compaction together; 0 means 10 s.
	Timeout time.Duration
	// Logger receives the errors of failed compactions; the zero Logger discards them.
	Logger zerolog.Logger
}

// Compactor removes old revisions: at every interval it compacts the store to the revision
// of one interval before. Of several compactors on one etcd, only one compacts in each
// interval; if it stops, another takes over within two intervals.
type Compactor struct {
	client *clientv3.Client
	cfg    CompactorConfig
	ticks  <-chan time.Time // nil means a ticker of cfg.Interval; tests pass their own

	version int64 // of compactRevKey as last seen: the logical time
	rev     int64 // the store's revision as last seen; 0 if not seen yet
}

// NewCompactor returns a Compactor, to be started with Run. A negative duration is an error.
func NewCompactor(client *clientv3.Client, cfg CompactorConfig) (*Compactor, error) {
	if client == nil {
		return nil, errors.New("etcd: no client")
	}
	if cfg.Interval < 0 || cfg.Timeout < 0 {
		return nil, fmt.Errorf("etcd: negative compaction interval %v or timeout %v", cfg.Interval, cfg.Timeout)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	return &Compactor{client: client, cfg: cfg}, nil
}

// Run compacts until ctx ends and then returns nil. It may be called once. Failures are
// logged and retried at the next interval.
func (c *Compactor) Run(ctx context.Context) error {
	ticks := c.ticks
	if ticks == nil && c.cfg.Interval > 0 {
		t := time.NewTicker(c.cfg.Interval)
		defer t.Stop()
		ticks = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
			if _, err := c.compact(ctx); err != nil && ctx.Err() == nil {
				c.cfg.Logger.Error().Err(err).Msg("etcd compaction failed")
			}
		}
	}
}

// compact does one interval's work and returns the revision it compacted to, 0 if it did
// not. The interval belongs to the compactor that increments the key's version by
// compare-and-swap.
func (c *Compactor) compact(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
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
