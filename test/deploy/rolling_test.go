package deploy

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/test/harness"
)

var (
	rollingWatches  = flag.Int("rolling.watches", 200, "watches during a rolling restart")
	rollingWrites   = flag.Int("rolling.writes", 50, "writes a second during a rolling restart")
	rollingDelay    = flag.Duration("rolling.delay", time.Second, "--shutdown-delay-duration during a rolling restart")
	rollingGrace    = flag.Duration("rolling.grace", time.Second, "--shutdown-watch-termination-grace-period during a rolling restart")
	rollingPrevious = flag.String("rolling.previous", "", "binary of another release, to upgrade from and to go back to")
)

const (
	watchesOfClient   = 20 // of which informersOfClient are informers'
	informersOfClient = 2
	rollingObjects    = 40
	lastObject        = "last" // whoever has seen it has seen all
)

// rolling is a rolling restart under load.
type rolling struct {
	addresses []string
	args      [][]string
	servers   []*process
	balancer  *balancer
	caFile    string
	// abrupt says that servers stop as another release does, without a bookmark: an informer whose
	// watch has brought nothing yet then lists again.
	abrupt bool

	mu       sync.Mutex
	versions []int64         // of the acknowledged writes
	took     []time.Duration // each of them
	failures []error         // what clients were told after their own retries
	counts   map[string]int  // of requests, and of answers and errors that clients retry
}

func (r *rolling) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failures) < 20 {
		r.failures = append(r.failures, fmt.Errorf(format, args...))
	}
}

// newRolling starts three servers on one etcd, with what replicas have in common.
func newRolling(t *testing.T, binary string) *rolling {
	t.Helper()
	r := &rolling{counts: map[string]int{}}
	etcd, dir := startEtcd(t), t.TempDir()
	pki, tokens := certificates.Dir(filepath.Join(dir, "pki")), filepath.Join(dir, "tokens.csv")
	if _, err := pki.Ensure([]string{hostname}, time.Now()); err != nil {
		t.Fatal(err)
	}
	harness.WriteFile(t, tokens, token+",admin,admin,system:masters\n")
	r.caFile = pki.CACert()
	// By variables, which other releases ignore.
	t.Setenv("BERTH_SHUTDOWN_DELAY_DURATION", rollingDelay.String())
	t.Setenv("BERTH_SHUTDOWN_WATCH_TERMINATION_GRACE_PERIOD", rollingGrace.String())
	t.Setenv("BERTH_GOAWAY_CHANCE", "0.001")
	for i := range 3 {
		address := freeAddress(t)
		_, port, _ := net.SplitHostPort(address)
		r.addresses = append(r.addresses, address)
		r.args = append(r.args, []string{
			"--etcd-servers=" + etcd, "--token-auth-file=" + tokens, "--external-hostname=" + hostname, "--secure-port=" + port,
			"--tls-cert-file=" + pki.Cert(), "--tls-private-key-file=" + pki.Key(), "--tls-ca-file=" + pki.CACert(),
			"--data-dir=" + filepath.Join(dir, strconv.Itoa(i)), "--log-level=warn",
		})
		r.servers = append(r.servers, nil)
		r.start(t, i, binary)
	}
	r.balancer = startBalancer(t, r.caFile, r.addresses)
	for i := range r.servers {
		r.balancer.await(t, i, true)
	}
	return r
}

func (r *rolling) start(t *testing.T, i int, binary string) {
	t.Helper()
	p := start(t, binary, r.args[i]...)
	p.stdout.Await(t, `is ready at https://`+hostname+`:(\d+)\n`, p.ended)
	r.servers[i] = p
}

// countingTransport counts what goes over the network, before the client retries anything.
type countingTransport struct {
	http.RoundTripper
	r *rolling
}

func (c countingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(req)
	what := req.Method
	switch {
	case req.URL.Query().Get("sendInitialEvents") == "true": // which is how informers list
		what = "LIST"
	case req.Method == http.MethodGet && req.URL.Query().Has("watch"):
		what = "WATCH"
	case req.Method == http.MethodGet && filepath.Base(req.URL.Path) == "endpoints":
		what = "LIST"
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.counts[what]++
	switch {
	case err != nil && req.Context().Err() == nil:
		c.r.counts[what+" failed on the way"]++
	case err == nil && resp.StatusCode >= 400:
		c.r.counts[fmt.Sprintf("%s answered with %d", what, resp.StatusCode)]++
	}
	return resp, err
}

// client returns a client with connections of its own, as another process would have them.
func (r *rolling) client(t *testing.T) typedcorev1.EndpointsInterface {
	t.Helper()
	config := &rest.Config{
		Host: "https://" + hostname, BearerToken: token, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAFile: r.caFile},
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", r.balancer.Addr().String())
		},
		WrapTransport: func(next http.RoundTripper) http.RoundTripper { return countingTransport{next, r} },
	}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(httpClient.CloseIdleConnections)
	client, err := typedcorev1.NewForConfigAndClient(config, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	return client.Endpoints("default")
}

// seen is what one watcher has seen: each version once, and newer than the one before.
type seen struct {
	versions int
	sum      uint64 // of them and their order
	last     int64
}

func (s *seen) see(version int64) error {
	if version <= s.last {
		return fmt.Errorf("version %d came after version %d", version, s.last)
	}
	s.versions, s.last, s.sum = s.versions+1, version, s.sum*1099511628211+uint64(version)
	return nil
}

// watch watches from a version on until it has seen the last object, and goes on where a watch has
// ended.
func (r *rolling) watch(ctx context.Context, client typedcorev1.EndpointsInterface, from string, s *seen) {
	s.last, _ = strconv.ParseInt(from, 10, 64)
	for ctx.Err() == nil {
		w, err := client.Watch(ctx, metav1.ListOptions{ResourceVersion: from, AllowWatchBookmarks: true})
		if err != nil {
			if ctx.Err() == nil {
				r.fail("a watch: %w", err)
			}
			return
		}
		for event := range w.ResultChan() {
			object, ok := event.Object.(*corev1.Endpoints)
			if !ok {
				r.fail("a watch from %s: %s %v", from, event.Type, event.Object)
				w.Stop()
				return
			}
			version, err := strconv.ParseInt(object.ResourceVersion, 10, 64)
			if err == nil && event.Type != watch.Bookmark {
				err = s.see(version)
			}
			if err != nil {
				r.fail("a watch from %s: %w", from, err)
			}
			if from = object.ResourceVersion; object.Name == lastObject {
				w.Stop()
				return
			}
		}
	}
}

// inform runs an informer until it has seen the last object.
func (r *rolling) inform(ctx context.Context, client typedcorev1.EndpointsInterface, s *seen) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	see := func(obj any) {
		object := obj.(*corev1.Endpoints)
		version, err := strconv.ParseInt(object.ResourceVersion, 10, 64)
		if err == nil {
			err = s.see(version)
		}
		if err != nil && !r.abrupt {
			r.fail("an informer: %w", err)
		}
		if object.Name == lastObject {
			cancel()
		}
	}
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
				return client.List(ctx, opts)
			},
			WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
				return client.Watch(ctx, opts)
			},
		},
		ObjectType: &corev1.Endpoints{},
		Handler:    cache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, obj any) { see(obj) }},
	})
	controller.RunWithContext(ctx)
}

// write writes at the rate until ctx ends, and waits for the answers.
func (r *rolling) write(ctx, end context.Context, client typedcorev1.EndpointsInterface) {
	var writing sync.WaitGroup
	defer writing.Wait()
	ticks := time.NewTicker(time.Second / time.Duration(*rollingWrites))
	defer ticks.Stop()
	for n := 0; ; n++ {
		select {
		case <-end.Done():
			return
		case <-ticks.C:
			writing.Go(func() { r.writeOne(ctx, client, fmt.Sprintf("object-%d", n%rollingObjects), n) })
		}
	}
}

func (r *rolling) writeOne(ctx context.Context, client typedcorev1.EndpointsInterface, name string, n int) {
	began := time.Now()
	object := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"write": strconv.Itoa(n)}}}
	written, err := client.Update(ctx, object, metav1.UpdateOptions{}) // creates it the first time
	if err != nil {
		r.fail("write %d: %w", n, err)
		return
	}
	version, err := strconv.ParseInt(written.ResourceVersion, 10, 64)
	if err != nil {
		r.fail("write %d: %w", n, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.versions, r.took = append(r.versions, version), append(r.took, time.Since(began))
}

// Every server of three is stopped and started again, one after the other, under watches and
// writes, and no client notices: no request fails after client-go's own retries, no watcher
// misses a change or has one twice, and nobody lists again.
func TestRollingRestart(t *testing.T) {
	if !*long {
		t.Skip("it needs a machine that has nothing else to do: go test ./test/deploy -run RollingRestart -args -long")
	}
	binary := harness.Build(t, false)
	if *rollingPrevious == "" {
		t.Run("of one release", func(t *testing.T) { testRolling(t, binary, binary) })
		return
	}
	t.Run("upgrade", func(t *testing.T) { testRolling(t, *rollingPrevious, binary) })
	t.Run("downgrade", func(t *testing.T) { testRolling(t, binary, *rollingPrevious) })
}

func testRolling(t *testing.T, from, to string) {
	r := newRolling(t, from)
	r.abrupt = from == *rollingPrevious
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	writer := r.client(t)
	list, err := writer.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var watching, writing sync.WaitGroup
	watchers := make([]seen, *rollingWatches)
	for i := 0; i < len(watchers); i += watchesOfClient {
		client := r.client(t)
		for j := i; j < min(i+watchesOfClient, len(watchers)); j++ {
			watching.Go(func() {
				if j-i < informersOfClient {
					r.inform(ctx, client, &watchers[j])
				} else {
					r.watch(ctx, client, list.ResourceVersion, &watchers[j])
				}
			})
		}
	}
	r.awaitWatches(t, len(watchers))
	before := r.count("LIST")
	end, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	writing.Go(func() { r.write(ctx, end, writer) })
	for i := range r.servers {
		r.servers[i].stop(t)
		r.balancer.await(t, i, false)
		r.start(t, i, to)
		r.balancer.await(t, i, true)
	}
	stopWriting()
	writing.Wait()
	r.writeOne(ctx, writer, lastObject, -1)
	watching.Wait()
	r.check(t, watchers, r.count("LIST")-before)
}

func (r *rolling) count(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[what]
}

// awaitWatches waits until all watches are open.
func (r *rolling) awaitWatches(t *testing.T, n int) {
	t.Helper()
	deadline, tick := time.After(2*patience), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for r.count("WATCH")+r.count("LIST")-1 < n {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("fewer than %d watches are open", n)
		}
	}
}

func (r *rolling) check(t *testing.T, watchers []seen, lists int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.versions)
	slices.Sort(r.took)
	var want seen
	for _, version := range r.versions {
		if err := want.see(version); err != nil {
			t.Error(err)
		}
	}
	for i, s := range watchers {
		if r.abrupt && i%watchesOfClient < informersOfClient {
			continue
		}
		if s.versions != want.versions || s.sum != want.sum {
			t.Errorf("watcher %d has seen %d changes up to version %d, want %d up to %d", i, s.versions, s.last, want.versions, want.last)
		}
	}
	for _, err := range r.failures {
		t.Error(err)
	}
	if lists > 0 && !r.abrupt {
		t.Errorf("clients have listed %d times again", lists)
	}
	at := func(share float64) time.Duration {
		return r.took[min(len(r.took)-1, int(share*float64(len(r.took))))].Round(time.Millisecond / 10)
	}
	t.Logf("%d watches, %d writes: p50 %v, p99 %v, longest %v; lists again: %d; requests and what was retried: %v",
		len(watchers), len(r.took), at(.5), at(.99), cmp.Or(r.took[len(r.took)-1], 0), lists, r.counts)
}
