package faults

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// link is a direction between two processes.
type link struct{ from, to string }

// rule is what a link does to what is sent over it. TCP hides loss: to the processes a lost packet is
// one that comes late, and all that follows waits for it.
type rule struct {
	cut   bool
	delay time.Duration
	loss  float64 // the share of packets that are sent again, after resend
	reset bool    // connections are broken, and there are no new ones
}

const resend = 300 * time.Millisecond

// network carries what processes send to each other, through a proxy in front of each port. It knows
// who connects by the process that has the other end of the connection.
type network struct {
	ctx     context.Context
	running sync.WaitGroup

	mu      sync.Mutex
	pids    map[int]string
	rules   map[link]rule
	changed chan struct{}              // closed at the next change of rules
	open    map[link]map[net.Conn]bool // connections, by who connected
}

func newNetwork(t *testing.T) *network {
	ctx, cancel := context.WithCancel(context.Background())
	n := &network{ctx: ctx, pids: map[int]string{}, rules: map[link]rule{}, changed: make(chan struct{}), open: map[link]map[net.Conn]bool{}}
	t.Cleanup(func() {
		cancel()
		n.running.Wait()
	})
	return n
}

// name names the process of an id.
func (n *network) name(pid int, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for old, has := range n.pids {
		if has == name {
			delete(n.pids, old)
		}
	}
	n.pids[pid] = name
}

// set sets the rule of some links.
func (n *network) set(r rule, links ...link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range links {
		n.rules[l] = r
		if r.reset {
			for conn := range n.open[l] {
				conn.Close()
			}
		}
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

// heal makes all links what they were.
func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.rules)
	close(n.changed)
	n.changed = make(chan struct{})
}

// proxy listens at an address and connects who comes with the port of a process.
func (n *network) proxy(t *testing.T, listen, to, address string) {
	t.Helper()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(n.ctx, func() { listener.Close() })
	n.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			n.running.Go(func() { n.serve(conn, to, address) })
		}
	})
}

func (n *network) serve(client net.Conn, to, address string) {
	defer client.Close()
	from := n.owner(client.RemoteAddr().(*net.TCPAddr), client.LocalAddr().(*net.TCPAddr))
	// Nobody connects over a link that is cut.
	if from == "" || !n.pass(link{from, to}) || !n.pass(link{to, from}) {
		return
	}
	server, err := new(net.Dialer).DialContext(n.ctx, "tcp", address)
	if err != nil {
		return
	}
	defer server.Close()
	defer n.opened(link{from, to}, client)()
	stop := context.AfterFunc(n.ctx, func() {
		client.Close()
		server.Close()
	})
	defer stop()
	var back sync.WaitGroup
	back.Go(func() { n.pump(client, server, link{to, from}) })
	n.pump(server, client, link{from, to})
	back.Wait()
}

// opened notes a connection that reset breaks, and returns what notes its end.
func (n *network) opened(l link, conn net.Conn) (closed func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open[l] == nil {
		n.open[l] = map[net.Conn]bool{}
	}
	n.open[l][conn] = true
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.open[l], conn)
	}
}

// pump carries one direction of a connection. What is sent over a link that is cut arrives when it is
// not any more, as does the end of the connection.
func (n *network) pump(to, from net.Conn, l link) {
	packet := make([]byte, 16<<10)
	for {
		size, err := from.Read(packet)
		if !n.pass(l) {
			return
		}
		if size > 0 {
			if _, err := to.Write(packet[:size]); err != nil {
				from.Close()
				return
			}
		}
		switch {
		case err == io.EOF: //nolint:errorlint // of a connection it is never wrapped
			_ = to.(*net.TCPConn).CloseWrite()
			return
		case err != nil:
			to.Close()
			return
		}
	}
}

// pass waits as long as something takes over a link, and reports whether it arrives at all.
func (n *network) pass(l link) bool {
	n.mu.Lock()
	r, changed := n.rules[l], n.changed
	n.mu.Unlock()
	wait := r.delay
	if r.loss > 0 && rand.Float64() < r.loss {
		wait += resend
	}
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-n.ctx.Done():
			return false
		}
	}
	for r.cut && !r.reset {
		select {
		case <-changed:
		case <-n.ctx.Done():
			return false
		}
		n.mu.Lock()
		r, changed = n.rules[l], n.changed
		n.mu.Unlock()
	}
	return n.ctx.Err() == nil && !r.reset
}

// owner returns the name of the process that has connected from an address to another, empty for one
// without a name. Connections to other addresses, such as those of another run, may have the same port.
func (n *network) owner(from, to *net.TCPAddr) string {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	inode := ""
	for line := range strings.Lines(string(table)) {
		// The second column is the local address, the third the remote one, the tenth the inode. One of
		// 0 is of a socket that no process has any more.
		if fields := strings.Fields(line); len(fields) > 9 && fields[1] == inTable(from) && fields[2] == inTable(to) && fields[9] != "0" {
			inode = "socket:[" + fields[9] + "]"
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for pid, name := range n.pids {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, file := range files {
			if target, err := os.Readlink(file); err == nil && target == inode {
				return name
			}
		}
	}
	return ""
}

// inTable is an address as the table has it: that of IPv4 as one number of the machine, and the port.
func inTable(a *net.TCPAddr) string {
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(a.IP.To4()), a.Port)
}
