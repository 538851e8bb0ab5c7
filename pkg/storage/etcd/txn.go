package etcd

import (
	"math"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/berth-project/berth/pkg/storage"
)

// callOptions let large values through in both directions, as clientv3's do: etcd has the
// limits, and Store knows them.
var callOptions = []grpc.CallOption{
	grpc.MaxCallSendMsgSize(math.MaxInt32),
	grpc.MaxCallRecvMsgSize(math.MaxInt32),
}

// txn is a conditional write of one key: if every comparison holds it does what it is for,
// and otherwise it brings back what the comparisons looked at.
type txn struct {
	key    string
	expect int64          // the ModRevision of the key; 0: it does not exist
	guard  *storage.Guard // nil: none
	do     action
	value  []byte // to put
}

type action int

const (
	doNothing action = iota // as a dry run does
	doPut
	doDelete
)

// existing is the revision to compare a key with that must exist: etcd gives 0 to a key
// that does not exist, and 1 to none, since an empty store is at revision 1.
func existing(modRevision int64) int64 { return max(modRevision, 1) }

// request is the transaction as etcd's protocol has it.
func (t *txn) request() *etcdserverpb.TxnRequest {
	request, key := &etcdserverpb.TxnRequest{}, []byte(t.key)
	compare := func(key []byte, modRevision int64) {
		request.Compare = append(request.Compare, &etcdserverpb.Compare{
			Key: key, Target: etcdserverpb.Compare_MOD, Result: etcdserverpb.Compare_EQUAL,
			TargetUnion: &etcdserverpb.Compare_ModRevision{ModRevision: modRevision},
		})
		request.Failure = append(request.Failure, &etcdserverpb.RequestOp{
			Request: &etcdserverpb.RequestOp_RequestRange{RequestRange: &etcdserverpb.RangeRequest{Key: key}},
		})
	}
	compare(key, t.expect)
	if t.guard != nil {
		compare([]byte(t.guard.Key), existing(t.guard.ModRevision))
	}
	switch t.do {
	case doPut:
		request.Success = []*etcdserverpb.RequestOp{{
			Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: &etcdserverpb.PutRequest{Key: key, Value: t.value}},
		}}
	case doDelete:
		request.Success = []*etcdserverpb.RequestOp{{
			Request: &etcdserverpb.RequestOp_RequestDeleteRange{RequestDeleteRange: &etcdserverpb.DeleteRangeRequest{Key: key}},
		}}
	}
	return request
}

// responseOf is the outcome of a transaction out of etcd's protocol.
func responseOf(response *etcdserverpb.TxnResponse) storage.WriteResponse {
	w := storage.WriteResponse{Succeeded: response.Succeeded, Revision: response.Header.GetRevision()}
	if !response.Succeeded {
		w.Current = firstOf(response.Responses, 0)
		w.Guarded = firstOf(response.Responses, 1)
	}
	return w
}

// firstOf is the key that the i-th get of a transaction found, nil where it found none.
func firstOf(ops []*etcdserverpb.ResponseOp, i int) *storage.KeyValue {
	if i >= len(ops) {
		return nil
	}
	return first(ops[i].GetResponseRange().GetKvs())
}
