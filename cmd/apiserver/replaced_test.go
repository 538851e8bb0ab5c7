package main

import (
	"bufio"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	etcdutl "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// member is an etcd of one member, which may be another one at the same addresses later.
type member struct {
	clients, peers url.URL
	running        *embed.Etcd
}

func newMember(t *testing.T) *member {
	t.Helper()
	address := func() url.URL { return url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", freePort(t))} }
	m := &member{clients: address(), peers: address()}
	t.Cleanup(m.stop)
	return m
}

func (m *member) stop() {
	if m.running != nil {
		m.running.Close()
		m.running = nil
	}
}

// start starts it on a directory, which may be empty, at an address for its clients.
func (m *member) start(t *testing.T, dir, clusterToken string, clients url.URL) {
	t.Helper()
	c := embed.NewConfig()
	c.Name, c.Dir = "m", dir
	c.ListenPeerUrls, c.ListenClientUrls = []url.URL{m.peers}, []url.URL{clients}
	c.AdvertisePeerUrls, c.AdvertiseClientUrls = c.ListenPeerUrls, c.ListenClientUrls
	c.InitialCluster, c.InitialClusterToken = "m="+m.peers.String(), clusterToken
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	var err error
	if m.running, err = embed.StartEtcd(c); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.running.Server.ReadyNotify():
	case <-time.After(patience):
		t.Fatal("etcd does not become ready")
	}
}

// restore makes a directory of a snapshot, and returns it.
func (m *member) restore(t *testing.T, file, clusterToken string, bump uint64) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "etcd")
	err := etcdutl.NewV3(zap.NewNop()).Restore(etcdutl.RestoreConfig{
		SnapshotPath: file, Name: "m", OutputDataDir: dir, RevisionBump: bump,
		PeerURLs: []string{m.peers.String()}, InitialCluster: "m=" + m.peers.String(), InitialClusterToken: clusterToken,
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// overtake writes to an etcd until it is beyond the revision, at an address that no server knows.
func (m *member) overtake(t *testing.T, dir, clusterToken string, revision int64) {
	t.Helper()
	elsewhere := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	m.start(t, dir, clusterToken, elsewhere)
	defer m.stop()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{elsewhere.String()}, DialTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for at := int64(0); at <= revision+20; {
		resp, err := client.Put(t.Context(), "/elsewhere", "x")
		if err != nil {
			t.Fatal(err)
		}
		at = resp.Header.Revision
	}
}

// Another etcd takes the place of that of a running server: one that was restored, whose revision
// is older, or has been made up for since, or one of another cluster. The server forgets what it
// knew, and tells those who watch.
func TestProcessNoticesAnotherEtcd(t *testing.T) {
	const token, otherToken = "etcd-cluster", "other-cluster"
	overtaken := func(t *testing.T, m *member, file string, revision int64) (string, string) {
		dir := m.restore(t, file, token, 0)
		m.overtake(t, dir, token, revision)
		return dir, token
	}
	for name, tc := range map[string]struct {
		replace func(t *testing.T, m *member, file string, revision int64) (dir, clusterToken string)
		deletes bool // whether the newest change that the server has seen is a deletion
	}{
		"an older revision": {replace: func(t *testing.T, m *member, file string, _ int64) (string, string) {
			return m.restore(t, file, token, 0), token
		}},
		"other changes at the same revisions":                   {replace: overtaken},
		"other changes at the same revisions, after a deletion": {replace: overtaken, deletes: true},
		"another cluster, with a newer revision": {replace: func(t *testing.T, m *member, file string, _ int64) (string, string) {
			return m.restore(t, file, otherToken, 1_000_000), otherToken
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMember(t)
			m.start(t, filepath.Join(t.TempDir(), "etcd"), token, m.clients)
			p := startProcess(t, filepath.Join(t.TempDir(), "data"), "--etcd-servers="+m.clients.String())
			p.awaitReady(t)
			client, admin := caller(t, p.dir.PKI().CACert()), p.token(t)
			client.Timeout = 2 * patience
			create := func(name string) {
				t.Helper()
				if code, answer := call(t, client, "POST", p.url+endpointsPath, admin, strings.ReplaceAll(exampleBody, "test-endpoint", name)); code != http.StatusCreated {
					t.Fatalf("creating %s: got %d: %s", name, code, answer)
				}
			}
			watch := func(version string) *bufio.Scanner {
				t.Helper()
				req, err := http.NewRequestWithContext(t.Context(), "GET", p.url+endpointsPath+"?watch=1&resourceVersion="+version, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("X-Auth-Token", admin)
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { resp.Body.Close() })
				return bufio.NewScanner(resp.Body)
			}
			expect := func(events *bufio.Scanner, part string) {
				t.Helper()
				if !events.Scan() || !strings.Contains(events.Text(), part) {
					t.Errorf("the watch brings %s (%v), want %s", events.Text(), events.Err(), part)
				}
			}
			create("kept")
			file := filepath.Join(t.TempDir(), "saved.db")
			mustSnapshot(t, "save", file, "--etcd-servers="+m.clients.String())
			for i := range 10 {
				create(fmt.Sprintf("lost-%d", i))
			}
			if tc.deletes {
				if code, answer := call(t, client, "DELETE", p.url+endpointsPath+"/lost-9", admin, ""); code != http.StatusOK {
					t.Fatalf("got %d: %s", code, answer)
				}
			}
			_, list := call(t, client, "GET", p.url+endpointsPath, admin, "")
			version := metadataOf(t, list).ResourceVersion
			open, revision := watch(version), m.running.Server.KV().Rev()
			m.stop()
			dir, clusterToken := tc.replace(t, m, file, revision)
			m.start(t, dir, clusterToken, m.clients)

			expect(open, `"code":410`)
			for _, query := range []string{"", "?resourceVersion=0"} {
				eventually(t, func() error {
					code, list := call(t, client, "GET", p.url+endpointsPath+query, admin, "")
					if code == http.StatusOK && (strings.Contains(list, `"name":"lost-`) || !strings.Contains(list, `"name":"kept"`)) {
						t.Fatalf("the list %s has another state than etcd: %s", query, list)
					}
					if code != http.StatusOK {
						return fmt.Errorf("list %s: got %d %s", query, code, list)
					}
					return nil
				})
			}
			expect(watch(version), `"code":410`)
			_, list = call(t, client, "GET", p.url+endpointsPath, admin, "")
			fresh := watch(metadataOf(t, list).ResourceVersion)
			create("new")
			expect(fresh, `"name":"new"`)
			p.stderr.Await(t, "the store was replaced or restored", p.ended)
		})
	}
}
