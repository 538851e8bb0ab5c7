package embedded

import (
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
)

// newClient returns etcd's in-process client, whose Watcher makes further ones.
func newClient(server *etcdserver.EtcdServer) *clientv3.Client {
	c := v3client.New(server)
	service := adapter.WatchServerToWatchClient(v3rpc.NewWatchServer(server))
	c.Watcher = watcher{c.Watcher, func() clientv3.Watcher { return clientv3.NewWatchFromWatchClient(service, c) }}
	return c
}

type watcher struct {
	clientv3.Watcher
	another func() clientv3.Watcher
}

// NewWatcher returns a Watcher with streams of its own, as clientv3.NewWatcher does for a
// client with a connection. Its watches share events with others: who asks for the state
// before a change has etcd write it into the events of all.
func (w watcher) NewWatcher() clientv3.Watcher { return w.another() }
