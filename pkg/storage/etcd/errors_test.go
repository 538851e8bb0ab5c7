package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berth-project/berth/pkg/storage"
)

func newRemoteClient(address string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:          []string{address},
		MaxCallSendMsgSize: 32 << 20,
		Logger:             zap.NewNop(),
		DialOptions:        []grpc.DialOption{DialOption()},
	})
}

func TestErrors(t *testing.T) {
	var (
		proxy  = status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 4)")
		broken = status.Error(codes.Unavailable, "error reading from server: EOF")
		cut    = status.Error(codes.Canceled, "stream terminated by RST_STREAM")
	)
	for _, tc := range []struct {
		err         error
		read, write error
	}{
		{rpctypes.ErrGRPCCompacted, storage.ErrCompacted, storage.ErrUnavailable},
		{rpctypes.ErrGRPCFutureRev, storage.ErrFutureRevision, storage.ErrUnavailable},
		{rpctypes.ErrGRPCNoSpace, storage.ErrUnavailable, storage.ErrNoSpace},
		{rpctypes.ErrGRPCNoLeader, storage.ErrUnavailable, storage.ErrUnavailable},
		{rpctypes.ErrGRPCRequestTooManyRequests, storage.ErrUnavailable, storage.ErrUnavailable},
		{rpctypes.ErrGRPCPermissionDenied, storage.ErrUnavailable, storage.ErrUnavailable},
		{rpctypes.ErrGRPCCorrupt, storage.ErrUnavailable, storage.ErrUnavailable},
		{rpctypes.ErrGRPCTimeout, storage.ErrTimeout, storage.ErrUnknownOutcome},
		{rpctypes.ErrGRPCTimeoutDueToLeaderFail, storage.ErrTimeout, storage.ErrUnknownOutcome},
		{rpctypes.ErrGRPCLeaderChanged, storage.ErrUnavailable, storage.ErrUnknownOutcome},
		{rpctypes.ErrGRPCStopped, storage.ErrUnavailable, storage.ErrUnknownOutcome},
		{context.DeadlineExceeded, storage.ErrTimeout, storage.ErrUnknownOutcome},
		{context.Canceled, storage.ErrTimeout, storage.ErrUnknownOutcome},
		{cut, storage.ErrTimeout, storage.ErrUnknownOutcome},
		{broken, storage.ErrUnavailable, storage.ErrUnknownOutcome},
		{errors.New("anything else"), storage.ErrUnavailable, storage.ErrUnknownOutcome},
	} {
		if got := readError(t.Context(), tc.err); !errors.Is(got, tc.read) {
			t.Errorf("read: %v became %v, want %v", tc.err, got, tc.read)
		}
		if got := writeError(0, 0, tc.err); !errors.Is(got, tc.write) {
			t.Errorf("write: %v became %v, want %v", tc.err, got, tc.write)
		}
	}
	for _, err := range []error{proxy, rpctypes.ErrGRPCRequestTooLarge} {
		var got *storage.TooLargeError
		if !errors.As(writeError(7, 0, err), &got) || got.Size != 7 {
			t.Errorf("write: %v became %v, want a TooLargeError", err, writeError(7, 0, err))
		}
	}
	if readError(t.Context(), nil) != nil || writeError(0, 0, nil) != nil {
		t.Error("success became an error")
	}
}

// brokenKV is an etcd that does what a real one does on bad days only.
type brokenKV struct {
	etcdserverpb.UnimplementedKVServer
	txn   func(ctx context.Context) error
	calls atomic.Int64
}

func (b *brokenKV) Txn(ctx context.Context, _ *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	b.calls.Add(1)
	return nil, b.txn(ctx)
}

func (b *brokenKV) Range(ctx context.Context, _ *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// serveKV runs a server with the KV service until the test ends.
func serveKV(t *testing.T, kv etcdserverpb.KVServer) (server *grpc.Server, address string) {
	t.Helper()
	address = serve(t, func(s *grpc.Server) {
		server = s
		etcdserverpb.RegisterKVServer(s, kv)
	})
	return server, address
}

// serve runs a server until the test ends and returns its address.
func serve(t *testing.T, register func(*grpc.Server)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return l.Addr().String()
}

// startBroken returns a Store on the service, and the server of that.
func startBroken(t *testing.T, kv etcdserverpb.KVServer, timeout time.Duration) (*Store, *grpc.Server) {
	t.Helper()
	server, address := serveKV(t, kv)
	client, err := newRemoteClient(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s, err := New(client, Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.timeout = timeout
	return s, server
}

// A transaction whose outcome is open goes out once.
func TestWriteIsSentOnce(t *testing.T) {
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, txn := range map[string]func(ctx context.Context) error{
		"cancelled on the way": func(context.Context) error { return status.Error(codes.Canceled, "by a proxy") },
		"deadline on the way":  func(context.Context) error { return status.Error(codes.DeadlineExceeded, "of a proxy") },
		"unavailable":          func(context.Context) error { return status.Error(codes.Unavailable, "going down") },
		"leader changed":       func(context.Context) error { return rpctypes.ErrGRPCLeaderChanged },
		"no answer":            hang,
	} {
		t.Run(name, func(t *testing.T) {
			kv := &brokenKV{txn: txn}
			s, _ := startBroken(t, kv, time.Second)
			if _, err := s.Put(t.Context(), "/a", nil, storage.PutOptions{}); !errors.Is(err, storage.ErrUnknownOutcome) {
				t.Errorf("got %v, want ErrUnknownOutcome", err)
			}
			if n := kv.calls.Load(); n != 1 {
				t.Errorf("sent %d times, want once", n)
			}
		})
	}
}

func TestReadTimesOut(t *testing.T) {
	s, _ := startBroken(t, &brokenKV{}, 50*time.Millisecond)
	if _, err := s.Get(t.Context(), "/a", storage.GetOptions{}); !errors.Is(err, storage.ErrTimeout) {
		t.Errorf("got %v, want ErrTimeout", err)
	}
}

// Where the time had ended before, etcd is not asked, and not blamed.
func TestContextHasEnded(t *testing.T) {
	kv := &brokenKV{}
	s, _ := startBroken(t, kv, requestTimeout)
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, read := s.Get(ctx, "/a", storage.GetOptions{})
	_, written := s.Put(ctx, "/a", nil, storage.PutOptions{})
	for _, err := range []error{read, written} {
		if !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want ErrUnavailable and the context's error", err)
		}
	}
	if n := kv.calls.Load(); n != 0 {
		t.Errorf("etcd was asked %d times", n)
	}
}

// Nothing answers, not even with a refusal: a write that found no connection within its
// time was not sent.
func TestConnectionHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := newRemoteClient(l.Addr().String()) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := New(client, Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.timeout = 100 * time.Millisecond
	if _, err := s.Put(t.Context(), "/a", nil, storage.PutOptions{}); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("write: got %v, want ErrUnavailable", err)
	}
	if _, err := s.Get(t.Context(), "/a", storage.GetOptions{}); !errors.Is(err, storage.ErrTimeout) {
		t.Errorf("read: got %v, want ErrTimeout", err)
	}
}

// The server goes away during a write: the outcome is open. After that nothing
// is sent any more, which is certain and known at once.
func TestConnectionLost(t *testing.T) {
	arrived := make(chan struct{})
	kv := &brokenKV{txn: func(ctx context.Context) error { close(arrived); <-ctx.Done(); return ctx.Err() }}
	s, server := startBroken(t, kv, 20*time.Second)
	result := make(chan error, 1)
	go func() {
		_, err := s.Put(t.Context(), "/a", nil, storage.PutOptions{})
		result <- err
	}()
	<-arrived
	server.Stop()
	if err := <-result; !errors.Is(err, storage.ErrUnknownOutcome) {
		t.Errorf("in progress: got %v, want ErrUnknownOutcome", err)
	}
	began := time.Now()
	_, err := s.Put(t.Context(), "/b", nil, storage.PutOptions{})
	if !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("afterwards: got %v, want ErrUnavailable", err)
	}
	if _, err := s.Get(t.Context(), "/b", storage.GetOptions{}); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("afterwards: got %v, want ErrUnavailable", err)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %v to see that nobody listens", d)
	}
	if n := kv.calls.Load(); n != 1 {
		t.Errorf("%d transactions arrived, want 1", n)
	}
}

// unavailable is a member that has lost its leader.
type unavailable struct {
	etcdserverpb.UnimplementedKVServer
	reads, writes atomic.Int64
}

func (u *unavailable) Range(context.Context, *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	u.reads.Add(1)
	return nil, rpctypes.ErrGRPCNoLeader
}

func (u *unavailable) Txn(context.Context, *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	u.writes.Add(1)
	return nil, rpctypes.ErrGRPCNoLeader
}

// A read that a member cannot answer is asked of another; a transaction is not sent again.
func TestMemberUnavailable(t *testing.T) {
	member := &unavailable{}
	_, address := serveKV(t, member)
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{address, clients["gRPC"].Endpoints()[0]},
		Logger:      zap.NewNop(),
		DialOptions: []grpc.DialOption{DialOption()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := New(client, Config{})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for member.reads.Load() == 0 && time.Now().Before(deadline) { // until it took its turn
		if _, err := s.Revision(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; member.writes.Load() == 0 && time.Now().Before(deadline); i++ {
		_, err := s.Put(t.Context(), fmt.Sprintf("/unavailable/%d/%d", prefixes.Add(1), i), nil, storage.PutOptions{})
		if member.writes.Load() == 0 && err == nil {
			continue
		}
		if n := member.writes.Load(); n != 1 || !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("got %v after %d transactions, want ErrUnavailable after 1", err, n)
		}
	}
}
