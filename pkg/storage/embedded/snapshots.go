package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	// maxSnapshotTime bounds how long a client may take to read a snapshot: as long as it does,
	// the room of deleted values is not used again, and the file is not defragmented.
	maxSnapshotTime  = 10 * time.Minute
	snapshotEndGrace = 5 * time.Second

	// maxSnapshotConns bounds the connections to the socket; only one of them can read at a time.
	maxSnapshotConns = 8
)

// serveSnapshots serves the method Snapshot of etcd's Maintenance service, and nothing else,
// on a unix socket that only the user of the process may connect to. It returns what ends
// that.
func (e *Etcd) serveSnapshots(ctx context.Context, path string) (stop func(), err error) {
	listener, err := listenUnix(ctx, path)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(
		grpc.WaitForHandlers(true), // they read the database
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: maxSnapshotTime, MaxConnectionAgeGrace: snapshotEndGrace}),
	)
	etcdserverpb.RegisterMaintenanceServer(server, snapshotServer{
		all: v3rpc.NewMaintenanceServer(e.server, nil), copying: &e.copying, log: e.log,
	})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(netutil.LimitListener(listener, maxSnapshotConns)); err != nil {
			e.log.Error().Err(err).Str("socket", path).Msg("snapshots cannot be saved until a restart")
		}
	})
	return func() {
		server.Stop()
		serving.Wait()
	}, nil
}

// listenUnix listens on a unix socket of mode 0600 in place of what is at path, which can only
// be left of a crash: the directory is locked.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if longest := len(syscall.RawSockaddrUnix{}.Path) - 1; len(path) > longest {
		return nil, fmt.Errorf("the path of the socket, %s, has %d bytes, and the system allows %d; use a shorter --data-dir, such as a relative one", path, len(path), longest)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// On Linux the file takes the mode that the socket has before it is bound, so that it is
	// never open to other users, whatever the umask is.
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		return conn.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
	}}
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// snapshotServer is etcd's Maintenance service with one method.
type snapshotServer struct {
	etcdserverpb.UnimplementedMaintenanceServer
	all     etcdserverpb.MaintenanceServer
	copying *sync.Mutex
	log     zerolog.Logger
}

// Snapshot sends the database with its checksum, to one client at a time.
func (s snapshotServer) Snapshot(req *etcdserverpb.SnapshotRequest, stream etcdserverpb.Maintenance_SnapshotServer) error {
	if !s.copying.TryLock() {
		return status.Error(codes.FailedPrecondition, "another snapshot is being saved, or the database is being defragmented; try again later")
	}
	defer s.copying.Unlock()
	err := s.all.Snapshot(req, stream)
	if err != nil {
		s.log.Warn().Err(err).Msg("a snapshot of the database was not sent as a whole")
		return err
	}
	s.log.Info().Msg("a snapshot of the database was sent")
	return nil
}
