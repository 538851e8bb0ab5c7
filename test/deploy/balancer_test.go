package deploy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-project/berth/test/harness"
)

// balancer passes connections on to the servers that are ready, one after the other, as a proxy of
// connections does. Those that there are stay where they are.
type balancer struct {
	net.Listener
	servers []string      // addresses
	ready   []atomic.Bool // of each
	next    atomic.Int64
	ended   chan struct{} // closed when the test ends
	running sync.WaitGroup
}

// startBalancer asks each server at /readyz all the time.
func startBalancer(t *testing.T, caFile string, servers []string) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{Listener: l, servers: servers, ready: make([]atomic.Bool, len(servers)), ended: make(chan struct{})}
	for i := range servers {
		client, err := harness.NewClient(caFile)
		if err != nil {
			t.Fatal(err)
		}
		client.Timeout = time.Second
		client.Transport.(*http.Transport).TLSClientConfig.ServerName = hostname
		b.running.Go(func() {
			defer client.CloseIdleConnections()
			ticks := time.NewTicker(50 * time.Millisecond)
			defer ticks.Stop()
			for {
				resp, err := client.Get("https://" + servers[i] + "/readyz") //nolint:noctx // it has a time-out
				switch {
				case err == nil:
					resp.Body.Close()
					b.ready[i].Store(resp.StatusCode == http.StatusOK)
				case !isTimeout(err): // the machine is too busy for any of them
					b.ready[i].Store(false)
				}
				select {
				case <-ticks.C:
				case <-b.ended:
					return
				}
			}
		})
	}
	b.running.Go(b.accept)
	t.Cleanup(func() {
		close(b.ended)
		l.Close()
		b.running.Wait()
	})
	return b
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (b *balancer) accept() {
	for {
		conn, err := b.Accept()
		if err != nil {
			return
		}
		b.running.Go(func() { b.pass(conn) })
	}
}

func (b *balancer) pass(conn net.Conn) {
	defer conn.Close()
	server := b.dial()
	if server == nil {
		return
	}
	defer server.Close()
	b.running.Go(func() {
		_, _ = io.Copy(server, conn) // whose end is the connection's
		_ = server.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(conn, server)
}

// dial connects to the next server that is ready. It waits for one, as a queue of a proxy does; nil:
// the test has ended.
func (b *balancer) dial() net.Conn {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for range b.servers {
			i := int(b.next.Add(1)) % len(b.servers)
			if !b.ready[i].Load() {
				continue
			}
			if server, err := net.Dial("tcp", b.servers[i]); err == nil { //nolint:noctx // it is on this machine
				return server
			}
		}
		select {
		case <-tick.C:
		case <-b.ended:
			return nil
		}
	}
}

// await waits until a server is ready, or is not.
func (b *balancer) await(t *testing.T, i int, ready bool) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for b.ready[i].Load() != ready {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("server %d: ready is not %v after %v", i, ready, patience)
		}
	}
}
