package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berth-project/berth/pkg/storage"
)

// proxy is a network between a client and an etcd that can be cut.
type proxy struct {
	target string
	net.Listener
	gate sync.RWMutex // locked: connections are taken and lead nowhere

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// newProxy returns a Store behind a proxy to the etcd behind a network, and one that goes
// past it.
func newProxy(t *testing.T) (s, direct *Store, p *proxy) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p = &proxy{target: clients["gRPC"].Endpoints()[0], Listener: l, conns: map[net.Conn]struct{}{}}
	p.wg.Go(func() { p.serve(t.Context()) })
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.wg.Wait()
	})
	client, err := newRemoteClient(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if s, err = New(client, Config{}); err != nil {
		t.Fatal(err)
	}
	if direct, err = New(clients["gRPC"], Config{}); err != nil {
		t.Fatal(err)
	}
	return s, direct, p
}

func (p *proxy) serve(ctx context.Context) {
	for {
		conn, err := p.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() {
			defer conn.Close()
			p.gate.RLock()
			etcd, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.target)
			p.gate.RUnlock()
			if err != nil {
				return
			}
			defer etcd.Close()
			p.mu.Lock()
			p.conns[conn] = struct{}{}
			p.mu.Unlock()
			p.wg.Go(func() {
				_, _ = io.Copy(etcd, conn) // whose end is the connection's
				etcd.Close()
			})
			_, _ = io.Copy(conn, etcd)
		})
	}
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
		delete(p.conns, conn)
	}
}

// A watch outlives its connections, and misses nothing that happens while there is none.
func TestWatchOutlivesConnections(t *testing.T) {
	s, direct, p := newProxy(t)
	prefix := fmt.Sprintf("/registry/test%d/", prefixes.Add(1))
	rev := create(t, direct, prefix+"a", "")
	ch := s.Watch(t.Context(), prefix, storage.WatchOptions{Revision: rev})
	for range 5 {
		var want []int64
		for i := range 20 {
			rev = put(t, direct, prefix+"a", "", rev)
			want = append(want, rev)
			switch i {
			case 5:
				p.cut()
			case 10:
				p.gate.Lock()
				p.cut()
			}
		}
		p.gate.Unlock()
		var got []int64
		for _, e := range events(t, ch, len(want)) {
			got = append(got, e.KV.ModRevision)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
	}
}

// An etcd that stops and comes back: who takes up the watch from where it ended misses
// nothing and gets nothing twice.
func TestWatchOutlivesEtcd(t *testing.T) {
	dir := t.TempDir()
	remote, err := startRemote(t.Context(), dir, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { remote.Close() }()
	address := remote.Clients[0].Addr().String()
	client, err := newRemoteClient(address)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := New(client, Config{})
	if err != nil {
		t.Fatal(err)
	}
	last := create(t, s, "/registry/a", "")
	seen := last
	ch := s.Watch(t.Context(), "/registry/", storage.WatchOptions{Revision: last})
	var want, got []int64
	for range 5 {
		last = put(t, s, "/registry/a", "", last)
		want = append(want, last)
	}
	remote.Close() // some seconds, which it gives the watch
	if remote, err = startRemote(t.Context(), dir, address); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		last = putEventually(t, s, "/registry/a", last)
		want = append(want, last)
	}
	for len(got) < len(want) {
		r := receive(t, ch)
		for _, e := range r.Events {
			got = append(got, e.KV.ModRevision)
		}
		if seen = max(seen, r.Revision); errors.Is(r.Err, storage.ErrUnavailable) {
			ch = s.Watch(t.Context(), "/registry/", storage.WatchOptions{Revision: seen})
		} else if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("(-want +got)\n%s", d)
	}
}

// putEventually updates a key while connections come back.
func putEventually(t *testing.T, s *Store, key string, expect int64) int64 {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-again.C {
		w, err := s.Put(t.Context(), key, nil, storage.PutOptions{Expect: expect})
		switch {
		case err == nil && w.Succeeded:
			return w.Revision
		case !errors.Is(err, storage.ErrUnavailable) || time.Now().After(deadline):
			t.Fatalf("got %+v, %v", w, err)
		}
	}
}

func TestWatchResumesBehindACompaction(t *testing.T) {
	s, direct, p := newProxy(t)
	prefix := fmt.Sprintf("/registry/test%d/", prefixes.Add(1))
	first := create(t, direct, prefix+"a", "")
	ch := s.Watch(t.Context(), prefix, storage.WatchOptions{Revision: first})
	second := put(t, direct, prefix+"a", "", first)
	events(t, ch, 1)
	p.gate.Lock()
	p.cut()
	third := put(t, direct, prefix+"a", "", put(t, direct, prefix+"a", "", second))
	if _, err := direct.client.Compact(t.Context(), third); err != nil {
		t.Fatal(err)
	}
	p.gate.Unlock()
	if r := receive(t, ch); !errors.Is(r.Err, storage.ErrCompacted) || r.Revision != second {
		t.Errorf("got %+v, want ErrCompacted at revision %d", r, second)
	}
	if r, ok := <-ch; ok {
		t.Errorf("after the error came %+v", r)
	}
}

// script is a watch service that does what etcd does on bad days only.
type script struct {
	etcdserverpb.UnimplementedWatchServer
	serve func(stream etcdserverpb.Watch_WatchServer) error
}

func (s script) Watch(stream etcdserverpb.Watch_WatchServer) error { return s.serve(stream) }

// scriptedWatcher makes watchers of a client in process.
type scriptedWatcher struct {
	clientv3.Watcher
	another func() clientv3.Watcher
}

func (w scriptedWatcher) NewWatcher() clientv3.Watcher { return w.another() }

// scripted returns a Store whose watches are served by serve.
func scripted(t *testing.T, serve func(stream etcdserverpb.Watch_WatchServer) error) *Store {
	t.Helper()
	client := clientv3.NewCtxClient(t.Context(), clientv3.WithZapLogger(zap.NewNop()))
	service := adapter.WatchServerToWatchClient(script{serve: serve})
	client.Watcher = scriptedWatcher{another: func() clientv3.Watcher { return clientv3.NewWatchFromWatchClient(service, client) }}
	s, err := New(client, Config{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// eventsAt is a response with one event of each revision.
func eventsAt(revisions ...int64) *etcdserverpb.WatchResponse {
	r := &etcdserverpb.WatchResponse{}
	for _, rev := range revisions {
		kv := &mvccpb.KeyValue{Key: []byte("k"), Value: make([]byte, 100), CreateRevision: rev, ModRevision: rev}
		r.Events = append(r.Events, &mvccpb.Event{Kv: kv})
	}
	return r
}

// progressAt is a report that was asked for.
func progressAt(revision int64) *etcdserverpb.WatchResponse {
	return &etcdserverpb.WatchResponse{WatchId: -1, Header: &etcdserverpb.ResponseHeader{Revision: revision}}
}

// A stream that breaks: the next one begins where it was, and what it repeats is left out.
// Reports from before etcd confirms the watch are not about it.
func TestWatchResumes(t *testing.T) {
	ends := []error{
		status.Error(codes.Unavailable, "error reading from server: EOF"),
		status.Error(codes.Internal, "stream terminated by RST_STREAM"),
		rpctypes.ErrGRPCPermissionDenied,
	}
	var begun []int64
	reported := make(chan struct{}, len(ends))
	s := scripted(t, func(stream etcdserverpb.Watch_WatchServer) error {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		start := request.GetCreateRequest().GetStartRevision()
		begun = append(begun, start)
		created := &etcdserverpb.WatchResponse{Created: true}
		for _, r := range []*etcdserverpb.WatchResponse{progressAt(1000), created, eventsAt(start-2, start), progressAt(start + 1)} {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
		// A stream that ends for good takes what clientv3 has not yet handed over with it.
		select {
		case <-reported:
		case <-stream.Context().Done():
		}
		return ends[len(begun)-1]
	})
	ch := s.Watch(t.Context(), "/a/", storage.WatchOptions{Revision: 10})
	var got, wantBegun, want []int64
	r := receive(t, ch)
	for ; r.Err == nil; r = receive(t, ch) {
		for _, e := range r.Events {
			got = append(got, e.KV.ModRevision)
		}
		if len(r.Events) == 0 {
			reported <- struct{}{}
		}
	}
	for i := range ends {
		wantBegun = append(wantBegun, 11+2*int64(i))
		want = append(want, 11+2*int64(i))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("events (-want +got)\n%s", d)
	}
	if d := cmp.Diff(wantBegun, begun); d != "" {
		t.Errorf("streams (-want +got)\n%s", d)
	}
	if last := want[len(want)-1] + 1; !errors.Is(r.Err, storage.ErrUnavailable) || !errors.Is(r.Err, rpctypes.ErrPermissionDenied) || r.Revision != last {
		t.Errorf("got %+v, want ErrUnavailable at revision %d", r, last)
	}
}

// An event at or below a revision that was reported ends the watch: others may be missing.
// What was delivered as an event may come again.
func TestWatchMissesNothingSilently(t *testing.T) {
	created := &etcdserverpb.WatchResponse{Created: true}
	for name, tc := range map[string]struct {
		script []*etcdserverpb.WatchResponse
		want   []int64 // revisions of events
		at     int64   // of the error
	}{
		"an event before the report": {[]*etcdserverpb.WatchResponse{created, progressAt(20), eventsAt(15)}, nil, 10},
		"the event of the report":    {[]*etcdserverpb.WatchResponse{created, eventsAt(12), progressAt(20), eventsAt(20)}, []int64{12}, 12},
		"with later ones":            {[]*etcdserverpb.WatchResponse{created, progressAt(20), eventsAt(19, 21)}, nil, 10},
		"after events came again":    {[]*etcdserverpb.WatchResponse{created, eventsAt(12), eventsAt(11, 12, 13), progressAt(14), eventsAt(13, 14)}, []int64{12, 13}, 13},
		"after other events":         {[]*etcdserverpb.WatchResponse{created, progressAt(14), eventsAt(15), progressAt(20), eventsAt(15, 16)}, []int64{15}, 15},
		"after a report came again":  {[]*etcdserverpb.WatchResponse{created, progressAt(20), progressAt(15), eventsAt(18)}, nil, 10},
	} {
		t.Run(name, func(t *testing.T) {
			s := scripted(t, func(stream etcdserverpb.Watch_WatchServer) error {
				if _, err := stream.Recv(); err != nil {
					return err
				}
				for _, r := range tc.script {
					if err := stream.Send(r); err != nil {
						return err
					}
				}
				<-stream.Context().Done()
				return nil
			})
			ch := s.Watch(t.Context(), "/a/", storage.WatchOptions{Revision: 10})
			var got []int64
			r := receive(t, ch)
			for ; r.Err == nil; r = receive(t, ch) {
				for _, e := range r.Events {
					got = append(got, e.KV.ModRevision)
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("events (-want +got)\n%s", d)
			}
			if !errors.Is(r.Err, storage.ErrMissedEvents) || !errors.Is(r.Err, storage.ErrUnavailable) || r.Revision != tc.at {
				t.Errorf("got %+v, want ErrMissedEvents at revision %d", r, tc.at)
			}
			if r, ok := <-ch; ok {
				t.Errorf("after the error came %+v", r)
			}
		})
	}
}

// A request for progress does not wait for a member that reads nothing, and the watch ends
// nevertheless.
func TestProgressWaitsForNothing(t *testing.T) {
	confirmed := make(chan struct{})
	confirm := sync.OnceFunc(func() { close(confirmed) }) // a request that comes last may begin another stream
	s := scripted(t, func(stream etcdserverpb.Watch_WatchServer) error {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(&etcdserverpb.WatchResponse{Created: true}); err != nil {
			return err
		}
		if err := stream.Send(progressAt(20)); err != nil {
			return err
		}
		confirm()
		<-stream.Context().Done()
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	progress := make(chan struct{})
	ch := s.Watch(ctx, "/a/", storage.WatchOptions{Revision: 10, Progress: progress})
	receive(t, ch)
	<-confirmed
	progress <- struct{}{}
	cancel()
	if r, ok := <-ch; ok {
		t.Errorf("after the end of the context came %+v", r)
	}
}
