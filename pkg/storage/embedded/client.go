package embedded

import (
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
)

// newClient returns etcd's in-process client with a watcher of our own, which does two
// things that a network between the two does and a call does not:
//
//   - Copy events. etcd hands one and the same event to all watches that match it, and
//     sets its PrevKv for each of them in turn.
//   - Hold requests. etcd's client waits until the server has taken a request, the server
//     until the client has taken its answers; where many watches come and go, each waits
//     for the other forever.
func newClient(server *etcdserver.EtcdServer) *clientv3.Client {
	c := v3client.New(server)
	watches := adapter.WatchServerToWatchClient(watchServer{v3rpc.NewWatchServer(server)})
	c.Watcher = clientv3.NewWatchFromWatchClient(watches, c)
	service := adapter.KvServerToKvClient(v3rpc.NewQuotaKVServer(server))
	c.KV = kv{clientv3.NewKVFromKVClient(service, c), service}
	return c
}

// kv is etcd's KV service in both of its forms.
type kv struct {
	clientv3.KV
	service etcdserverpb.KVClient
}

// Service returns the KV service as its protocol has it, for those who save themselves
// what clientv3 wraps around it.
func (k kv) Service() etcdserverpb.KVClient { return k.service }

type watchServer struct{ etcdserverpb.WatchServer }

func (s watchServer) Watch(stream etcdserverpb.Watch_WatchServer) error {
	held := &heldRequests{Watch_WatchServer: stream, more: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		held.fill()
	}()
	// etcd's Watch returns when the stream has ended, which ends fill as well.
	defer func() { <-done }()
	return s.WatchServer.Watch(held)
}

// heldRequests is a server's side of a stream that always takes the client's requests. A
// watch makes two of them, its creation and its end, and requests for progress are held
// once, so that what is held stays in proportion to the watches.
type heldRequests struct {
	etcdserverpb.Watch_WatchServer

	mu       sync.Mutex
	requests []*etcdserverpb.WatchRequest
	err      error         // what ended the stream
	more     chan struct{} // signals that requests or err has changed
}

// fill takes in requests until the stream ends.
func (h *heldRequests) fill() {
	for {
		r, err := h.Watch_WatchServer.Recv()
		h.mu.Lock()
		switch n := len(h.requests); {
		case err != nil:
			h.err = err
		case n == 0 || r.GetProgressRequest() == nil || h.requests[n-1].GetProgressRequest() == nil:
			h.requests = append(h.requests, r)
		}
		h.mu.Unlock()
		select {
		case h.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (h *heldRequests) Recv() (*etcdserverpb.WatchRequest, error) {
	for {
		h.mu.Lock()
		if len(h.requests) > 0 {
			r := h.requests[0]
			h.requests[0] = nil
			h.requests = h.requests[1:]
			h.mu.Unlock()
			return r, nil
		}
		err := h.err
		h.mu.Unlock()
		if err != nil {
			return nil, err
		}
		<-h.more // comes at the latest when fill ends
	}
}

func (h *heldRequests) Send(r *etcdserverpb.WatchResponse) error {
	for i, e := range r.Events {
		r.Events[i] = &mvccpb.Event{Type: e.Type, Kv: e.Kv, PrevKv: e.PrevKv}
	}
	return h.Watch_WatchServer.Send(r)
}
