package cluster

import (
	"context"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// startRemote starts an etcd that is empty and listens on the address, and returns the one that it has.
func startRemote(t *testing.T, address string) (at string, stop func()) {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: address}}
	cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.Dir, cfg.TickMs, cfg.ElectionMs = filepath.Join(t.TempDir(), "etcd"), 10, 100
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	remote, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(remote.Close)
	t.Cleanup(stop)
	select {
	case <-remote.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		t.Fatal("etcd does not become ready")
	}
	return remote.Clients[0].Addr().String(), stop
}

// An empty etcd takes the place of that of running replicas: buckets begin anew, and nobody waits for
// its revision to pass the one that there was.
func TestAnotherEtcd(t *testing.T) {
	address, stop := startRemote(t, "127.0.0.1:0")
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialOptions: []grpc.DialOption{etcd.DialOption()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	for range 500 {
		if _, err := client.Put(t.Context(), "/elsewhere", ""); err != nil {
			t.Fatal(err)
		}
	}
	// One token in advance at most, so that most requests ask the store.
	replicas := startReplicasOn(t, client, 2, reads(1000, 2))
	r, alice, bob := replicas[0], newSubject(), newSubject()
	for _, s := range []ratelimit.Subject{alice, bob} {
		if wait := r.read(s, 1); wait != 0 {
			t.Fatalf("it must wait %v", wait)
		}
	}
	r.mu.Lock()
	session := r.session
	r.mu.Unlock()
	stop()
	startRemote(t, address)
	eventually(t, "the other etcd answers", func() bool {
		resp, err := client.Get(t.Context(), "/elsewhere")
		return err == nil && resp.Header.Revision < 500 && !r.hasFailed()
	})
	r.Owe(time.Now(), bob, ratelimit.Read, 2)
	before, admitted := count(r), 0
	eventually(t, "requests are admitted", func() bool {
		if r.read(alice, 1) == 0 && !r.hasFailed() {
			admitted++
		}
		_, known := r.stored(t, alice)
		return known && admitted > 50
	})
	if got := count(r) - before; got > 200 {
		t.Errorf("%v transactions for %d requests", got, admitted)
	}
	eventually(t, "what is owed is told, and the replicas follow the other etcd", func() bool {
		_, told := r.stored(t, bob)
		r.mu.Lock()
		defer r.mu.Unlock()
		return told && r.watch > 0 && r.peers.count() == 2 && r.peers.revision < 500 && r.session > session
	})
}

// A bucket that others always change first does not keep a replica from the rest of what it does.
func TestGiveBackEnds(t *testing.T) {
	r := startReplicas(t, 1, reads(0.01, 100))[0]
	alice := newSubject()
	if wait := r.read(alice, 1); wait != 0 {
		t.Fatalf("it must wait %v", wait)
	}
	r.stop()
	r.gate.contended.Store(true)
	r.Owe(time.Now(), alice, ratelimit.Read, 1000)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if r.giveBack(ctx); ctx.Err() != nil {
		t.Error("it goes on for as long as others are first")
	}
	r.gate.contended.Store(false)
	r.giveBack(t.Context())
	if state, ok := r.stored(t, alice); !ok || state.level() > -900 {
		t.Errorf("the state is %+v, want some -900 tokens", state)
	}
}
