// Package etcd implements the storage contract with etcd's client, connected either to a
// cluster or to an etcd in this process.
package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/berth-project/berth/pkg/storage"
)

const (
	// requestTimeout bounds every call except Watch, as does the context.
	requestTimeout = 10 * time.Second

	// defaultMaxRequestBytes is etcd's default of --max-request-bytes.
	defaultMaxRequestBytes = 3 << 19

	// RequestOverhead is the part of etcd's request limit that a write's transaction needs
	// in addition to its value, in bytes. The transaction contains the key three times
	// (compare, put, get) and the guard's key twice. Keys stay below 350 bytes, so together
	// with framing and the request's header it takes some 1.5 KiB.
	RequestOverhead = 4 << 10
)

// Config configures a Store. Its zero value is ready to use.
type Config struct {
	// MaxValueBytes is the largest value that Put sends; 4 KiB of it are kept for the marks
	// of a deletion. 0 means what fits under etcd's
	// default request limit: 1.5 MiB less RequestOverhead. If the cluster's
	// --max-request-bytes differs, set it to that less RequestOverhead.
	MaxValueBytes int

	// Registerer registers the metrics of requests; if nil they are not registered.
	Registerer prometheus.Registerer
	// Groups are the groups of the resources that the metrics tell apart, by the name that
	// follows /registry/ in their keys.
	Groups map[string]string
}

// Store implements storage.Interface with an etcd client.
type Store struct {
	client  *clientv3.Client
	timeout time.Duration // of a call
	max     int
	metrics *metrics
	space   space
	leases  *leases
	lineage lineage
}

var _ storage.Interface = (*Store)(nil)

// New returns a Store that uses client but does not close it. It fails on a negative limit,
// and panics if the metrics are registered already. A client with a network connection
// should be created with DialOption.
func New(client *clientv3.Client, cfg Config) (*Store, error) {
	if client == nil {
		return nil, errors.New("etcd: no client")
	}
	if cfg.MaxValueBytes < 0 {
		return nil, fmt.Errorf("etcd: negative value limit %d", cfg.MaxValueBytes)
	}
	s := &Store{
		client:  client,
		timeout: requestTimeout,
		max:     cmp.Or(cfg.MaxValueBytes, defaultMaxRequestBytes-RequestOverhead),
		metrics: newMetrics(cfg.Registerer, cfg.Groups),
	}
	s.leases = newLeases(s.grantLease)
	s.lineage.init()
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.space.collectors()...)
	}
	return s, nil
}

// Get implements storage.Interface.
func (s *Store) Get(ctx context.Context, key string, opts storage.GetOptions) (storage.GetResponse, error) {
	resp, err := s.read(ctx, "get", key, clientv3.WithRev(opts.Revision))
	if err != nil {
		return storage.GetResponse{}, err
	}
	return storage.GetResponse{KV: first(resp.Kvs), Revision: resp.Header.GetRevision()}, nil
}

// freshnessKey is read only for the revision in the response header; it never exists.
const freshnessKey = "/registry/\x00"

// Revision implements storage.Interface.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	resp, err := s.read(ctx, "getCurrentResourceVersion", freshnessKey, clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return resp.Header.GetRevision(), nil
}

// List implements storage.Interface.
func (s *Store) List(ctx context.Context, prefix string, opts storage.ListOptions) (storage.ListResponse, error) {
	from := max(prefix, opts.From)
	if from == "" {
		from = "\x00" // etcd rejects the empty key; this is the smallest valid one
	}
	resp, err := s.read(ctx, "listWithCount", from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithRev(opts.Revision), clientv3.WithLimit(opts.Limit))
	if err != nil {
		return storage.ListResponse{}, err
	}
	list := storage.ListResponse{More: resp.More, Count: resp.Count, Revision: cmp.Or(opts.Revision, resp.Header.GetRevision())}
	list.KVs = make([]*storage.KeyValue, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		list.KVs[i] = keyValue(kv)
	}
	return list, nil
}

func (s *Store) read(ctx context.Context, operation, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	var resp *clientv3.GetResponse
	before := s.lineage.now()
	err := s.call(ctx, operation, key, func(ctx context.Context) (err error) {
		resp, err = s.client.Get(ctx, key, opts...)
		return readError(ctx, err)
	})
	if err == nil {
		s.lineage.see(resp.Header, before)
	}
	return resp, err
}

// call bounds and counts a request, which is not sent if ctx has already ended.
func (s *Store) call(ctx context.Context, operation, key string, request func(context.Context) error) (err error) {
	start := time.Now()
	defer func() { s.metrics.observe(operation, key, start, err) }()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return request(requireLeader(ctx))
}

// Put implements storage.Interface.
func (s *Store) Put(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
	limit := s.max
	if opts.Reserve != storage.ForDeletion {
		limit -= markHeadroom
	}
	if len(value) > limit {
		return storage.WriteResponse{}, &storage.TooLargeError{Size: len(value), Limit: limit}
	}
	t := txn{operation: "update", key: key, size: len(value)}
	if opts.Expect == 0 {
		t.operation = "create"
	}
	t.expect(key, opts.Expect)
	if g := opts.Guard; g != nil {
		t.expect(g.Key, mustExist(g.ModRevision))
	}
	t.add(&opts.Also)
	if opts.TTL > 0 && !opts.DryRun {
		return s.putForTime(ctx, &t, value, opts)
	}
	t.then = append(t.then, clientv3.OpPut(key, string(value)))
	return s.write(ctx, &t, opts.Reserve, opts.DryRun)
}

// write commits t if there is room for it. A dry run only checks its conditions.
func (s *Store) write(ctx context.Context, t *txn, reserve storage.Reserve, dryRun bool) (storage.WriteResponse, error) {
	if t.size > s.max {
		return storage.WriteResponse{}, &storage.TooLargeError{Size: t.size, Limit: s.max, Others: t.others()}
	}
	if dryRun {
		t.then = nil
	} else if t.size > 0 || t.operation != "delete" {
		if err := s.space.take(t.size, reserve); err != nil {
			return storage.WriteResponse{}, err
		}
		defer s.space.done(t.size)
	}
	return s.commit(ctx, t)
}

// putForTime commits a put of a key that etcd deletes by itself. A lease that has expired since,
// or that is not of this etcd, is replaced once.
func (s *Store) putForTime(ctx context.Context, t *txn, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
	others := slices.Clip(t.then)
	for again := false; ; again = true {
		id, err := s.leases.get(ctx, t.key, opts.TTL)
		if err != nil {
			return storage.WriteResponse{}, err
		}
		t.then = append(others, clientv3.OpPut(t.key, string(value), clientv3.WithLease(id)))
		response, err := s.write(ctx, t, opts.Reserve, false)
		if again || !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return response, err
		}
		s.leases.forget(ctx, opts.TTL, id)
	}
}

func (s *Store) grantLease(ctx context.Context, key string, seconds int64) (*clientv3.LeaseGrantResponse, error) {
	var granted *clientv3.LeaseGrantResponse
	err := s.call(ctx, "grantLease", key, func(ctx context.Context) (err error) {
		granted, err = s.client.Grant(ctx, seconds)
		return readError(ctx, err)
	})
	return granted, err
}

// Delete implements storage.Interface.
func (s *Store) Delete(ctx context.Context, key string, opts storage.DeleteOptions) (storage.WriteResponse, error) {
	t := txn{operation: "delete", key: key}
	t.expect(key, mustExist(opts.Expect))
	t.add(&opts.Also)
	t.then = append(t.then, clientv3.OpDelete(key))
	return s.write(ctx, &t, storage.ForDeletion, opts.DryRun)
}

// txn is a conditional write: if every comparison holds it does the writes, and otherwise it reads
// the key that it is for and the guard's.
type txn struct {
	operation, key string // for the metrics
	size           int    // of all values, for the error of a store that rejects them
	conditions     []clientv3.Cmp
	then           []clientv3.Op // empty in a dry run
	otherwise      []clientv3.Op
}

func (t *txn) expect(key string, modRevision int64) {
	t.conditions = append(t.conditions, clientv3.Compare(clientv3.ModRevision(key), "=", modRevision))
	t.otherwise = append(t.otherwise, clientv3.OpGet(key))
}

// add adds what the transaction requires and does besides.
func (t *txn) add(also *storage.Also) {
	for _, c := range also.Conditions {
		if c.Min == c.Max {
			t.conditions = append(t.conditions, clientv3.Compare(clientv3.ModRevision(c.Key), "=", c.Max))
			continue
		}
		t.conditions = append(t.conditions, clientv3.Compare(clientv3.ModRevision(c.Key), "<", c.Max+1))
		if c.Min > 0 {
			t.conditions = append(t.conditions, clientv3.Compare(clientv3.ModRevision(c.Key), ">", c.Min-1))
		}
	}
	for _, w := range also.Writes {
		if w.Delete {
			t.then = append(t.then, clientv3.OpDelete(w.Key))
			continue
		}
		t.then = append(t.then, clientv3.OpPut(w.Key, string(w.Value)))
		t.size += len(w.Value) + writeOverhead
	}
}

// others is how many keys it writes besides the one that it is for.
func (t *txn) others() int { return max(0, len(t.then)-1) }

// mustExist returns the revision to compare a key with that must exist: etcd gives 0 to a
// key that does not exist, and 1 to no key, since an empty store is at revision 1.
func mustExist(modRevision int64) int64 { return max(modRevision, 1) }

func (s *Store) commit(ctx context.Context, t *txn) (storage.WriteResponse, error) {
	var resp *clientv3.TxnResponse
	before := s.lineage.now()
	err := s.call(ctx, t.operation, t.key, func(ctx context.Context) (err error) {
		resp, err = s.client.Txn(ctx).If(t.conditions...).Then(t.then...).Else(t.otherwise...).Commit()
		return writeError(t.size, t.others(), err)
	})
	if err != nil {
		return storage.WriteResponse{}, err
	}
	s.lineage.see(resp.Header, before)
	w := storage.WriteResponse{Succeeded: resp.Succeeded, Revision: resp.Header.GetRevision()}
	if !resp.Succeeded {
		w.Current = first(resp.Responses[0].GetResponseRange().GetKvs())
		if len(resp.Responses) > 1 {
			w.Guarded = first(resp.Responses[1].GetResponseRange().GetKvs())
		}
	}
	return w, nil
}

// leaderRequired is what clientv3.WithRequireLeader allocates for each request.
var leaderRequired = metadata.Pairs(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)

// requireLeader makes a member without a leader reject the request before acting on it, and
// end a watch.
func requireLeader(ctx context.Context) context.Context {
	return metadata.NewOutgoingContext(ctx, leaderRequired)
}

func keyValue(kv *mvccpb.KeyValue) *storage.KeyValue {
	return &storage.KeyValue{Key: string(kv.Key), Value: kv.Value, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision}
}

func first(kvs []*mvccpb.KeyValue) *storage.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return keyValue(kvs[0])
}
