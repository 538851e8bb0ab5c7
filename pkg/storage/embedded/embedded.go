// Package embedded runs etcd inside the process: one member, no listening socket, and a
// client that calls it directly.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
)

const (
	// DefaultQuotaBytes is etcd's own default quota, 2 GiB.
	DefaultQuotaBytes = 2 << 30

	// MaxRequestBytes is the largest request that this etcd takes, in bytes. It is above
	// etcd's default of 1.5 MiB, and below the 10 MiB above which etcd warns.
	MaxRequestBytes = 8 << 20

	// MaxValueBytes is the largest value that fits into such a request, in bytes: the rest
	// is room for the keys and conditions of its transaction.
	MaxValueBytes = MaxRequestBytes - 4<<10

	// defragFreeBytes is how much of the file must be free, and it must be more than
	// half, for Start to rewrite it: below that, the rewriting is not worth the wait.
	defragFreeBytes = 64 << 20

	// stopTimeout bounds Close: an etcd that has failed may never come to a stop.
	stopTimeout = 10 * time.Second
)

// Config configures an Etcd.
type Config struct {
	// DataDir is the directory that holds the data, made if it does not exist. Required.
	DataDir string

	// QuotaBytes is how large the database file may grow; beyond it writes fail until
	// deletions have made room, which is then reclaimed by itself. 0 is DefaultQuotaBytes.
	QuotaBytes int64

	// Logger takes etcd's warnings and errors; the zero Logger discards them.
	Logger zerolog.Logger
}

// Etcd is a running etcd. Its methods may be called from any goroutine.
type Etcd struct {
	server *etcdserver.EtcdServer
	client *clientv3.Client
	lock   *fileutil.LockedFile
	quota  int64
	log    zerolog.Logger

	failed fatalHook  // what etcd's logger called fatal
	errc   chan error // what Err returns
	cancel context.CancelFunc
	wg     sync.WaitGroup // of maintain and the purger

	compactRev int64 // maintain's: what it compacted a full database to, 0 before

	closeOnce sync.Once
	closeErr  error
}

// Start returns a running etcd that has a leader and answers reads, or one clear error:
// the directory is in use by another process, cannot be made or written, holds data that
// etcd cannot read, or ctx ended first. Every write that the client saw succeed survives
// the end of the process, however it ends.
func Start(ctx context.Context, cfg Config) (_ *Etcd, err error) {
	if cfg.DataDir == "" {
		return nil, errors.New("embedded etcd: no data directory")
	}
	if cfg.QuotaBytes < 0 {
		return nil, fmt.Errorf("embedded etcd: negative quota %d", cfg.QuotaBytes)
	}
	if cfg.QuotaBytes == 0 {
		cfg.QuotaBytes = DefaultQuotaBytes
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embedded etcd: %w", err)
	}
	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	fatal := make(fatalHook, 1)
	server, err := newServer(ctx, cfg, fatal)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("cannot open the database in data directory %s: %w", cfg.DataDir, err)
	}
	e := &Etcd{
		server: server,
		lock:   lock,
		quota:  cfg.QuotaBytes,
		log:    cfg.Logger,
		failed: fatal,
		errc:   make(chan error, 1),
	}
	server.Start()
	e.client = newClient(server)
	if err := e.waitReady(ctx); err != nil {
		e.cancel = func() {}
		return nil, errors.Join(fmt.Errorf("etcd in data directory %s did not become ready: %w", cfg.DataDir, err), e.Close())
	}
	mctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.wg.Go(func() { e.maintain(mctx) })
	old := purger{walDir: server.Cfg.WALDir(), snapDir: server.Cfg.SnapDir(), log: cfg.Logger}
	e.wg.Go(func() { old.run(mctx, purgeInterval) })
	return e, nil
}

// Client returns the client, which is in process. Close closes it.
func (e *Etcd) Client() *clientv3.Client { return e.client }

// Err returns a channel that receives one error if etcd stops by itself, for instance
// because the disk fails: from then on nothing is written any more, and the owner should
// close it and end the process. The channel is never closed.
func (e *Etcd) Err() <-chan error { return e.errc }

// Close stops etcd, waits for it, and releases the directory. Requests under way fail.
// Its error says that etcd did not stop within 10 s; nothing that was committed is lost
// then either. Further calls return the same.
func (e *Etcd) Close() error {
	e.closeOnce.Do(func() {
		e.cancel()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			e.wg.Wait()
			e.client.Close() // its error only says that its context ended
			e.server.Stop()
		}()
		timer := time.NewTimer(stopTimeout)
		defer timer.Stop()
		select {
		case <-stopped:
			e.closeErr = e.lock.Close()
		case <-timer.C:
			// The directory stays locked: etcd may still write to it.
			e.closeErr = fmt.Errorf("etcd did not stop within %v", stopTimeout)
		}
	})
	return e.closeErr
}

// waitReady returns when a leader is elected and a linearizable read is answered.
func (e *Etcd) waitReady(ctx context.Context) error {
	select {
	case <-e.server.ReadyNotify():
	case <-e.server.StopNotify():
		return errors.New("etcd stopped")
	case err := <-e.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := e.client.Get(ctx, "\x00", clientv3.WithLimit(1), clientv3.WithKeysOnly())
	return err
}

// lockDir makes the directory and takes its lock, which the kernel releases when the
// process ends, however it ends.
func lockDir(dir string) (*fileutil.LockedFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be made: %w", dir, err)
	}
	lock, err := fileutil.TryLockFile(filepath.Join(dir, "lock"), os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("data directory %s is in use by another process", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory %s cannot be written: %w", dir, err)
	}
	return lock, nil
}
