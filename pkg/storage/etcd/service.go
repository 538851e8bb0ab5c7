package etcd

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/berth-project/berth/pkg/storage/etcd/unary"
)

// leaderRequired is what clientv3.WithRequireLeader makes anew for each request.
var leaderRequired = metadata.Pairs(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)

// newService returns the KV service of client's etcd as its protocol has it.
func newService(client *clientv3.Client, conn *unary.Conn) etcdserverpb.KVClient {
	if inProcess, ok := client.KV.(interface{ Service() etcdserverpb.KVClient }); ok {
		return inProcess.Service()
	}
	return remote{clientv3.RetryKVClient(client), conn}
}

// remote is etcd behind a network. Every request has a member without a leader refuse it
// before it acts on it.
type remote struct {
	etcdserverpb.KVClient             // over clientv3's connections
	conn                  *unary.Conn // nil: those alone
}

func (r remote) Txn(ctx context.Context, request *etcdserverpb.TxnRequest, opts ...grpc.CallOption) (*etcdserverpb.TxnResponse, error) {
	if r.conn != nil {
		response := new(etcdserverpb.TxnResponse)
		err := r.conn.Invoke(ctx, etcdserverpb.KV_Txn_FullMethodName, request, response)
		if !errors.Is(err, unary.ErrNotSent) {
			return response, err
		}
	}
	return r.KVClient.Txn(metadata.NewOutgoingContext(ctx, leaderRequired), request, opts...)
}

// Range asks clientv3 also where a member or its connection failed: another one may know,
// and clientv3 asks on and on while ctx lasts.
func (r remote) Range(ctx context.Context, request *etcdserverpb.RangeRequest, opts ...grpc.CallOption) (*etcdserverpb.RangeResponse, error) {
	if r.conn != nil && request.RangeEnd == nil {
		response := new(etcdserverpb.RangeResponse)
		err := r.conn.Invoke(ctx, etcdserverpb.KV_Range_FullMethodName, request, response)
		if !errors.Is(err, unary.ErrNotSent) && status.Code(err) != codes.Unavailable {
			return response, err
		}
	}
	return r.KVClient.Range(metadata.NewOutgoingContext(ctx, leaderRequired), request, opts...)
}
