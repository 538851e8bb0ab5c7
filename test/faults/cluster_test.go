package faults

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/berth-project/berth/test/harness"
)

const size = 3 // of members, and of replicas

// member is a member of etcd.
type member struct {
	*process
	data   string // its directory
	state  string // of the cluster when it starts: new or existing
	client string // the address at which it listens; everybody else has a proxy's
	peer   string
	peers  string // the proxy's
}

// replica is a server.
type replica struct {
	*process
	url  string
	http *http.Client
}

// cluster is three servers on three members, each with addresses of its own, and a network between
// them that has faults.
type cluster struct {
	*network
	dir       string
	members   []*member
	replicas  []*replica
	direct    *clientv3.Client // of the members, past the network
	authority *harness.Authority
	token     atomic.Pointer[string]
	rotating  atomic.Bool // tokens are, and some servers may not know the newest
	serial    *x509.Certificate
	recorder  *recorder
}

// newCluster starts a cluster whose processes keep their data in directories of the test.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{network: newNetwork(t), dir: t.TempDir(), authority: harness.NewAuthority(t, "faults")}
	// All of 127/8 is this machine: the ports of addresses that nobody else has stay free while a
	// process is down.
	host := fmt.Sprintf("127.%d.%d.", 1+rand.IntN(254), rand.IntN(256))
	for i := range size {
		c.addMember(t, host, i)
	}
	for _, m := range c.members {
		m.start(t)
	}
	config := clientv3.Config{DialTimeout: patience, DialKeepAliveTime: time.Second, DialKeepAliveTimeout: time.Second, Logger: zap.NewNop()}
	for _, m := range c.members {
		config.Endpoints = append(config.Endpoints, "http://"+m.client)
	}
	var err error
	if c.direct, err = clientv3.New(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.direct.Close() })
	c.rotateToken(t)
	c.rotateCertificate(t, host)
	harness.WriteFile(t, filepath.Join(c.dir, "limits.yaml"), limits)
	c.leader(t) // a server that starts waits five seconds for etcd
	for i := range size {
		c.addReplica(t, host, i)
		c.replicas[i].start(t)
	}
	return c
}

func (c *cluster) addMember(t *testing.T, host string, i int) {
	name := fmt.Sprint("member-", i)
	m := &member{state: "new", data: filepath.Join(c.dir, name)}
	m.client, m.peer = fmt.Sprint(host, 10+i, ":2379"), fmt.Sprint(host, 10+i, ":2380")
	clients := fmt.Sprint(host, 20+i, ":2379")
	m.peers = fmt.Sprint(host, 20+i, ":2380")
	c.proxy(t, clients, name, m.client)
	c.proxy(t, m.peers, name, m.peer)
	m.process = &process{name: name, binary: etcdBinary, dir: c.dir, started: func(pid int) { c.name(pid, name) }, args: func() []string {
		var all []string
		for _, other := range c.members {
			all = append(all, other.name+"=http://"+other.peers)
		}
		return []string{
			"--name=" + name, "--data-dir=" + m.data, "--log-level=warn",
			"--listen-client-urls=http://" + m.client, "--advertise-client-urls=http://" + clients,
			"--listen-peer-urls=http://" + m.peer, "--initial-advertise-peer-urls=http://" + m.peers,
			"--initial-cluster-state=" + m.state, "--initial-cluster=" + strings.Join(all, ","),
		}
	}}
	m.end(t)
	c.members = append(c.members, m)
}

func (c *cluster) addReplica(t *testing.T, host string, i int) {
	name := fmt.Sprint("replica-", i)
	var servers []string
	for j := range size {
		servers = append(servers, fmt.Sprint("http://", host, 20+j, ":2379"))
	}
	address := fmt.Sprint(host, 30+i)
	p := &process{name: name, binary: serverBinary, dir: c.dir, started: func(pid int) { c.name(pid, name) }, args: func() []string {
		return []string{
			"--data-dir=" + filepath.Join(c.dir, name), "--bind-address=" + address, "--secure-port=6443",
			"--etcd-servers=" + strings.Join(servers, ","), "--token-auth-file=" + c.tokenFile(),
			"--tls-cert-file=" + filepath.Join(c.dir, "tls.crt"), "--tls-private-key-file=" + filepath.Join(c.dir, "tls.key"), "--log-level=warn",
			"--rate-limit-scope=cluster", "--rate-limit-config=" + filepath.Join(c.dir, "limits.yaml"),
		}
	}}
	harness.WriteFile(t, filepath.Join(c.dir, "ca.crt"), string(c.authority.PEM()))
	client, err := harness.NewClient(filepath.Join(c.dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	client.Timeout = 0 // each request has its own
	t.Cleanup(client.CloseIdleConnections)
	p.end(t)
	c.replicas = append(c.replicas, &replica{p, "https://" + address + ":6443", client})
}

func (c *cluster) tokenFile() string { return filepath.Join(c.dir, "tokens.csv") }

// rotateToken replaces the token of all clients.
func (c *cluster) rotateToken(t *testing.T) {
	token := fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())
	expires := time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339)
	c.install(t, c.tokenFile(), token+",admin,admin,system:masters,"+expires+"\n"+limitedToken+",limited,limited\n")
	c.token.Store(&token)
}

// rotateCertificate replaces certificate and key of all servers.
func (c *cluster) rotateCertificate(t *testing.T, host string) {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "servers"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for i := range size {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(fmt.Sprint(host, 30+i)))
	}
	if c.serial != nil {
		template.IPAddresses = c.serial.IPAddresses
	}
	pair := harness.Sign(t, c.authority, template)
	c.install(t, filepath.Join(c.dir, "tls.key"), string(harness.KeyPEM(t, pair)))
	c.install(t, filepath.Join(c.dir, "tls.crt"), string(harness.CertificatePEM(pair)))
	c.serial = pair.Leaf
}

// install replaces a file at once.
func (c *cluster) install(t *testing.T, path, text string) {
	t.Helper()
	harness.WriteFile(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// leader returns the leader; it waits until there is one.
func (c *cluster) leader(t *testing.T) *member {
	t.Helper()
	var leader *member
	await(t, "there is a leader", func(ctx context.Context) error {
		for _, m := range c.members {
			status, err := c.direct.Status(ctx, "http://"+m.client)
			if err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId {
				leader = m
				return nil
			}
		}
		return errors.New("no member leads")
	})
	return leader
}

// others returns the names of all processes except one.
func (c *cluster) others(name string) []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.name)
	}
	for _, r := range c.replicas {
		all = append(all, r.name)
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == name })
}

// await tries until something holds.
func await(t *testing.T, what string, try func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := try(attempt)
		cancel()
		if err == nil {
			return
		}
		if !pause(ctx, 20*time.Millisecond) {
			t.Fatalf("it is not so that %s: %v", what, err)
		}
	}
}

// pause waits between two attempts, and reports whether there is time for another.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
