package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/etcd/unary"
)

// leaderRequired is what clientv3.WithRequireLeader makes anew for each request.
var leaderRequired = metadata.Pairs(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)

// service is etcd's KV service as far as a Store uses it.
type service struct {
	etcdserverpb.KVClient
	conn *unary.Conn // nil: KVClient's way alone
}

func newService(client *clientv3.Client, conn *unary.Conn) service {
	if inProcess, ok := client.KV.(interface{ Service() etcdserverpb.KVClient }); ok {
		return service{inProcess.Service(), nil}
	}
	return service{led{clientv3.RetryKVClient(client)}, conn}
}

// led is etcd behind a network. Every request has a member without a leader refuse it
// before it acts on it.
type led struct{ etcdserverpb.KVClient }

func (l led) Txn(ctx context.Context, request *etcdserverpb.TxnRequest, opts ...grpc.CallOption) (*etcdserverpb.TxnResponse, error) {
	return l.KVClient.Txn(metadata.NewOutgoingContext(ctx, leaderRequired), request, opts...)
}

func (l led) Range(ctx context.Context, request *etcdserverpb.RangeRequest, opts ...grpc.CallOption) (*etcdserverpb.RangeResponse, error) {
	return l.KVClient.Range(metadata.NewOutgoingContext(ctx, leaderRequired), request, opts...)
}

// commit makes a transaction, until the deadline.
func (s service) commit(ctx context.Context, deadline time.Time, t *txn) (storage.WriteResponse, error) {
	if s.conn != nil {
		message, err := s.conn.Invoke(ctx, deadline, etcdserverpb.KV_Txn_FullMethodName, t.message())
		if err == nil {
			if revision, ok := committed(message); ok {
				return storage.WriteResponse{Succeeded: true, Revision: revision}, nil
			}
			response := new(etcdserverpb.TxnResponse)
			err = decode(message, response)
			return responseOf(response), err
		}
		if !errors.Is(err, unary.ErrNotSent) {
			return storage.WriteResponse{}, err
		}
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	response, err := s.Txn(ctx, t.request(), callOptions...)
	if err != nil {
		return storage.WriteResponse{}, err
	}
	return responseOf(response), nil
}

// read reads one key or several, until the deadline. It asks clientv3 also where a member or
// its connection failed: another one may know, and clientv3 asks on and on.
func (s service) read(ctx context.Context, deadline time.Time, request *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	if s.conn != nil && request.RangeEnd == nil {
		message, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(unary.NewRequest(proto.Size(request)), request)
		if err != nil {
			return nil, err
		}
		message, err = s.conn.Invoke(ctx, deadline, etcdserverpb.KV_Range_FullMethodName, message)
		if err == nil {
			response := new(etcdserverpb.RangeResponse)
			return response, decode(message, response)
		}
		if !errors.Is(err, unary.ErrNotSent) && status.Code(err) != codes.Unavailable {
			return nil, err
		}
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return s.Range(ctx, request, callOptions...)
}

// decode reads the message of a response. An error leaves open what the server did.
func decode(message []byte, response proto.Message) error {
	if err := proto.Unmarshal(message, response); err != nil {
		return status.Errorf(codes.Internal, "cannot decode the response: %v", err)
	}
	return nil
}
