package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/test/harness"
)

func TestLockDataDir(t *testing.T) {
	dir := dataDir(filepath.Join(t.TempDir(), "a", "b"))
	lock, err := dir.lock()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(string(dir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v (%v), want 0700", info.Mode(), err)
	}
	if _, err := dir.lock(); err == nil || err.Error() != "data directory "+string(dir)+" is in use by another process; stop it first" {
		t.Errorf("a second time: %v", err)
	}
	lock.Close()
	lock, err = dir.lock()
	if err != nil {
		t.Fatalf("after it was given back: %v", err)
	}
	lock.Close()
}

func TestEnsureToken(t *testing.T) {
	dir := dataDir(t.TempDir())
	path := dir.token()
	made, err := dir.ensureToken()
	if err != nil || len(made) < 32 {
		t.Fatalf("got %d characters, %v", len(made), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
	if again, err := dir.ensureToken(); err != nil || again != made {
		t.Errorf("the second time it is another one (%v)", err)
	}
	for text, want := range map[string]string{"mine": "mine", " mine \r\n": "mine", "": "", "\n": "", "two words": "", "tökén": ""} {
		harness.WriteFile(t, path, text)
		got, err := dir.ensureToken()
		if got != want || (err == nil) != (want != "") {
			t.Errorf("of %q: got %q, %v, want %q", text, got, err, want)
		}
		if err != nil && strings.TrimSpace(text) != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error contains the token: %v", err)
		}
	}
}

func TestAdminToken(t *testing.T) {
	for name, test := range map[string]struct{ file, want string }{
		"the first of system:masters": {"a,ann,1\nb,bob,2,\"x,system:masters\"\nc,cid,3,system:masters\n", "b"},
		"else the first":              {"\na,ann,1\nb,bob,2,x\n", "a"},
		"quoted":                      {`"a,""1""",ann,1` + "\n", `a,"1"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tokens.csv")
			harness.WriteFile(t, path, test.file)
			tokens := auth.NewTokens()
			if err := tokens.Load(path); err != nil {
				t.Fatal(err)
			}
			if got, err := adminToken(path, tokens); err != nil || got != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
	// What is in the file by now and not loaded yet is no use to anybody.
	path := filepath.Join(t.TempDir(), "tokens.csv")
	harness.WriteFile(t, path, "new,ann,1,system:masters\n")
	if got, err := adminToken(path, auth.NewTokens()); err == nil {
		t.Errorf("got %q, which is not valid yet", got)
	}
}

func TestKubeconfigIsClientGos(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	want := access{server: "https://[::1]:6443", serverName: "a.example.com", caPEM: []byte("PEM"), token: `0123: "odd'`}
	if err := writeKubeconfig(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Host != want.server || got.ServerName != want.serverName || string(got.CAData) != string(want.caPEM) || got.BearerToken != want.token {
		t.Errorf("client-go reads %v", got)
	}
	again, err := readKubeconfig(path)
	if err != nil || again.server != want.server || again.serverName != want.serverName || string(again.caPEM) != string(want.caPEM) || again.token != want.token {
		t.Errorf("read back: %v, %v", again, err)
	}
	for _, text := range []string{"", "{", "kind: Config\n"} {
		harness.WriteFile(t, path, text)
		if _, err := readKubeconfig(path); err == nil || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("of %q: %v, want an error with the path", text, err)
		}
	}
}

func TestClientHost(t *testing.T) {
	for _, test := range []struct{ bind, external, want string }{
		{"127.0.0.1", "", "https://127.0.0.1:1"},
		{"0.0.0.0", "", "https://127.0.0.1:1"},
		{"::", "", "https://[::1]:1"},
		{"192.0.2.7", "", "https://192.0.2.7:1"},
		{"0.0.0.0", "berth.example.com", "https://berth.example.com:1"},
		{"fe80::1%eth0", "", "https://[fe80::1%25eth0]:1"},
	} {
		got := secureURL(clientHost(config{BindAddress: test.bind, ExternalHostname: test.external}), 1)
		if got != test.want {
			t.Errorf("on %s as %q: got %s, want %s", test.bind, test.external, got, test.want)
		}
	}
}
