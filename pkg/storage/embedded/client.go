package embedded

import (
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
)

// newClient returns etcd's in-process client, which also offers two of etcd's services as
// their protocol has them, for those who save themselves what clientv3 wraps around them.
func newClient(server *etcdserver.EtcdServer) *clientv3.Client {
	c := v3client.New(server)
	service := adapter.KvServerToKvClient(v3rpc.NewQuotaKVServer(server))
	c.KV = kv{clientv3.NewKVFromKVClient(service, c), service}
	c.Watcher = watcher{c.Watcher, adapter.WatchServerToWatchClient(v3rpc.NewWatchServer(server))}
	return c
}

type kv struct {
	clientv3.KV
	service etcdserverpb.KVClient
}

// Service returns the KV service.
func (k kv) Service() etcdserverpb.KVClient { return k.service }

type watcher struct {
	clientv3.Watcher
	service etcdserverpb.WatchClient
}

// Service returns the watch service. Server and client of a stream wait for each other: who
// sends a request on it must not be the one who receives. Events are shared by all watches
// that match them, and etcd sets their PrevKv for a watch that asks for it.
func (w watcher) Service() etcdserverpb.WatchClient { return w.service }
