package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/features"
	"go.uber.org/zap"
)

const memberName = "berth"

// memberURL only identifies the member, whose ID is derived from it. Nothing listens on it
// or connects to it. It is part of every data directory and must not change.
var memberURL = url.URL{Scheme: "http", Host: "127.0.0.1:2380"}

func serverConfig(cfg Config, lg *zap.Logger) config.ServerConfig {
	urls := types.URLs{memberURL}
	return config.ServerConfig{
		Name:                memberName,
		ClientURLs:          urls,
		PeerURLs:            urls,
		InitialPeerURLsMap:  types.URLsMap{memberName: urls},
		InitialClusterToken: memberName,
		NewCluster:          true,
		DataDir:             cfg.DataDir,
		Logger:              lg,

		// A single member has no peers to wait for: 10 ticks of 10 ms are only the delay
		// before it elects itself.
		TickMs:                     10,
		ElectionTicks:              10,
		InitialElectionTickAdvance: true,
		PreVote:                    true,

		// There is no follower to catch up, and every retained entry is a whole object in
		// memory. The entries since the last snapshot are read into memory at startup:
		// etcd's default of 10,000 is a lot of memory for large objects, but each snapshot
		// blocks for an fsync, and every 1,000 entries they cost a sixth of a small write's
		// CPU.
		SnapshotCount:          5000,
		SnapshotCatchUpEntries: 1,
		// 0 disables etcd's own removal of old files: see purger.
		MaxSnapFiles: 0,
		MaxWALFiles:  0,

		QuotaBackendBytes:   cfg.QuotaBytes,
		BackendFreelistType: bbolt.FreelistMapType,
		MaxTxnOps:           maxTxnOps,
		MaxRequestBytes:     maxRequestBytes,
		StrictReconfigCheck: true,
		BcryptCost:          10,
		// AuthToken stays empty: only this process can reach the server.

		WarningApplyDuration:        time.Second,
		WarningUnaryRequestDuration: time.Second,
		// As upstream advises for kube-apiserver, so that watches of a quiet prefix do not
		// fall behind compactions.
		WatchProgressNotifyInterval: 5 * time.Second,
		V2Deprecation:               config.V2DeprDefault,
		ServerFeatureGate:           features.NewDefaultServerFeatureGate(memberName, lg),
		Metrics:                     "basic",
	}
}

// newServer opens the database. On data that it cannot read, etcd panics or exits, partly
// in goroutines of its own; here that becomes an error. Files it has opened by then stay
// open until the process ends.
func newServer(ctx context.Context, cfg Config, fatal fatalHook) (*etcdserver.EtcdServer, error) {
	lg := newZapLogger(cfg.Logger, fatal)
	sc := serverConfig(cfg, lg)
	type result struct {
		server *etcdserver.EtcdServer
		err    error
	}
	done := make(chan result, 1)
	go func() {
		r := result{err: errors.New("etcd gave up")} // if its logger ends this goroutine
		defer func() { done <- r }()
		r.server, r.err = openServer(sc)
	}()
	select {
	case r := <-done:
		select {
		case err := <-fatal: // the cause, if it ended the goroutine
			return nil, err
		default:
			return r.server, r.err
		}
	case err := <-fatal:
		return nil, err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.server != nil {
				r.server.Cleanup()
			}
		}()
		return nil, ctx.Err()
	}
}

func openServer(sc config.ServerConfig) (server *etcdserver.EtcdServer, err error) {
	defer func() {
		if p := recover(); p != nil {
			server, err = nil, fmt.Errorf("the data is damaged: %v", p)
		}
	}()
	if err := checkBackend(sc.BackendPath()); err != nil {
		return nil, err
	}
	if server, err = etcdserver.NewServer(sc); err != nil {
		return nil, err
	}
	if err := defragAtStart(server); err != nil {
		server.Cleanup()
		return nil, err
	}
	return server, nil
}

// checkBackend opens the database file like etcd does later, in a goroutine where a panic
// of bbolt could not be recovered. It only detects damage to the file's header.
func checkBackend(path string) error {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a file cut short faults in the memory map
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		ReadOnly:        true,
		PreLoadFreelist: true,
		FreelistType:    bbolt.FreelistMapType,
		Timeout:         time.Second,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return db.Close()
}

func defragAtStart(server *etcdserver.EtcdServer) error {
	size, inUse := server.Backend().Size(), server.Backend().SizeInUse()
	if free := size - inUse; free <= defragFreeBytes || free <= size/2 {
		return nil
	}
	if err := server.Defragment(); err != nil {
		return fmt.Errorf("defragmenting: %w", err)
	}
	return nil
}
