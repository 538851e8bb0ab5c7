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
	// Interval is how often the store is compacted, and how long old revisions are kept
	// at least: --etcd-compaction-interval. 0 is never.
	Interval time.Duration
	// Timeout bounds one compaction's requests together; 0 is 10 s.
	Timeout time.Duration
	// Logger is told of compactions that failed; the zero Logger discards.
	Logger zerolog.Logger
}

// Compactor removes old revisions: at every interval it compacts the store to the revision
// that it saw one interval before. Of several compactors on one etcd, one compacts in each
// interval; another takes over within two intervals after that one is gone.
type Compactor struct {
	client *clientv3.Client
	cfg    CompactorConfig
	ticks  <-chan time.Time // nil: a ticker of cfg.Interval; tests hand in their own

	version int64 // of compactRevKey as last seen: the logical time
	rev     int64 // the store's revision as last seen; 0 is none yet
}

// NewCompactor returns a Compactor that Run starts. It fails on a negative duration.
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

// Run compacts until ctx ends and then returns nil; it is called once. What fails is
// logged and tried again at the next interval.
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

// compact is one interval's work; it returns the revision that it compacted to, 0 where
// it did not. Raising the key's version by compare-and-swap is what wins the interval.
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
