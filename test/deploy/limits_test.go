package deploy

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-project/berth/test/harness"
)

var long = flag.Bool("long", false, "overload the limits of all servers together for a minute, behind HAProxy, and hold the rest to closer bounds")

const (
	aliceToken = "5ad8e2b1c7f94f0b9d36a1e40c72fb85"
	bobToken   = "c91b7f30a2de4e58b6470d1f9a3c5e27"
	// What a token may read.
	readRate, readBurst = 100, 200
)

const limitTokens = token + ",admin,admin,system:masters\n" +
	aliceToken + ",alice,alice\n" + bobToken + ",bob,bob\n"

// answer is what a client makes of one.
type answer struct {
	code       int
	retryAfter time.Duration
	took       time.Duration
}

// ask reads something small with a token.
func (c *client) ask(ctx context.Context, token string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, collection+"?limit=1", nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	began := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return answer{resp.StatusCode, time.Duration(seconds) * time.Second, time.Since(began)}, err
}

// load is what clients have sent at once.
type load struct {
	asked, admitted, failed atomic.Int64
	mu                      sync.Mutex
	took                    []time.Duration // of admitted requests
}

// send has each client send so many requests a second for some time, whatever becomes of them.
func (l *load) send(t *testing.T, clients []*client, token string, perSecond int, d time.Duration) (took time.Duration) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var sending sync.WaitGroup
	for _, c := range clients {
		sending.Go(func() {
			tick := time.NewTicker(time.Second / time.Duration(perSecond))
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				sending.Go(func() { l.one(t, c, token) })
			}
		})
	}
	sending.Wait()
	return time.Since(began)
}

func (l *load) one(t *testing.T, c *client, token string) {
	l.asked.Add(1)
	a, err := c.ask(t.Context(), token)
	switch {
	case err != nil:
		l.failed.Add(1) // of a server that was killed
	case a.code == http.StatusOK:
		l.admitted.Add(1)
		l.mu.Lock()
		l.took = append(l.took, a.took)
		l.mu.Unlock()
	case a.code != http.StatusTooManyRequests || a.retryAfter < time.Second:
		t.Errorf("answered with %+v", a)
	}
}

func (l *load) percentile(p float64) time.Duration {
	slices.Sort(l.took)
	if len(l.took) == 0 {
		return 0
	}
	return l.took[int(p*float64(len(l.took)-1))]
}

var transactions = regexp.MustCompile(`(?m)^berth_ratelimit_transactions_total\{outcome="(\w+)"\} (\d+)$`)

// outcomes are numbers of transactions for limits, by how they ended.
type outcomes map[string]int

func (o outcomes) add(other outcomes, sign int) {
	for outcome, n := range other {
		o[outcome] += sign * n
	}
}

func (o outcomes) sum() (n int) {
	for _, count := range o {
		n += count
	}
	return n
}

// transactionsOf returns how many transactions a server has made for limits.
func transactionsOf(t *testing.T, c *client) outcomes {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+hostname+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := transactions.FindAllStringSubmatch(string(text), -1)
	if len(found) != 4 {
		t.Fatalf("%s: %d outcomes of transactions: %.300s", resp.Status, len(found), text)
	}
	o := outcomes{}
	for _, match := range found {
		o[match[1]], _ = strconv.Atoi(match[2])
	}
	return o
}

// TestLimitsOfAllServers overloads the limit of one token at three servers, of which one is killed
// in the middle.
func TestLimitsOfAllServers(t *testing.T) {
	if !*long {
		t.Skip("it measures, on a machine that has nothing else to do: go test ./test/deploy -run LimitsOfAll -args -long")
	}
	d := 8 * time.Second
	if *long {
		d = time.Minute
	}
	limits := filepath.Join(t.TempDir(), "limits.yaml")
	harness.WriteFile(t, limits, fmt.Sprintf("apiVersion: berth/v1alpha1\nkind: RateLimitConfiguration\ndefaults:\n  read: {qps: %d, burst: %d}\n", readRate, readBurst))
	flags := []string{"--rate-limit-scope=cluster", "--rate-limit-config=" + limits, "--authorization-mode=AlwaysAllow", "--log-level=warn"}
	if *long {
		flags = append(flags, "--trusted-proxies=127.0.0.1/32", "--proxy-protocol")
	}
	servers := startServers(t, harness.Build(t, false), 3, limitTokens, flags...)
	ca := servers[0].pki.CACert()
	var direct []*client
	for _, server := range servers {
		direct = append(direct, newClient(t, server.address, ca))
	}
	clients := unevenly(direct)
	if *long {
		clients, direct = behindHAProxy(t, servers, ca)
	}

	var alone, beside, overload load
	alone.send(t, clients[:1], bobToken, 25, d/4)
	used := outcomes{}
	for _, c := range direct {
		used.add(transactionsOf(t, c), -1)
	}
	var others sync.WaitGroup
	others.Go(func() {
		// Bob stays where no server is killed.
		beside.send(t, clients[:1], bobToken, 25, d)
	})
	others.Go(func() {
		<-time.After(d / 2)
		used.add(transactionsOf(t, direct[2]), 1)
		servers[2].kill()
	})
	took := overload.send(t, clients, aliceToken, 10*readRate/len(clients), d)
	others.Wait()
	for _, c := range direct[:2] {
		used.add(transactionsOf(t, c), 1)
	}

	all := readBurst + readRate*took.Seconds()
	admitted := float64(overload.admitted.Load())
	t.Logf("%v of %d admitted in %v, %.1f %% of %.1f; %d failed; transactions %v, one for %.1f admitted, %.1f for a thousand requests",
		admitted, overload.asked.Load(), took, 100*admitted/all, all, overload.failed.Load(), used, admitted/float64(used.sum()), 1000*float64(used.sum())/float64(overload.asked.Load()))
	t.Logf("another token's median and p99: %v, %v alone, %v, %v beside", alone.percentile(0.5), alone.percentile(0.99), beside.percentile(0.5), beside.percentile(0.99))
	least := all - readRate // what the servers had or waited for at the end, or when one was killed
	if *long {
		least = 0.99 * all
	}
	most := all
	if used["failed"] > 0 {
		// The machine was so slow that servers have admitted their shares for a while.
		most = 1.01*all + readBurst/10
	}
	if admitted > most || admitted < least {
		t.Errorf("%v were admitted, want %.1f to %.1f", admitted, least, most)
	}
	if *long && float64(used.sum()) > admitted/20 {
		t.Errorf("%v transactions for %v admitted requests", used, admitted)
	}
	if asked, ok := beside.asked.Load(), beside.admitted.Load(); asked != ok {
		t.Errorf("%d of another token's %d requests were admitted", ok, asked)
	}
	waitsSuffice(t, direct[:2])
}

// waitsSuffice has a client exhaust its limit at one server after the other, and wait as long as it
// is told.
func waitsSuffice(t *testing.T, servers []*client) {
	t.Helper()
	ask := func(c *client) answer {
		t.Helper()
		a, err := c.ask(t.Context(), aliceToken)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for try := range 4 {
		a := ask(servers[try%2])
		for a.code == http.StatusOK {
			a = ask(servers[try%2])
		}
		if a.retryAfter != time.Second {
			t.Errorf("it must wait %v, want a second: there are %d requests a second", a.retryAfter, readRate)
		}
		<-time.After(a.retryAfter)
		if again := ask(servers[(try+1)%2]); again.code != http.StatusOK {
			t.Errorf("after the wait it is answered with %+v", again)
		}
	}
}

// unevenly returns ten clients, of which most are those of the first server.
func unevenly(direct []*client) []*client {
	var clients []*client
	for _, server := range []int{0, 1, 2, 0, 0, 1, 0, 0, 0, 0} {
		clients = append(clients, direct[server])
	}
	return clients
}

// behindHAProxy starts HAProxy in front of the servers, most of whose connections go to the first, and
// returns clients of it, and clients whose connections go past it to each server.
func behindHAProxy(t *testing.T, servers []*replica, ca string) (clients, direct []*client) {
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
		return fmt.Sprintf("server s%d %s weight %d send-proxy-v2 check check-send-proxy check-ssl verify none inter 1s on-marked-down shutdown-sessions", i, servers[i].address, weight)
	}
	section("all", listen, line(0, 70), line(1, 20), line(2, 10))
	var listens []string
	for i := range servers {
		listens = append(listens, freeAddress(t))
		section(fmt.Sprintf("one%d", i), listens[i], line(i, 1))
	}
	path := filepath.Join(dir, "haproxy.cfg")
	harness.WriteFile(t, path, config)
	awaitPort(t, listen, start(t, program, "-db", "-f", path))
	for _, address := range listens {
		direct = append(direct, newClient(t, address, ca))
	}
	for range 10 {
		clients = append(clients, newClient(t, listen, ca))
	}
	return clients, direct
}
