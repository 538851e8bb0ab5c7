package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

const (
	// etcdStartTimeout is how long an etcd may take to answer when the server starts.
	etcdStartTimeout = 5 * time.Second
	// embeddedStartTimeout is for reading a large database, after a crash from its log.
	embeddedStartTimeout = 5 * time.Minute
	// As kube-apiserver's: a connection whose other end is gone without a word is noticed
	// after both.
	etcdKeepAliveTime    = 30 * time.Second
	etcdKeepAliveTimeout = 10 * time.Second
	etcdDialTimeout      = 20 * time.Second
)

// backend is a client of an etcd, and the etcd itself where it runs inside.
type backend struct {
	client *clientv3.Client
	// maxValueBytes is the largest value that the etcd takes; 0: etcd's default.
	maxValueBytes int
	// failed delivers why the etcd inside has stopped by itself; nil where there is none.
	failed <-chan error
	close  func() error
}

// openBackend returns an etcd that answers.
func openBackend(ctx context.Context, c config, logger zerolog.Logger) (*backend, error) {
	if len(c.EtcdServers) == 0 {
		return openEmbedded(ctx, c, logger)
	}
	reason := &lastFailure{}
	client, err := newEtcdClient(c, reason)
	if err != nil {
		return nil, err
	}
	if err := checkEtcd(ctx, client, reason); err != nil {
		client.Close()
		return nil, &flagError{flag: "etcd-servers", err: fmt.Errorf("etcd at %s: %w", strings.Join(c.EtcdServers, ","), err)}
	}
	return &backend{client: client, close: client.Close}, nil
}

func openEmbedded(ctx context.Context, c config, logger zerolog.Logger) (*backend, error) {
	ctx, cancel := context.WithTimeout(ctx, embeddedStartTimeout)
	defer cancel()
	inside, err := embedded.Start(ctx, embedded.Config{
		DataDir:    c.files().etcd(),
		QuotaBytes: c.QuotaBackendBytes,
		Logger:     logger.With().Str("component", "etcd").Logger(),
	})
	if err != nil {
		return nil, err
	}
	return &backend{
		client:        inside.Client(),
		maxValueBytes: embedded.MaxValueBytes,
		failed:        inside.Err(),
		close:         inside.Close,
	}, nil
}

// lastFailure remembers why a call failed: the client itself only says that the deadline
// has passed.
type lastFailure struct{ err atomic.Pointer[error] }

func (l *lastFailure) note(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if err != nil {
		l.err.Store(&err)
	}
	return err
}

func newEtcdClient(c config, reason *lastFailure) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints:            c.EtcdServers,
		DialTimeout:          etcdDialTimeout,
		DialKeepAliveTime:    etcdKeepAliveTime,
		DialKeepAliveTimeout: etcdKeepAliveTimeout,
		DialOptions:          []grpc.DialOption{etcd.DialOption(), grpc.WithChainUnaryInterceptor(reason.note)},
		// What goes wrong reaches the log through the requests that fail.
		Logger: zap.NewNop(),
	}
	// The files are read again for each connection, so that they can be replaced.
	info := transport.TLSInfo{CertFile: c.EtcdCertFile, KeyFile: c.EtcdKeyFile, TrustedCAFile: c.EtcdCAFile, Logger: zap.NewNop()}
	var err error
	if cfg.TLS, err = info.ClientConfig(); err != nil {
		return nil, fmt.Errorf("the files of the connection to etcd: %w", err)
	}
	return clientv3.New(cfg)
}

// checkEtcd returns nil when etcd answers within etcdStartTimeout.
func checkEtcd(ctx context.Context, client *clientv3.Client, reason *lastFailure) error {
	ctx, cancel := context.WithTimeout(ctx, etcdStartTimeout)
	defer cancel()
	_, err := client.Get(ctx, "\x00", clientv3.WithLimit(1), clientv3.WithKeysOnly())
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if last := reason.err.Load(); last != nil {
		return fmt.Errorf("no answer within %v: %s", etcdStartTimeout, connectionFailure(*last))
	}
	return fmt.Errorf("no answer within %v", etcdStartTimeout)
}

// connectionFailure is the innermost reason in an error of gRPC, which wraps what the
// network said in several layers of text.
func connectionFailure(err error) string {
	message := status.Convert(err).Message()
	if _, inner, ok := strings.Cut(message, `desc = "`); ok {
		message = strings.TrimSuffix(inner, `"`)
	}
	for _, layer := range []string{"transport: ", "Error while dialing: "} {
		message = strings.TrimPrefix(message, layer)
	}
	return message
}
