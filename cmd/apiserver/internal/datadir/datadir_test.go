package datadir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/berth-project/berth/test/harness"
)

func TestLockDataDir(t *testing.T) {
	dir := Dir(filepath.Join(t.TempDir(), "a", "b"))
	lock, err := dir.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(string(dir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v (%v), want 0700", info.Mode(), err)
	}
	if _, err := dir.Lock(); err == nil || err.Error() != "data directory "+string(dir)+" is in use by another process; stop it first" {
		t.Errorf("a second time: %v", err)
	}
	lock.Close()
	lock, err = dir.Lock()
	if err != nil {
		t.Fatalf("after it was given back: %v", err)
	}
	lock.Close()
}

func TestEnsureToken(t *testing.T) {
	dir := Dir(t.TempDir())
	path := dir.Token()
	made, err := dir.EnsureToken()
	if err != nil || len(made) < 32 {
		t.Fatalf("got %d characters, %v", len(made), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
	if again, err := dir.EnsureToken(); err != nil || again != made {
		t.Errorf("the second time it is another one (%v)", err)
	}
	for text, want := range map[string]string{"mine": "mine", " mine \r\n": "mine", "": "", "\n": "", "two words": "", "tökén": ""} {
		harness.WriteFile(t, path, text)
		got, err := dir.EnsureToken()
		if got != want || (err == nil) != (want != "") {
			t.Errorf("of %q: got %q, %v, want %q", text, got, err, want)
		}
		if err != nil && strings.TrimSpace(text) != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error contains the token: %v", err)
		}
	}
}

func TestKubeconfigIsClientGos(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	want := Access{Server: "https://[::1]:6443", ServerName: "a.example.com", CAPEM: []byte("PEM"), User: "admin", Token: `0123: "odd'`}
	if err := WriteKubeconfig(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Host != want.Server || got.ServerName != want.ServerName || string(got.CAData) != string(want.CAPEM) || got.BearerToken != want.Token {
		t.Errorf("client-go reads %v", got)
	}
	again, err := ReadKubeconfig(path)
	if err != nil || again.Server != want.Server || again.ServerName != want.ServerName || string(again.CAPEM) != string(want.CAPEM) || again.Token != want.Token || again.User != want.User {
		t.Errorf("read back: %v, %v", again, err)
	}
	for _, text := range []string{"", "{", "kind: Config\n"} {
		harness.WriteFile(t, path, text)
		if _, err := ReadKubeconfig(path); err == nil || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("of %q: %v, want an error with the path", text, err)
		}
	}
}
