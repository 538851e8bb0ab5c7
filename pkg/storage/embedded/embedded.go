// Package embedded runs a single-member etcd inside the process, without a port, and provides
// a client that calls it directly. It also restores a snapshot into the directory of one.
package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"

	"github.com/berth-project/berth/pkg/files"
)

const (
	// DefaultQuotaBytes is Config.QuotaBytes where that is 0, as etcd's own default.
	DefaultQuotaBytes = 2 << 30

	// maxRequestBytes is above etcd's default of 1.5 MiB, and below the 10 MiB above which
	// etcd warns.
	maxRequestBytes = 8 << 20

	// MaxValueBytes is the largest value that fits into a request to this etcd, in bytes:
	// the rest is for the keys and conditions of its transaction.
	MaxValueBytes = maxRequestBytes - 4<<10

	// maxTxnOps is above etcd's default of 128: an object is written with all that mirrors it.
	maxTxnOps = 1024

	// defragFreeBytes is the minimum free space in the file, in addition to half of it
	// being free, for Start to defragment it: below that it is not worth the wait.
	defragFreeBytes = 64 << 20

	// stopTimeout bounds Close: an etcd that has failed may never stop.
	stopTimeout = 10 * time.Second
)

// Config configures an Etcd.
type Config struct {
	// DataDir is the directory for the data, created if it does not exist. Required.
	DataDir string

	// QuotaBytes is the maximum size of the database file. Beyond it writes fail until
	// deletions have freed space. From 80 % of it on, old revisions are compacted at once,
	// and free space is reclaimed. 0 means 2 GiB.
	QuotaBytes int64

	// SnapshotSocket is the path of a unix socket on which snapshots of the database are served
	// to the user of the process, by etcd's gRPC API. Empty means none. If it cannot be
	// opened, a warning is logged.
	SnapshotSocket string

	// Logger receives etcd's warnings and errors; the zero Logger discards them.
	Logger zerolog.Logger
}

// Etcd is a running etcd. Its methods are safe for concurrent use.
type Etcd struct {
	server *etcdserver.EtcdServer
	client *clientv3.Client
	lock   io.Closer // of the directory
	quota  int64
	log    zerolog.Logger

	failed fatalHook  // the reason of the first Fatal or Panic of etcd's logger
	errc   chan error // returned by Err
	cancel context.CancelFunc
	wg     sync.WaitGroup // of maintain and the purger

	stopSnapshots func()     // no-op without a socket
	copying       sync.Mutex // held while the database is copied or defragmented

	compactRev int64 // used by maintain: revision a nearly full database was compacted to, 0 if none

	closeOnce sync.Once
	closeErr  error
}

// Start returns a running etcd that has a leader and answers reads. It fails with one
// clear error if the directory is in use by another process, cannot be created or
// written, or holds data that etcd cannot read, or if ctx ends first. Acknowledged writes
// survive a crash of the process.
func Start(ctx context.Context, cfg Config) (*Etcd, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("embedded etcd: no data directory")
	}
	if cfg.QuotaBytes < 0 {
		return nil, fmt.Errorf("embedded etcd: negative quota %d", cfg.QuotaBytes)
	}
	cfg.QuotaBytes = cmp.Or(cfg.QuotaBytes, DefaultQuotaBytes)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embedded etcd: %w", err)
	}
	lock, err := files.LockDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	fatal := make(fatalHook, 1)
	server, err := newServer(ctx, cfg, fatal)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("cannot open the database in data directory %s: %w", cfg.DataDir, err)
	}
	running, cancel := context.WithCancel(context.Background())
	e := &Etcd{
		server: server,
		lock:   lock,
		quota:  cfg.QuotaBytes,
		log:    cfg.Logger,
		failed: fatal,
		errc:   make(chan error, 1),
		cancel: cancel,

		stopSnapshots: func() {},
	}
	server.Start()
	e.client = newClient(server)
	if err := e.waitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("etcd in data directory %s did not become ready: %w", cfg.DataDir, err), e.Close())
	}
	if cfg.SnapshotSocket != "" {
		if stop, err := e.serveSnapshots(ctx, cfg.SnapshotSocket); err != nil {
			cfg.Logger.Warn().Err(err).Msg("snapshots cannot be saved while the server runs")
		} else {
			e.stopSnapshots = stop
		}
	}
	e.wg.Go(func() { e.maintain(running) })
	old := purger{walDir: server.Cfg.WALDir(), snapDir: server.Cfg.SnapDir(), log: cfg.Logger}
	e.wg.Go(func() { old.run(running, purgeInterval) })
	return e, nil
}

// Client returns the in-process client. It is closed by Close.
func (e *Etcd) Client() *clientv3.Client { return e.client }

// Err returns a channel that receives one error if etcd stops by itself, for example
// because the disk fails. Nothing is written from then on, so the owner should close it
// and exit. The channel is never closed.
func (e *Etcd) Err() <-chan error { return e.errc }

// Close stops etcd, waits for it, and releases the directory. Requests in progress fail.
// It returns an error if etcd did not stop within 10 s; even then no committed write is
// lost. Further calls return the same error.
func (e *Etcd) Close() error {
	e.closeOnce.Do(func() {
		e.cancel()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			e.stopSnapshots()
			e.wg.Wait()
			e.client.Close() // its error only reports that its context ended
			e.server.Stop()
		}()
		select {
		case <-stopped:
			e.closeErr = e.lock.Close()
		case <-time.After(stopTimeout):
			// The directory stays locked: etcd may still write to it.
			e.closeErr = fmt.Errorf("etcd did not stop within %v", stopTimeout)
		}
	})
	return e.closeErr
}

// waitReady returns when a leader is elected and a linearizable read has succeeded.
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
