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

// txn is a conditional write as etcd's protocol has it: if every comparison holds it does
// what it is for, and otherwise it brings back what the comparisons looked at. clientv3's
// builder makes the same of five times as much memory, for each write anew.
type txn struct {
	request etcdserverpb.TxnRequest
	key     []byte
}

// newTxn begins a transaction on the condition that the key has the ModRevision; 0: that it
// does not exist.
func newTxn(key string, modRevision int64) *txn {
	t := &txn{key: []byte(key)}
	t.compare(t.key, modRevision)
	return t
}

func (t *txn) guard(guard *storage.Guard) {
	t.compare([]byte(guard.Key), existing(guard.ModRevision))
}

// existing is the revision to compare a key with that must exist: etcd gives 0 to a key
// that does not exist, and 1 to none, since an empty store is at revision 1.
func existing(modRevision int64) int64 { return max(modRevision, 1) }

func (t *txn) compare(key []byte, modRevision int64) {
	t.request.Compare = append(t.request.Compare, &etcdserverpb.Compare{
		Key: key, Target: etcdserverpb.Compare_MOD, Result: etcdserverpb.Compare_EQUAL,
		TargetUnion: &etcdserverpb.Compare_ModRevision{ModRevision: modRevision},
	})
	t.request.Failure = append(t.request.Failure, &etcdserverpb.RequestOp{
		Request: &etcdserverpb.RequestOp_RequestRange{RequestRange: &etcdserverpb.RangeRequest{Key: key}},
	})
}

func (t *txn) put(value []byte) {
	t.request.Success = []*etcdserverpb.RequestOp{{
		Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: &etcdserverpb.PutRequest{Key: t.key, Value: value}},
	}}
}

func (t *txn) delete() {
	t.request.Success = []*etcdserverpb.RequestOp{{
		Request: &etcdserverpb.RequestOp_RequestDeleteRange{RequestDeleteRange: &etcdserverpb.DeleteRangeRequest{Key: t.key}},
	}}
}
