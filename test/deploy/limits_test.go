package deploy

import (
	"flag"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/time/rate"

	"github.com/berth-project/berth/test/harness"
)

var long = flag.Bool("long", false, "on a machine that has nothing else to do: overload the limits of all servers together for a minute, behind HAProxy, and hold what a busy machine cannot keep to its bounds, too")

const (
	aliceToken = "5ad8e2b1c7f94f0b9d36a1e40c72fb85"
	bobToken   = "c91b7f30a2de4e58b6470d1f9a3c5e27"
	carolToken = "0e6f4b9d7c2a41d8b35e9a70f1c86d24" // has little, which even a slow machine uses up
	// overloadFactor is how many times as much as she may alice asks for.
	overloadFactor = 10
)

const limitTokens = token + ",admin,admin,system:masters\n" +
	aliceToken + ",alice,alice\n" + bobToken + ",bob,bob\n" + carolToken + ",carol,carol\n"

// overload is what alice asks three servers for, of which one is killed in the middle, and what bob
// asks for meanwhile.
type overload struct {
	rate, burst int           // what alice may read
	before, d   time.Duration // in which bob asks alone, and of the overload
	bobs        int           // requests a second
	waits       int           // how often a client waits as long as it is told

	servers []*replica
	clients []*client // of alice, most of whose connections go to the first server
	direct  []*client // of each server
	bob     *client   // has a connection of its own, to a server that is not killed

	alice, alone, beside load
	took                 time.Duration
	used                 counts
}

// The servers admit together what one server would, whichever of them a token overloads and although
// one of them fails, and hardly ask etcd for that.
func TestLimitsOfAllServers(t *testing.T) {
	o := &overload{rate: 20, burst: 40, before: time.Second, d: 6 * time.Second, bobs: 4, waits: 2, used: counts{}}
	if *long {
		o = &overload{rate: 100, burst: 200, before: time.Minute, d: time.Minute, bobs: 50, waits: 20, used: counts{}}
	}
	o.start(t)
	o.run(t)
	o.check(t)
	honored := o.waitsSuffice(t)
	o.report(t, honored)
}

func (o *overload) start(t *testing.T) {
	t.Helper()
	limits := filepath.Join(t.TempDir(), "limits.yaml")
	harness.WriteFile(t, limits, fmt.Sprintf(`apiVersion: berth/v1alpha1
kind: RateLimitConfiguration
defaults:
  read: {qps: %d, burst: %d}
overrides:
- users: [carol]
  read: {qps: 2, burst: 6}
`, o.rate, o.burst))
	flags := []string{"--rate-limit-scope=cluster", "--rate-limit-config=" + limits, "--authorization-mode=AlwaysAllow", "--log-level=warn"}
	if *long {
		flags = append(flags, "--trusted-proxies=127.0.0.1/32", "--proxy-protocol")
	}
	o.servers = startServers(t, buildServer(t), 3, limitTokens, flags...)
	ca := o.servers[0].pki.CACert()
	if *long {
		o.behindHAProxy(t, ca)
		return
	}
	for _, server := range o.servers {
		o.direct = append(o.direct, newClient(t, server.address, ca))
	}
	for _, server := range []int{0, 1, 2, 0, 0, 1, 0, 0, 0, 0} {
		o.clients = append(o.clients, o.direct[server])
	}
	o.bob = newClient(t, o.servers[0].address, ca)
}

func (o *overload) run(t *testing.T) {
	o.alone.send(t, []*client{o.bob}, bobToken, o.bobs, o.before)
	for _, c := range o.direct {
		o.used.add(countsAt(t, c, transactions), -1)
	}
	var others sync.WaitGroup
	others.Go(func() { o.beside.send(t, []*client{o.bob}, bobToken, o.bobs, o.d) })
	others.Go(func() {
		<-time.After(o.d / 2)
		o.used.add(countsAt(t, o.direct[2], transactions), 1)
		o.servers[2].kill()
	})
	o.took = o.alice.send(t, o.clients, aliceToken, overloadFactor*o.rate/len(o.clients), o.d)
	others.Wait()
	for _, c := range o.direct[:2] {
		o.used.add(countsAt(t, c, transactions), 1)
	}
}

// degraded returns how often servers had no answer of etcd in time, after which limits are approximate.
func (o *overload) degraded() (n int) {
	for _, server := range o.servers {
		n += strings.Count(server.stderr.String(), "does not answer in time for rate limits")
	}
	return n
}

// bounds returns how many requests of alice may be admitted.
func (o *overload) bounds() (least, most float64) {
	all := float64(o.burst) + float64(o.rate)*o.took.Seconds()
	ideal := float64(o.alice.ideal(rate.Limit(o.rate), o.burst))
	switch {
	case *long:
		return 0.99 * all, 1.01 * all
	case o.degraded() > 0:
		return ideal/4 - float64(o.alice.failed.Load()), 2 * all
	default:
		// What is missing was taken in advance by the server that was killed, or is still there.
		return 0.75*ideal - float64(o.alice.failed.Load()), 1.01 * all
	}
}

func (o *overload) check(t *testing.T) {
	t.Helper()
	admitted := float64(o.alice.admitted.Load())
	if least, most := o.bounds(); admitted < least || admitted > most {
		t.Errorf("%v were admitted, want %.1f to %.1f", admitted, least, most)
	}
	if n := o.alone.refused.Load() + o.beside.refused.Load(); n > 0 {
		t.Errorf("%d requests of another token were refused", n)
	}
	if !*long {
		return
	}
	if float64(o.used.sum()) > admitted/20 {
		t.Errorf("%v transactions for %v admitted requests", o.used, admitted)
	}
	if alone, beside := o.alone.percentile(0.99), o.beside.percentile(0.99); beside > 2*alone {
		t.Errorf("another token's p99 was %v beside the overload, and %v without it", beside, alone)
	}
}

func (o *overload) report(t *testing.T, honored int) {
	t.Helper()
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	all, admitted := float64(o.burst)+float64(o.rate)*o.took.Seconds(), float64(o.alice.admitted.Load())
	least, most := o.bounds()
	fmt.Fprintf(w, "asked for in %v\t%d\n", o.took.Round(time.Millisecond), len(o.alice.sent))
	fmt.Fprintf(w, "burst + rate x time\t%.1f\n", all)
	fmt.Fprintf(w, "admitted\t%.0f, %.2f %%, bounds %.1f to %.1f\n", admitted, 100*admitted/all, least, most)
	fmt.Fprintf(w, "without an answer\t%d\n", o.alice.failed.Load())
	fmt.Fprintf(w, "transactions of etcd\t%v, %.4f for each admitted request\n", o.used, float64(o.used.sum())/max(1, admitted))
	fmt.Fprintf(w, "times etcd did not answer in time\t%d\n", o.degraded())
	fmt.Fprintf(w, "Retry-After honored\t%d of %d admitted at the first try\n", honored, o.waits)
	for _, p := range []float64{0.5, 0.99} {
		alone, beside := o.alone.percentile(p), o.beside.percentile(p)
		fmt.Fprintf(w, "another token's p%.0f\t%v without the overload, %v beside it, %.2f times\n", 100*p, alone, beside, float64(beside)/float64(max(1, alone)))
	}
	_ = w.Flush() // a strings.Builder takes all
	t.Logf("limits of all servers:\n%s", table.String())
}

// waitsSuffice has a client exhaust its limit at one server after the other, and wait as long as it
// is told. It returns how often it was admitted then.
func (o *overload) waitsSuffice(t *testing.T) (honored int) {
	t.Helper()
	ask := func(c *client) answer {
		t.Helper()
		a, err := c.ask(t.Context(), carolToken)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for try := range o.waits {
		a := ask(o.direct[try%2])
		for a.code == http.StatusOK {
			a = ask(o.direct[try%2])
		}
		if a.code != http.StatusTooManyRequests || a.retryAfter != time.Second && o.degraded() == 0 {
			t.Errorf("answered with %+v, want a wait of one second: there are two requests a second", a)
		}
		<-time.After(a.retryAfter)
		if again := ask(o.direct[(try+1)%2]); again.code == http.StatusOK {
			honored++
		} else if o.degraded() == 0 {
			t.Errorf("after the wait it is answered with %+v", again)
		}
	}
	return honored
}

// behindHAProxy starts HAProxy in front of the servers, and makes clients whose connections go to each
// server, and alice's, most of which go to the first.
func (o *overload) behindHAProxy(t *testing.T, ca string) {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy is not installed")
	}
	dir, listen := t.TempDir(), freeAddress(t)
	config := "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n"
	section := func(name, listen string, servers ...string) {
		config += fmt.Sprintf("listen %s\n    bind %s\n    balance roundrobin\n    %s\n", name, listen, strings.Join(servers, "\n    "))
	}
	line := func(i, weight int) string {
		return fmt.Sprintf("server s%d %s weight %d send-proxy-v2 check check-send-proxy check-ssl verify none inter 1s on-marked-down shutdown-sessions", i, o.servers[i].address, weight)
	}
	section("all", listen, line(0, 70), line(1, 20), line(2, 10))
	var listens []string
	for i := range o.servers {
		listens = append(listens, freeAddress(t))
		section(fmt.Sprintf("one%d", i), listens[i], line(i, 1))
	}
	path := filepath.Join(dir, "haproxy.cfg")
	harness.WriteFile(t, path, config)
	awaitPort(t, listen, start(t, program, "-db", "-f", path))
	for _, address := range listens {
		o.direct = append(o.direct, newClient(t, address, ca))
	}
	for range 10 {
		o.clients = append(o.clients, newClient(t, listen, ca))
	}
	o.bob = newClient(t, listens[0], ca)
}
