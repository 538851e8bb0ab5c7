package deploy

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/test/harness"
)

var (
	rollingWatches  = flag.Int("rolling.watches", 60, "watches during a rolling restart")
	rollingWrites   = flag.Int("rolling.writes", 10, "writes a second during a rolling restart")
	rollingObjects  = flag.Int("rolling.objects", 10, "how many objects are written during a rolling restart")
	rollingNarrow   = flag.Bool("rolling.narrow", false, "have each watch select one object, and not all of them")
	rollingDelay    = flag.Duration("rolling.delay", time.Second, "--shutdown-delay-duration during a rolling restart")
	rollingGrace    = flag.Duration("rolling.grace", time.Second, "--shutdown-watch-termination-grace-period during a rolling restart")
	rollingPrevious = flag.String("rolling.previous", "", "binary of another release, to upgrade from and to go back to")
)

const (
	watchesOfClient   = 20 // of which informersOfClient are informers'
	informersOfClient = 2
	lastObject        = "last"  // whoever has seen it has seen all
	groupLabel        = "group" // of an object: its number, or lastObject
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
	writes   []write         // that were acknowledged
	took     []time.Duration // each of them
	failures []error         // what clients were told after their own retries
	counts   map[string]int  // of requests, and of answers and errors that clients retry
	restarts []restart
}

// write is one that was acknowledged.
type write struct {
	version int64
	group   string
}

// restart is what the restart of one server has cost.
type restart struct {
	took           time.Duration // until it was ready again
	watches, lists int           // that clients have opened
	retried        int           // requests that clients had to repeat
	writes         int
	reads          int    // of etcd, by all servers
	atStart        counts // calls to etcd, by the server until it was ready
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

// Every server of three is stopped and started again, one after the other, under watches and
// writes, and no client notices: no request fails after client-go's own retries, no watcher
// misses a change or has one twice, and nobody lists again.
func TestRollingRestart(t *testing.T) {
	binary := buildServer(t)
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
					r.inform(ctx, client, r.selector(j), &watchers[j])
				} else {
					r.watch(ctx, client, r.selector(j), list.ResourceVersion, &watchers[j])
				}
			})
		}
	}
	r.awaitWatches(t, len(watchers))
	before := r.count("LIST")
	end, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	writing.Go(func() { r.keepWriting(ctx, end, writer) })
	for i := range r.servers {
		r.restart(t, i, to)
	}
	stopWriting()
	writing.Wait()
	r.writeOne(ctx, writer, lastObject, lastObject, -1)
	watching.Wait()
	r.check(t, watchers, r.count("LIST")-before)
}

// restart stops a server, starts it again, and notes what that has cost.
func (r *rolling) restart(t *testing.T, i int, binary string) {
	t.Helper()
	began, before, reads := time.Now(), r.cost(), readsOfEtcd(t)
	r.servers[i].stop(t)
	r.balancer.await(t, i, false)
	r.start(t, i, binary)
	r.balancer.await(t, i, true)
	cost := r.cost()
	cost.took, cost.reads = time.Since(began), readsOfEtcd(t)-reads
	cost.watches, cost.lists = cost.watches-before.watches, cost.lists-before.lists
	cost.retried, cost.writes = cost.retried-before.retried, cost.writes-before.writes
	cost.atStart = countsAt(t, newClient(t, r.addresses[i], r.caFile), etcdCalls)
	r.restarts = append(r.restarts, cost)
}

// cost returns what clients have done until now.
func (r *rolling) cost() (c restart) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for what, n := range r.counts {
		switch {
		case what == "WATCH":
			c.watches = n
		case what == "LIST":
			c.lists = n
		case strings.Contains(what, " "): // an answer or an error that is repeated
			c.retried += n
		}
	}
	c.writes = len(r.writes)
	return c
}

func (r *rolling) count(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[what]
}

// awaitWatches waits until all watches are open.
func (r *rolling) awaitWatches(t *testing.T, n int) {
	t.Helper()
	deadline, tick := time.After(4*patience), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for r.count("WATCH")+r.count("LIST")-1 < n {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("fewer than %d watches are open", n)
		}
	}
}

// check expects every watcher to have seen each acknowledged write that it selects, once and in order,
// and no client to have listed again.
func (r *rolling) check(t *testing.T, watchers []seen, lists int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.writes, func(a, b write) int { return cmp.Compare(a.version, b.version) })
	wrong := 0
	for i, s := range watchers {
		want := r.wanted(i)
		if r.abrupt && i%watchesOfClient < informersOfClient || s == want {
			continue
		}
		if wrong++; wrong <= 10 {
			t.Errorf("watcher %d has seen %d changes up to version %d, want %d up to %d", i, s.versions, s.last, want.versions, want.last)
		}
	}
	for _, err := range r.failures {
		t.Error(err)
	}
	if lists > 0 && !r.abrupt {
		t.Errorf("clients have listed %d times again", lists)
	}
	for i, c := range r.restarts {
		if c.watches-c.retried > *rollingWatches {
			t.Errorf("restart %d: %d watches were opened and %d requests repeated, want each watch opened once at most", i, c.watches, c.retried)
		}
	}
	r.report(t, wrong)
}

// wanted returns what a watcher should have seen; r.writes are sorted.
func (r *rolling) wanted(watcher int) (want seen) {
	group := r.group(watcher)
	for _, w := range r.writes {
		if !*rollingNarrow || w.group == group || w.group == lastObject {
			_ = want.see(w.version) // which are sorted, and each another one
		}
	}
	return want
}

func (r *rolling) report(t *testing.T, wrong int) {
	t.Helper()
	slices.Sort(r.took)
	at := func(share float64) time.Duration {
		return r.took[min(len(r.took)-1, int(share*float64(len(r.took))))].Round(time.Millisecond / 10)
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "restart\ttook\twrites\twatches opened\tlists\tretried\treads of etcd\tcalls at the start\t")
	for i, c := range r.restarts {
		fmt.Fprintf(w, "%d\t%v\t%d\t%d\t%d\t%d\t%d\t%v\t\n", i, c.took.Round(time.Second/10), c.writes, c.watches, c.lists, c.retried, c.reads, c.atStart)
	}
	_ = w.Flush() // a strings.Builder takes all
	t.Logf("%d watches, %d writes: p50 %v, p99 %v, longest %v; requests that failed: %d; watches that lost or repeated a change: %d; requests and what was retried: %v\n%s",
		*rollingWatches, len(r.took), at(.5), at(.99), at(1), len(r.failures), wrong, r.counts, table.String())
}
