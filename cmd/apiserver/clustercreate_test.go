package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/test/harness"
)

// startSecureMember runs an etcd that only talks to clients with a certificate of the CA.
func startSecureMember(t *testing.T, pki, name string) string {
	t.Helper()
	listen := url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	c := embed.NewConfig()
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{listen}, []url.URL{listen}
	c.ListenPeerUrls = []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
	c.Dir, c.LogLevel = t.TempDir(), "panic"
	c.ClientTLSInfo = transport.TLSInfo{
		CertFile: filepath.Join(pki, name+".crt"), KeyFile: filepath.Join(pki, name+".key"),
		TrustedCAFile: filepath.Join(pki, "ca.crt"), ClientCertAuth: true,
	}
	c.PeerTLSInfo = c.ClientTLSInfo
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(patience):
		t.Fatal("etcd is not ready in time")
	}
	return listen.String()
}

func TestClusterCreate(t *testing.T) {
	dir := datadir.Dir(filepath.Join(t.TempDir(), "cluster"))
	create := func() {
		t.Helper()
		stdout, stderr := runCommand(t, "cluster", "create", "--out="+string(dir), "--hostname=berth.example.com,10.0.0.5", "--etcd-member=etcd-1,etcd-2")
		if stderr != "" || !strings.HasPrefix(stdout, string(dir)+" is complete; the serving certificate is valid until 20") {
			t.Fatalf("it says %q, %q", stdout, stderr)
		}
	}
	create()
	path := func(name string) string { return filepath.Join(string(dir), name) }
	made := map[string]string{}
	for _, name := range []string{"token", "tokens.csv", "kubeconfig", "etcd/ca.crt", "etcd/client.crt", "etcd/etcd-1.crt", "etcd/etcd-2.key", "pki/ca.crt", "pki/apiserver.crt", "pki/client-ca.crt"} {
		made[name] = harness.ReadFile(t, path(name))
	}
	if err := os.Remove(path("etcd/etcd-2.key")); err != nil {
		t.Fatal(err)
	}
	create()
	for name, before := range made {
		if kept := harness.ReadFile(t, path(name)) == before; kept != (name != "etcd/etcd-2.key") {
			t.Errorf("after the second time %s is the same: %v", name, kept)
		}
	}
	known, err := datadir.ReadKubeconfig(dir.Kubeconfig())
	if err != nil || known.Server != "https://berth.example.com:6443" || known.User != "admin" {
		t.Errorf("the kubeconfig has %v, %v", known, err)
	}

	member := startSecureMember(t, dir.Etcd(), "etcd-1")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, member+"/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := caller(t, path("etcd/ca.crt")).Do(req); err == nil {
		resp.Body.Close()
		t.Error("etcd answered a client without a certificate")
	}
	s := runServer(t, func(c *config) {
		c.EtcdServers = []string{member}
		c.EtcdCAFile, c.EtcdCertFile, c.EtcdKeyFile = path("etcd/ca.crt"), path("etcd/client.crt"), path("etcd/client.key")
		c.TLSCertFile, c.TLSPrivateKeyFile, c.TLSCAFile = path("pki/apiserver.crt"), path("pki/apiserver.key"), path("pki/ca.crt")
		c.TokenAuthFile, c.ClientCAFile = path("tokens.csv"), path("pki/client-ca.crt")
	})
	if code, user := whoami(t, caller(t, path("pki/ca.crt")), s.url, known.Token); user != "admin system:masters system:authenticated" {
		t.Errorf("got %d, %q", code, user)
	}
	if code, body := call(t, caller(t, path("pki/ca.crt")), "POST", s.url+endpointsPath, known.Token, exampleBody); code != http.StatusCreated {
		t.Errorf("got %d: %s", code, body)
	}
}

// A kubeconfig with another token than that of the token file would be of no use.
func TestClusterCreateMissesToken(t *testing.T) {
	dir := t.TempDir()
	harness.WriteFile(t, filepath.Join(dir, "tokens.csv"), "token,admin,admin,system:masters\n")
	var stdout, stderr bytes.Buffer
	if status := execute([]string{"cluster", "create", "--out=" + dir, "--hostname=a"}, &stdout, &stderr); status != 1 || !strings.Contains(stderr.String(), "tokens.csv exists, and the administrator's token") {
		t.Errorf("status %d, %q", status, &stderr)
	}
}

func TestClusterCreateRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no directory":          {[]string{"--hostname=a"}, "--out: must not be empty"},
		"no name":               {[]string{"--out=x"}, "--hostname: must not be empty"},
		"not a name":            {[]string{"--out=x", "--hostname=https://a"}, `--hostname: "https://a" is neither`},
		"a path as a member":    {[]string{"--out=x", "--hostname=a", "--etcd-member=../a"}, `--etcd-member: "../a" cannot be`},
		"a member like the CA":  {[]string{"--out=x", "--hostname=a", "--etcd-member=ca"}, `--etcd-member: "ca" cannot be`},
		"a member like clients": {[]string{"--out=x", "--hostname=a", "--etcd-member=client"}, `--etcd-member: "client" cannot be`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			var stdout, stderr bytes.Buffer
			if status := execute(append([]string{"cluster", "create"}, test.args...), &stdout, &stderr); status != 1 || stdout.Len() > 0 || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("status %d, %q, want %q", status, &stderr, test.want)
			}
			if entries, err := os.ReadDir("."); err != nil || len(entries) > 0 {
				t.Errorf("it wrote %v, %v", entries, err)
			}
		})
	}
}
