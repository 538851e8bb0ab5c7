// Package backend is the etcd that everything is stored in: one that is embedded, or one
// elsewhere.
package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

const (
	// etcdStartTimeout is how long --etcd-servers may take to answer at startup.
	etcdStartTimeout = 5 * time.Second
	etcdStartRetry   = 100 * time.Millisecond
	// embeddedStartTimeout allows for a large database and for replaying its log after a crash.
	embeddedStartTimeout = 5 * time.Minute
	// As kube-apiserver's: a connection whose peer has vanished is detected after both.
	etcdKeepAliveTime    = 30 * time.Second
	etcdKeepAliveTimeout = 10 * time.Second
	etcdDialTimeout      = 20 * time.Second
	// etcdWindow is how many bytes etcd may send ahead. If it is not set, gRPC estimates it
	// with PINGs as long as it receives anything, such as the events of a watch.
	etcdWindow = 4 << 20
)

// Backend is a client of an etcd, and the etcd itself if it is embedded.
type Backend struct {
	Client *clientv3.Client
	// MaxValueBytes is the largest value that the etcd accepts; 0 means etcd's default.
	MaxValueBytes int
	// Failed receives an error if an embedded etcd stops by itself; it is nil otherwise.
	Failed <-chan error
	// Close closes the client, and the etcd if it is embedded.
	Close func() error
}

// Open returns a Backend that answers requests.
func Open(ctx context.Context, c Config, logger zerolog.Logger) (*Backend, error) {
	if len(c.EtcdServers) == 0 {
		return OpenEmbedded(ctx, c, logger)
	}
	b, err := Connect(c)
	if err != nil {
		return nil, err
	}
	var silent []string
	if err = Await(ctx, b.Client); err == nil {
		silent, err = etcd.CheckVersions(ctx, b.Client)
	}
	if err != nil {
		return nil, errors.Join(&cli.FlagError{Flag: "etcd-servers", Err: err}, b.Close())
	}
	if len(silent) > 0 {
		logger.Warn().Strs("members", silent).Msg("etcd members did not answer, and are asked for their versions later")
	}
	return b, nil
}

// OpenEmbedded starts the embedded etcd of c.DataDir, which must be locked.
func OpenEmbedded(ctx context.Context, c Config, logger zerolog.Logger) (*Backend, error) {
	ctx, cancel := context.WithTimeout(ctx, embeddedStartTimeout)
	defer cancel()
	inside, err := embedded.Start(ctx, embedded.Config{
		DataDir:    c.DataDir.Etcd(),
		QuotaBytes: c.QuotaBackendBytes,

		SnapshotSocket: c.DataDir.EtcdSocket(),
		Logger:         logger,
	})
	if err != nil {
		return nil, err
	}
	return &Backend{
		Client:        inside.Client(),
		MaxValueBytes: embedded.MaxValueBytes,
		Failed:        inside.Err(),
		Close:         inside.Close,
	}, nil
}

// Connect returns the client of --etcd-servers, which connects in the background.
func Connect(c Config) (*Backend, error) {
	cfg := clientv3.Config{
		Endpoints:            c.EtcdServers,
		DialTimeout:          etcdDialTimeout,
		DialKeepAliveTime:    etcdKeepAliveTime,
		DialKeepAliveTimeout: etcdKeepAliveTimeout,
		DialOptions: []grpc.DialOption{
			etcd.DialOption(), grpc.WithInitialWindowSize(etcdWindow), grpc.WithInitialConnWindowSize(etcdWindow),
		},
		// Errors are logged with the requests that fail.
		Logger: zap.NewNop(),
	}
	// The files are read for each connection, so they can be replaced.
	info := transport.TLSInfo{CertFile: c.EtcdCertFile, KeyFile: c.EtcdKeyFile, TrustedCAFile: c.EtcdCAFile, Logger: zap.NewNop()}
	var err error
	if cfg.TLS, err = info.ClientConfig(); err != nil {
		return nil, fmt.Errorf("the files of the connection to etcd: %w", err)
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, err
	}
	return &Backend{Client: client, Close: client.Close}, nil
}

// Await waits until etcd answers, since it may be starting at the same time.
func Await(ctx context.Context, client *clientv3.Client) error {
	reason := errors.New("it accepts connections and does not answer")
	err := wait.PollUntilContextTimeout(ctx, etcdStartRetry, etcdStartTimeout, true, func(ctx context.Context) (bool, error) {
		_, err := client.Get(ctx, "\x00", clientv3.WithLimit(1), clientv3.WithKeysOnly())
		if err != nil && ctx.Err() == nil {
			reason = err
		}
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("etcd at %s: no answer within %v: %s", strings.Join(client.Endpoints(), ","), etcdStartTimeout, Failure(client.Endpoints(), reason))
	}
	return nil
}

// Failure returns the innermost reason in an error of gRPC, which wraps the
// network's error in several layers of text, and what the user can do about it.
func Failure(endpoints []string, err error) string {
	message := err.Error()
	if _, inner, ok := strings.Cut(message, `desc = `); ok {
		message = strings.Trim(inner, `"`)
	}
	for _, layer := range []string{"transport: ", "Error while dialing: "} {
		message = strings.TrimPrefix(message, layer)
	}
	for _, known := range connectionRemedies {
		sameScheme := slices.ContainsFunc(endpoints, func(e string) bool { return strings.HasPrefix(e, known.scheme+"://") })
		if sameScheme && strings.Contains(message, known.failure) {
			return message + ": " + known.remedy
		}
	}
	return message
}

// connectionRemedies tell what a failure to connect means that gRPC and TLS do not explain.
var connectionRemedies = []struct{ scheme, failure, remedy string }{
	{"http", "error reading server preface", "it may expect TLS, that is https:// in --etcd-servers"},
	{"https", "first record does not look like a TLS handshake", "it has no TLS: use http:// in --etcd-servers"},
	{"https", "certificate required", wantsCertificate},
	{"https", "certificate signed by unknown authority", "name the CA of its certificate by --etcd-cafile"},
	{"https", "bad certificate", wantsCertificate},
	{"https", "unknown certificate authority", wantsCertificate},
	// The connection can break before the alert that says so is read.
	{"https", "broken pipe", wantsCertificate},
	{"https", "connection reset", wantsCertificate},
}

const wantsCertificate = "it wants a client certificate that it trusts, --etcd-certfile and --etcd-keyfile"
