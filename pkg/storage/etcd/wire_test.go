package etcd

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/etcd/unary"
)

// What is written by hand is what the generated code reads.
func TestMessageIsRequest(t *testing.T) {
	long := strings.Repeat("k", 300)
	for name, txn := range map[string]*txn{
		"create":         {key: "/registry/a", guard: &storage.Guard{Key: "/registry/g", ModRevision: 7}, do: doPut, value: []byte("value")},
		"update":         {key: "/registry/a", expect: 1 << 40, do: doPut, value: []byte("value")},
		"without value":  {key: "/registry/a", do: doPut},
		"large value":    {key: long, expect: 1, guard: &storage.Guard{Key: long}, do: doPut, value: make([]byte, 1<<20)},
		"delete":         {key: "/registry/a", expect: 127, do: doDelete},
		"long key":       {key: long, expect: 128, do: doDelete},
		"dry run":        {key: "/registry/a", expect: 3},
		"guarded delete": {key: "k", expect: 3, guard: &storage.Guard{Key: "g", ModRevision: 1}, do: doDelete},
		"not UTF-8":      {key: "\xff", do: doPut, value: []byte{0xff, 0}},
	} {
		message := txn.message()[len(unary.NewRequest(0)):]
		got := &etcdserverpb.TxnRequest{}
		if err := proto.Unmarshal(message, got); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if d := cmp.Diff(txn.request(), got, protocmp.Transform()); d != "" {
			t.Errorf("%s (-want +got)\n%s", name, d)
		}
		if size := proto.Size(txn.request()); size != len(message) {
			t.Errorf("%s: %d bytes, want %d", name, len(message), size)
		}
	}
}

func TestCommitted(t *testing.T) {
	header := &etcdserverpb.ResponseHeader{ClusterId: 1 << 63, MemberId: 5, Revision: 1 << 40, RaftTerm: 2}
	put := []*etcdserverpb.ResponseOp{{Response: &etcdserverpb.ResponseOp_ResponsePut{ResponsePut: &etcdserverpb.PutResponse{Header: &etcdserverpb.ResponseHeader{Revision: 3}}}}}
	found := []*etcdserverpb.ResponseOp{{Response: &etcdserverpb.ResponseOp_ResponseRange{ResponseRange: &etcdserverpb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Key: []byte("a")}}}}}}
	for name, tc := range map[string]struct {
		response *etcdserverpb.TxnResponse
		want     bool
	}{
		"put":       {&etcdserverpb.TxnResponse{Header: header, Succeeded: true, Responses: put}, true},
		"dry run":   {&etcdserverpb.TxnResponse{Header: header, Succeeded: true}, true},
		"not so":    {&etcdserverpb.TxnResponse{Header: header, Responses: found}, false},
		"no header": {&etcdserverpb.TxnResponse{Succeeded: true}, true},
		"empty":     {&etcdserverpb.TxnResponse{}, false},
	} {
		data, err := proto.Marshal(tc.response)
		if err != nil {
			t.Fatal(err)
		}
		revision, ok := committed(data)
		if ok != tc.want || ok && revision != tc.response.GetHeader().GetRevision() {
			t.Errorf("%s: got %d, %v", name, revision, ok)
		}
		for i := range len(data) {
			if _, ok := committed(data[:i]); ok && proto.Unmarshal(data[:i], &etcdserverpb.TxnResponse{}) != nil {
				t.Errorf("%s: %d bytes of %d are taken", name, i, len(data))
			}
		}
	}
}

// FuzzCommitted: what is taken for a commit is one by the generated code, of the same
// revision, unless that refuses what is skipped here.
func FuzzCommitted(f *testing.F) {
	header := binary.AppendUvarint([]byte{8, 1, 16, 2, 24}, 1<<40)
	f.Add(append(append([]byte{10, byte(len(header))}, header...), 16, 1, 26, 2, 18, 0))
	f.Add([]byte{16, 1, 16, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		revision, ok := committed(data)
		response := &etcdserverpb.TxnResponse{}
		if err := proto.Unmarshal(data, response); err != nil {
			return
		}
		if ok && (!response.Succeeded || response.GetHeader().GetRevision() != revision) {
			t.Errorf("got revision %d of %v", revision, response)
		}
	})
}
