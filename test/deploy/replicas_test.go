// Package deploy tests the files in deploy and the recipes of docs/operations with real
// processes: two servers on one etcd, and nginx or HAProxy in front of them.
package deploy

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/test/harness"
)

const (
	// hostname is the name of all servers together in the files of deploy.
	hostname = "berth.example.com"
	token    = "f2a0e7d1c4b94c7f8a5d3e6b9c0f1a2d"
	// patience is far more than anything here takes on a machine under load.
	patience = 30 * time.Second
	// stopTimeout is a little more than what a server gives requests in progress, after the times that
	// it is told to take.
	stopTimeout = 40 * time.Second
)

// process is a server or a proxy.
type process struct {
	cmd    *exec.Cmd
	stdout harness.Output
	stderr harness.Output
	ended  chan struct{} // closed when the process has ended, with err
	err    error
	killed bool
}

// start starts a program, which stop ends with the test at the latest.
func start(t *testing.T, program string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, args...), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = t.TempDir(), &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("%s:\n%s%s", program, p.stdout.String(), p.stderr.String())
		}
	})
	return p
}

// stop ends the process as a service manager does, unless it has ended, and waits for it.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	timeout := stopTimeout + *rollingDelay + *rollingGrace
	select {
	case <-p.ended:
		// HAProxy lets the signal end it.
		if status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus); p.err != nil && !p.killed && status.Signal() != syscall.SIGTERM {
			t.Errorf("%s ended with %v", p.cmd.Path, p.err)
		}
	case <-time.After(timeout):
		_ = p.cmd.Process.Kill()
		<-p.ended
		t.Errorf("%s did not end within %v after SIGTERM", p.cmd.Path, timeout)
	}
}

// replica is one of several servers on one etcd.
type replica struct {
	*process
	address string // host and port
	dataDir string
	args    []string // it was started with
	pki     certificates.Dir
}

// kill ends the process at once, as a failure of its machine does.
func (p *process) kill() {
	p.killed = true
	_ = p.cmd.Process.Kill() // an error says that it has ended
	<-p.ended
}

// restart starts a replica that has ended again, at the same address.
func (r *replica) restart(t *testing.T) {
	t.Helper()
	_, port, err := net.SplitHostPort(r.address)
	if err != nil {
		t.Fatal(err)
	}
	r.process = start(t, r.cmd.Path, append(slices.Clone(r.args), "--secure-port="+port)...)
}

// startReplicas starts two servers on one etcd as docs/operations/replicas.md tells: they have the
// tokens, the CA and the external host name in common.
func startReplicas(t *testing.T, binary string, flags ...string) [2]*replica {
	t.Helper()
	return [2]*replica(startServers(t, binary, 2, token+",admin,admin,system:masters\n", flags...))
}

// startServers does as startReplicas does, for any number of servers with a token file.
func startServers(t *testing.T, binary string, count int, tokenFile string, flags ...string) []*replica {
	t.Helper()
	etcd, dir := startEtcd(t), t.TempDir()
	tokens := filepath.Join(dir, "tokens.csv")
	harness.WriteFile(t, tokens, tokenFile)
	flags = append([]string{"--etcd-servers=" + etcd, "--token-auth-file=" + tokens, "--external-hostname=" + hostname, "--secure-port=0"}, flags...)
	startOne := func(dataDir string) *replica {
		args := append(slices.Clone(flags), "--data-dir="+dataDir)
		p := start(t, binary, args...)
		port := p.stdout.Await(t, `is ready at https://`+hostname+`:(\d+)\n`, p.ended)
		return &replica{process: p, address: net.JoinHostPort("127.0.0.1", port), dataDir: dataDir, args: args, pki: certificates.Dir(filepath.Join(dataDir, "pki"))}
	}
	servers := []*replica{startOne(filepath.Join(dir, "0"))}
	for len(servers) < count {
		dataDir := filepath.Join(dir, strconv.Itoa(len(servers)))
		pki := certificates.Dir(filepath.Join(dataDir, "pki"))
		if err := os.MkdirAll(string(pki), 0o700); err != nil {
			t.Fatal(err)
		}
		harness.WriteFile(t, pki.CACert(), harness.ReadFile(t, servers[0].pki.CACert()))
		harness.WriteFile(t, pki.CAKey(), harness.ReadFile(t, servers[0].pki.CAKey()))
		servers = append(servers, startOne(dataDir))
	}
	return servers
}

// startEtcd runs an etcd for one test and returns the URL at which clients find it.
func startEtcd(t *testing.T) string {
	t.Helper()
	config := embed.NewConfig()
	// The servers ask it at the URL that it advertises as well.
	clients := url.URL{Scheme: "http", Host: freeAddress(t)}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{clients}, []url.URL{clients}
	config.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config.Dir, config.LogLevel = t.TempDir(), "panic"
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	select {
	case <-etcd.Server.ReadyNotify():
	case <-time.After(patience):
		t.Fatal("etcd is not ready in time")
	}
	return clients.String()
}

func TestReplicas(t *testing.T) {
	binary := buildServer(t)
	t.Run("without a proxy", func(t *testing.T) {
		servers := startReplicas(t, binary)
		one, other := newClient(t, servers[0].address, servers[0].pki.CACert()), newClient(t, servers[1].address, servers[0].pki.CACert())
		for _, server := range servers {
			args := []string{"ready", "--data-dir=" + server.dataDir, "--server=https://" + server.address}
			if out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput(); err != nil {
				t.Errorf("apiserver ready: %v: %s", err, out)
			}
		}
		for _, direction := range []struct {
			writer, watcher *client
			name            string
		}{{one, other, "by-the-first"}, {other, one, "by-the-second"}} {
			events := direction.watcher.watch(t)
			direction.writer.create(t, direction.name, 1)
			events.expect(t, direction.name)
		}
		servers[0].stop(t)
		events := other.watch(t)
		other.create(t, "by-the-last", 1)
		events.expect(t, "by-the-last")
		for _, name := range []string{"by-the-first", "by-the-second", "by-the-last"} {
			other.get(t, name)
		}
	})
	for _, p := range proxies {
		t.Run(p.program, func(t *testing.T) { p.test(t, binary) })
	}
}
