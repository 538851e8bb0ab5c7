// Package mirroring has several writers write Endpoints, Services and EndpointSlices of the same
// names, and checks at every revision of the store that the views of each name agree.
package mirroring

import (
	"context"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd"
	"github.com/berth-project/berth/test/apitest"
	"github.com/berth-project/berth/test/harness"
	"github.com/berth-project/berth/test/views"
)

var (
	seed   = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the random writes")
	writes = flag.Int("writes", 60, "writes of each writer before each crash")
	rounds = flag.Int("crashes", 3, "how often the server is killed")
)

const writers = 10

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start has the writers write, and returns what waits for them.
func start(ctx context.Context, t *testing.T, seed uint64, at []*atomic.Pointer[endpoint], n int, answers *answers) (wait func()) {
	t.Helper()
	var running sync.WaitGroup
	for i := range writers {
		w := &writer{at[i%len(at)], answers}
		running.Go(func() { w.run(ctx, t, rand.New(rand.NewPCG(seed, uint64(i))), n) })
	}
	return running.Wait
}

// Two servers on one etcd know of each other's writes by their caches alone, however late those are.
func TestTwoServers(t *testing.T) {
	for name, tc := range map[string]struct {
		mode apiserver.Mirroring
		lag  time.Duration
	}{
		"at once": {apiserver.MirrorServices, 0},
		"late":    {apiserver.MirrorServices, 30 * time.Millisecond},
		"all":     {apiserver.MirrorAll, 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Logf("-seed=%d", *seed)
			var servers []*apitest.Server
			var at []*atomic.Pointer[endpoint]
			for i := range 2 {
				cfg := apitest.Config{Mirroring: tc.mode}
				if i > 0 {
					cfg.Peer = servers[0]
				}
				if tc.lag > 0 {
					cfg.Wrap = func(s storage.Interface) storage.Interface { return &late{s, tc.lag} }
				}
				server, err := apitest.Start(cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := server.Close(); err != nil {
						t.Error(err)
					}
				})
				servers = append(servers, server)
				at = append(at, &atomic.Pointer[endpoint]{})
				at[i].Store(&endpoint{server.URL, apitest.Token, server.Client})
			}
			answers := new(answers)
			start(t.Context(), t, *seed, at, 2**writes, answers)()
			t.Logf("answers: %s", answers)
			check(t, servers[0].Storage, tc.mode == apiserver.MirrorAll)
		})
	}
}

// late is a storage whose watches are up to lag late, each by itself.
type late struct {
	storage.Interface
	lag time.Duration
}

func (l *late) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) <-chan storage.WatchResponse {
	in, out := l.Interface.Watch(ctx, prefix, opts), make(chan storage.WatchResponse)
	go func() {
		defer close(out)
		for response := range in {
			select {
			case <-time.After(rand.N(l.lag)):
			case <-ctx.Done():
			}
			select {
			case out <- response:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// A server that is killed in the middle of writes leaves nothing half done.
func TestCrashes(t *testing.T) {
	t.Logf("-seed=%d", *seed)
	binary, dir := harness.BuildAsTest(t), t.TempDir()
	random := rand.New(rand.NewPCG(*seed, 1000))
	at := &atomic.Pointer[endpoint]{}
	for round := range *rounds + 1 {
		ctx, cancel := context.WithCancel(t.Context())
		server := harness.RunIn(t, dir, binary, "--etcd-compaction-interval=0")
		at.Store(&endpoint{server.URL, server.Token, server.Client})
		answers := &answers{enough: make(chan struct{})}
		answers.left.Store(1 + random.Int64N(writers*int64(*writes))) // each writes that often at least
		wait := start(ctx, t, *seed+uint64(round), []*atomic.Pointer[endpoint]{at}, *writes, answers)
		if round < *rounds {
			<-answers.enough
			server.Kill(t)
			cancel()
		}
		wait()
		t.Logf("answers: %s", answers)
		cancel()
		server.Client.CloseIdleConnections()
		if round == *rounds {
			server.Kill(t)
		}
	}
	db, err := embedded.Start(t.Context(), embedded.Config{DataDir: filepath.Join(dir, "berth.data", "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	store, err := etcd.New(db.Client(), etcd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	check(t, store, false)
}

// check checks all revisions of a store, of which none may be compacted. all is that of the checker.
func check(t *testing.T, store storage.Interface, all bool) {
	t.Helper()
	now, err := store.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events, err := store.History(t.Context(), "/registry/", 0, now, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	c := views.NewChecker()
	c.All = all
	for _, fault := range c.Check(events) {
		t.Error(fault)
	}
	t.Logf("%d revisions: mirrored in %d, derived in %d", now, c.Mirrored, c.Derived)
	if c.Mirrored == 0 || c.Derived == 0 {
		t.Error("nothing was checked")
	}
}

// A server does not refuse a write for what another has changed by now.
func TestRefusalsOfThePast(t *testing.T) {
	first, err := apitest.Start(apitest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	behind, err := apitest.Start(apitest.Config{Peer: first, Wrap: func(s storage.Interface) storage.Interface { return &late{s, time.Second} }})
	if err != nil {
		t.Fatal(err)
	}
	defer behind.Close()
	w := &writer{at: &atomic.Pointer[endpoint]{}, answers: new(answers)}
	send := func(server *apitest.Server, method, path, body string) []byte {
		t.Helper()
		w.at.Store(&endpoint{server.URL, apitest.Token, server.Client})
		code, answer := w.send(t.Context(), t, method, path, body)
		if code != http.StatusOK && code != http.StatusCreated {
			t.Errorf("%s %s: %d %s", method, path, code, answer)
		}
		return answer
	}
	const core, discovery = "/api/v1/namespaces/default/", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
	send(first, http.MethodPost, core+"services", `{"metadata":{"name":"a"},"spec":{"clusterIP":"None"}}`)
	for range 3 {
		send(first, http.MethodPut, core+"endpoints/a", `{"metadata":{"name":"a"},"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"name":"http","port":80}]}]}`)
		var list discoveryv1.EndpointSliceList
		if err := json.Unmarshal(send(behind, http.MethodGet, discovery, ""), &list); err != nil || len(list.Items) != 1 {
			t.Fatalf("%v: %+v", err, list)
		}
		name := list.Items[0].Name
		send(first, http.MethodDelete, core+"endpoints/a", "")
		send(first, http.MethodPost, discovery, `{"metadata":{"name":"`+name+`","labels":{"kubernetes.io/service-name":"a"}},"addressType":"IPv4","endpoints":[]}`)
		send(behind, http.MethodPatch, discovery+"/"+name, `{"metadata":{"labels":{"a":"b"}}}`)
		send(first, http.MethodDelete, discovery+"/"+name, "")
	}
}
