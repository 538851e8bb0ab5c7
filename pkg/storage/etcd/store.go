// Package etcd implements the storage contract over etcd's client, be it connected to
// a cluster or to an etcd in this process.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/etcd/unary"
)

const (
	defaultTimeout = 10 * time.Second

	// defaultMaxRequestBytes is etcd's default of --max-request-bytes.
	defaultMaxRequestBytes = 3 << 19

	// RequestOverhead is how much of etcd's request limit a write's transaction needs
	// beside its value, in bytes. It names the key three times (compare, put, get) and the
	// guard's key twice; keys of this project stay below 350 bytes, so that together with
	// the framing and the request's header it comes to some 1.5 KiB.
	RequestOverhead = 4 << 10
)

// Config configures a Store. Its zero value is ready to use.
type Config struct {
	// Timeout bounds every call except Watch; a context that ends earlier wins. 0 is 10 s.
	Timeout time.Duration

	// MaxValueBytes is the largest value that Put sends. 0 is what fits under etcd's
	// default request limit: 1.5 MiB less RequestOverhead. Where the cluster's
	// --max-request-bytes differs, it is that less RequestOverhead.
	MaxValueBytes int

	// Registerer takes the metrics of requests; nil leaves them unregistered.
	Registerer prometheus.Registerer

	// Unary is a connection to the same etcd. Transactions and reads of single keys take
	// it while it can carry them, and client's otherwise; nil: client's always. The Store
	// does not close it.
	Unary *unary.Conn
}

// Store is a storage.Interface over an etcd client.
type Store struct {
	client  *clientv3.Client
	service service
	watches etcdserverpb.WatchClient
	timeout time.Duration
	max     int
	metrics *metrics
	streams streams
}

var _ storage.Interface = (*Store)(nil)

// New returns a Store that uses client and does not close it. It fails on a negative
// limit and where the metrics cannot be registered. A client that connects over a network
// should be made with DialOption.
func New(client *clientv3.Client, cfg Config) (*Store, error) {
	if client == nil {
		return nil, errors.New("etcd: no client")
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("etcd: negative timeout %v", cfg.Timeout)
	}
	if cfg.MaxValueBytes < 0 {
		return nil, fmt.Errorf("etcd: negative value limit %d", cfg.MaxValueBytes)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MaxValueBytes == 0 {
		cfg.MaxValueBytes = defaultMaxRequestBytes - RequestOverhead
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return &Store{
		client:  client,
		service: newService(client, cfg.Unary),
		watches: newWatchService(client),
		timeout: cfg.Timeout,
		max:     cfg.MaxValueBytes,
		metrics: m,
	}, nil
}

// Get implements storage.Interface.
func (s *Store) Get(ctx context.Context, key string, opts storage.GetOptions) (storage.GetResponse, error) {
	resp, err := s.read(ctx, "get", &etcdserverpb.RangeRequest{Key: []byte(key), Revision: opts.Revision})
	if err != nil {
		return storage.GetResponse{}, err
	}
	return storage.GetResponse{KV: first(resp.Kvs), Revision: resp.Header.GetRevision()}, nil
}

// List implements storage.Interface.
func (s *Store) List(ctx context.Context, prefix string, opts storage.ListOptions) (storage.ListResponse, error) {
	from := max(prefix, opts.From)
	if from == "" {
		from = "\x00" // etcd refuses the empty key; this is the smallest one
	}
	resp, err := s.read(ctx, "list", &etcdserverpb.RangeRequest{
		Key: []byte(from), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), Revision: opts.Revision, Limit: opts.Limit,
	})
	if err != nil {
		return storage.ListResponse{}, err
	}
	list := storage.ListResponse{
		KVs:      make([]*storage.KeyValue, len(resp.Kvs)),
		More:     resp.More,
		Count:    resp.Count,
		Revision: opts.Revision,
	}
	for i, kv := range resp.Kvs {
		list.KVs[i] = keyValue(kv)
	}
	if list.Revision == 0 {
		list.Revision = resp.Header.GetRevision()
	}
	return list, nil
}

func (s *Store) read(ctx context.Context, operation string, request *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	m, start := s.metrics.of(operation, string(request.Key)), time.Now()
	defer m.observe(start)
	deadline := start.Add(s.timeout)
	resp, err := s.service.read(ctx, deadline, request)
	if err != nil {
		m.failed()
		return nil, readError(ctx, deadline, err)
	}
	return resp, nil
}

// Put implements storage.Interface.
func (s *Store) Put(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
	if len(value) > s.max {
		return storage.WriteResponse{}, &storage.TooLargeError{Size: len(value), Limit: s.max}
	}
	operation := "update"
	if opts.Expect == 0 {
		operation = "create"
	}
	t := &txn{key: key, expect: opts.Expect, guard: opts.Guard}
	if !opts.DryRun {
		t.do, t.value = doPut, value
	}
	return s.write(ctx, operation, len(value), t)
}

// Delete implements storage.Interface.
func (s *Store) Delete(ctx context.Context, key string, opts storage.DeleteOptions) (storage.WriteResponse, error) {
	t := &txn{key: key, expect: existing(opts.Expect)}
	if !opts.DryRun {
		t.do = doDelete
	}
	return s.write(ctx, "delete", 0, t)
}

// write commits a transaction. size is that of the value, for the error of a store that
// refuses it.
func (s *Store) write(ctx context.Context, operation string, size int, t *txn) (storage.WriteResponse, error) {
	m, start := s.metrics.of(operation, t.key), time.Now()
	defer m.observe(start)
	if err := ctx.Err(); err != nil {
		m.failed()
		return storage.WriteResponse{}, fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	response, err := s.service.commit(ctx, start.Add(s.timeout), t)
	if err != nil {
		m.failed()
		return storage.WriteResponse{}, writeError(size, err)
	}
	return response, nil
}

func keyValue(kv *mvccpb.KeyValue) *storage.KeyValue {
	return &storage.KeyValue{
		Key:            string(kv.Key),
		Value:          kv.Value,
		CreateRevision: kv.CreateRevision,
		ModRevision:    kv.ModRevision,
	}
}

func first(kvs []*mvccpb.KeyValue) *storage.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return keyValue(kvs[0])
}
