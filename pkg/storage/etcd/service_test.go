package etcd

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/etcd/unary"
)

// newUnary returns a connection that is up.
func newUnary(address string) (*unary.Conn, error) {
	conn, err := unary.New([]string{"http://" + address}, nil)
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		// A method that no server has, so that none counts it.
		_, err := conn.Invoke(ctx, time.Now().Add(time.Minute), "/etcdserverpb.KV/None", unary.NewRequest(0))
		if status.Code(err) == codes.Unimplemented {
			return conn, nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			conn.Close()
			return nil, err
		}
	}
}

// counting counts what takes the way over clientv3.
type counting struct {
	etcdserverpb.KVClient
	ranges, txns int
}

func (c *counting) Range(ctx context.Context, in *etcdserverpb.RangeRequest, opts ...grpc.CallOption) (*etcdserverpb.RangeResponse, error) {
	c.ranges++
	return c.KVClient.Range(ctx, in, opts...)
}

func (c *counting) Txn(ctx context.Context, in *etcdserverpb.TxnRequest, opts ...grpc.CallOption) (*etcdserverpb.TxnResponse, error) {
	c.txns++
	return c.KVClient.Txn(ctx, in, opts...)
}

// newCounting returns a Store on the etcd behind a network whose requests over clientv3
// are counted.
func newCounting(t *testing.T, conn *unary.Conn) (*Store, *counting) {
	t.Helper()
	s, err := New(clients["unary"], Config{Unary: conn})
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{KVClient: s.service.KVClient}
	s.service.KVClient = c
	return s, c
}

// Requests for single keys take the unary connection; lists, and what it has no room for,
// do not.
func TestWays(t *testing.T) {
	s, over := newCounting(t, conn)
	prefix := fmt.Sprintf("/registry/test%d/", prefixes.Add(1))
	rev := put(t, s, prefix+"a", "2", create(t, s, prefix+"a", "1"))
	if _, err := s.Get(t.Context(), prefix+"a", storage.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), prefix+"a", storage.GetOptions{Revision: rev + 1<<40}); !errors.Is(err, storage.ErrFutureRevision) {
		t.Errorf("got %v, want ErrFutureRevision", err)
	}
	if _, err := s.Revision(t.Context()); err != nil {
		t.Error(err)
	}
	remove(t, s, prefix+"a", rev)
	if over.ranges != 0 || over.txns != 0 {
		t.Errorf("%d reads and %d transactions took the way over clientv3", over.ranges, over.txns)
	}
	if _, err := s.List(t.Context(), prefix, storage.ListOptions{}); err != nil || over.ranges != 1 {
		t.Errorf("a list: %d reads over clientv3, %v", over.ranges, err)
	}
	create(t, s, prefix+"large", string(make([]byte, 1<<20)))
	if over.txns != 1 {
		t.Errorf("a large value: %d transactions over clientv3", over.txns)
	}
}

// Without a connection everything takes the other way.
func TestNoUnaryConnection(t *testing.T) {
	nowhere, err := unary.New([]string{"http://127.0.0.1:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nowhere.Close()
	s, over := newCounting(t, nowhere)
	remove(t, s, "/nowhere/a", create(t, s, "/nowhere/a", "1"))
	if _, err := s.Revision(t.Context()); err != nil || over.ranges != 1 || over.txns != 2 {
		t.Errorf("%d reads and %d transactions over clientv3, %v", over.ranges, over.txns, err)
	}
}

// unavailable is a member that has lost its leader.
type unavailable struct {
	etcdserverpb.UnimplementedKVServer
}

func (unavailable) Range(context.Context, *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	return nil, rpctypes.ErrGRPCNoLeader
}

func (unavailable) Txn(context.Context, *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	return nil, rpctypes.ErrGRPCNoLeader
}

// A read that a member cannot answer is asked of another; a transaction is not sent again.
func TestMemberUnavailable(t *testing.T) {
	_, address := serveKV(t, unavailable{})
	for _, tc := range []struct {
		name string
		do   func(s *Store) error
		want error
	}{
		{"read", func(s *Store) error { _, err := s.Revision(t.Context()); return err }, nil},
		{"write", func(s *Store) error {
			_, err := s.Put(t.Context(), "/unavailable/a", nil, storage.PutOptions{})
			return err
		}, storage.ErrUnavailable},
	} {
		conn, err := newUnary(address)
		if err != nil {
			t.Fatal(err)
		}
		s, over := newCounting(t, conn)
		if err := tc.do(s); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
		if over.txns != 0 {
			t.Errorf("%s: %d transactions took the way over clientv3", tc.name, over.txns)
		}
		conn.Close()
	}
}
