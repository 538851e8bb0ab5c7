package embedded

import (
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
)

// newClient returns etcd's in-process client, whose Watcher can create more watchers.
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

// NewWatcher returns a Watcher with its own streams, as clientv3.NewWatcher does for a
// client with a connection. Watchers share events: if one asks for previous values, etcd
// writes them into the events of all.
func (w watcher) NewWatcher() clientv3.Watcher { return w.another() }
