package main

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	etcdutl "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/berth-project/berth/cmd/apiserver/internal/backend"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
)

// startMembers restores a snapshot into three members, as etcdutl snapshot restore does, and
// starts them. It returns their addresses.
func startMembers(t *testing.T, file string) (servers []string) {
	t.Helper()
	const members = 3
	var initial []string
	var configs []*embed.Config
	for i := range members {
		c := embed.NewConfig()
		c.Name, c.Dir = fmt.Sprintf("m%d", i), filepath.Join(t.TempDir(), "etcd")
		c.ListenPeerUrls = []url.URL{{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", freePort(t))}}
		c.ListenClientUrls = []url.URL{{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", freePort(t))}}
		c.AdvertisePeerUrls, c.AdvertiseClientUrls = c.ListenPeerUrls, c.ListenClientUrls
		c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
		initial = append(initial, c.Name+"="+c.ListenPeerUrls[0].String())
		configs = append(configs, c)
	}
	running := make([]*embed.Etcd, members)
	for i, c := range configs {
		c.InitialCluster, c.ClusterState = strings.Join(initial, ","), embed.ClusterStateFlagExisting
		err := etcdutl.NewV3(zap.NewNop()).Restore(etcdutl.RestoreConfig{
			SnapshotPath: file, Name: c.Name, OutputDataDir: c.Dir,
			PeerURLs: []string{c.ListenPeerUrls[0].String()}, InitialCluster: c.InitialCluster, InitialClusterToken: c.InitialClusterToken,
			RevisionBump: 1_000_000_000, MarkCompacted: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		if running[i], err = embed.StartEtcd(c); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(running[i].Close)
		servers = append(servers, c.ListenClientUrls[0].String())
	}
	for i, e := range running {
		select {
		case <-e.Server.ReadyNotify():
		case <-time.After(patience):
			t.Fatalf("member %d does not become ready", i)
		}
	}
	return servers
}

// The documented way from the embedded etcd to a cluster, and back.
func TestSnapshotMovesToAClusterAndBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "move.db")
	var dir datadir.Dir
	var version, token string
	objects := map[string]string{}
	t.Run("embedded", func(t *testing.T) {
		dir = datadir.Dir(filepath.Join(t.TempDir(), "data"))
		s := runServer(t, func(c *config) { dir = c.DataDir })
		send := adminOf(t, s)
		for i := range 20 {
			name := fmt.Sprintf("moved-%d", i)
			code, answer := send("POST", endpointsPath, strings.ReplaceAll(exampleBody, "test-endpoint", name))
			if code != http.StatusCreated {
				t.Fatalf("got %d: %s", code, answer)
			}
			objects[name] = answer
		}
		_, page := send("GET", endpointsPath+"?limit=2", "")
		version, token = metadataOf(t, page).ResourceVersion, metadataOf(t, page).Continue
		s.stop()
		<-s.ended
		// It has stopped: no write is lost.
		mustSnapshot(t, "save", file, "--data-dir="+string(dir))
	})
	servers := startMembers(t, file)
	expectObjects := func(send func(method, path, body string) (int, string)) {
		t.Helper()
		for name, want := range objects {
			if code, got := send("GET", endpointsPath+"/"+name, ""); code != http.StatusOK || got != want {
				t.Errorf("got %d %s, want %s", code, got, want)
			}
		}
	}
	s := runServer(t, func(c *config) { c.EtcdServers = servers })
	send := adminOf(t, s)
	expectObjects(send)
	expectExpired(t, send, token, version)

	// One that does not answer is passed over.
	back := filepath.Join(t.TempDir(), "back.db")
	mustSnapshot(t, "save", back, fmt.Sprintf("--etcd-servers=http://127.0.0.1:1,%s", strings.Join(servers, ",")))
	_, last := send("GET", endpointsPath, "")
	fresh := datadir.Dir(filepath.Join(t.TempDir(), "data"))
	out := mustSnapshot(t, "restore", back, "--data-dir="+string(fresh))
	if !strings.Contains(out, "Copy token and pki/ of the old data directory to "+string(fresh)) {
		t.Errorf("it printed %s", out)
	}
	p := startProcess(t, string(fresh)) // the members' goroutines come and go in this one
	p.awaitReady(t)
	send = adminOf(t, &runningServer{config: config{Config: backend.Config{DataDir: fresh}}, url: p.url})
	expectObjects(send)
	if code, answer := send("DELETE", endpointsPath+"/after-the-restore", ""); code != http.StatusOK {
		t.Errorf("got %d: %s", code, answer)
	}
	expectExpired(t, send, token, metadataOf(t, last).ResourceVersion)
}
