package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/berth-project/berth/cmd/apiserver/internal/commands"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/test/harness"
)

func TestRunRefusesAnOpenDataDirectory(t *testing.T) {
	for name, test := range map[string]struct {
		plant func(t *testing.T, dir datadir.Dir) error
		want  string
	}{
		"writable for the group": {
			func(_ *testing.T, dir datadir.Dir) error { return os.Chmod(string(dir), 0o770) },
			"DIR is writable for other users (mode 0770), who could take over the server; run: chmod -R go-w DIR",
		},
		"writable for all": {
			func(_ *testing.T, dir datadir.Dir) error { return os.Chmod(string(dir), 0o777) },
			"DIR is writable for other users (mode 0777), who could take over the server; run: chmod -R go-w DIR",
		},
		"certificates writable for all": {
			func(_ *testing.T, dir datadir.Dir) error { return os.Chmod(string(dir.PKI()), 0o777) },
			"DIR/pki is writable for other users (mode 0777), who could take over the server; run: chmod -R go-w DIR/pki",
		},
		"database writable for all": {
			func(_ *testing.T, dir datadir.Dir) error { return os.Chmod(dir.Etcd(), 0o777) },
			"DIR/etcd is writable for other users (mode 0777), who could take over the server; run: chmod -R go-w DIR/etcd",
		},
		"a pipe for a token": {
			func(_ *testing.T, dir datadir.Dir) error { return syscall.Mkfifo(dir.Token(), 0o600) },
			"DIR/token is neither a file nor a directory; remove it",
		},
		"a pipe for a CA": {
			func(_ *testing.T, dir datadir.Dir) error { return syscall.Mkfifo(dir.PKI().CAKey(), 0o600) },
			"DIR/pki/ca.key is neither a file nor a directory; remove it",
		},
		"a pipe for the lock": {
			func(_ *testing.T, dir datadir.Dir) error {
				return syscall.Mkfifo(filepath.Join(string(dir), "lock"), 0o600)
			},
			"DIR/lock is neither a file nor a directory; remove it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := defaultConfig()
			c.DataDir, c.SecurePort = datadir.Dir(filepath.Join(t.TempDir(), "data")), 0
			for _, dir := range []string{string(c.DataDir.PKI()), c.DataDir.Etcd()} {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := test.plant(t, c.DataDir); err != nil {
				t.Fatal(err)
			}
			var out harness.Output
			want := "data directory DIR is refused: " + test.want
			if err := run(t.Context(), c, nil, &out, &out); err == nil || strings.ReplaceAll(err.Error(), string(c.DataDir), "DIR") != want {
				t.Errorf("got %v, want %s", err, want)
			}
			if entries, err := os.ReadDir(string(c.DataDir.PKI())); err != nil || len(entries) > 1 {
				t.Errorf("certificates were made: %v (%v)", entries, err)
			}
		})
	}
}

// Links that somebody planted under names that the server writes are replaced, not followed.
func TestRunFollowsNoLinkWhenItWrites(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	harness.WriteFile(t, victim, "untouched")
	s := runServer(t, func(c *config) {
		if err := os.MkdirAll(string(c.DataDir.PKI()), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{c.DataDir.Token(), c.DataDir.Kubeconfig(), c.DataDir.PKI().CAKey(), c.DataDir.PKI().CACert(), c.DataDir.PKI().Key(), c.DataDir.PKI().Cert()} {
			dir, name := filepath.Split(path)
			if err := os.Symlink(victim, filepath.Join(dir, "."+name+".tmp")); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(victim, c.DataDir.Kubeconfig()); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(filepath.Dir(victim), "none"), c.DataDir.Token()); err != nil {
			t.Fatal(err)
		}
	})
	if got := harness.ReadFile(t, victim); got != "untouched" {
		t.Errorf("the file that the links lead to holds %q", got)
	}
	for _, path := range []string{s.DataDir.Token(), s.DataDir.Kubeconfig(), s.DataDir.PKI().CAKey(), s.DataDir.PKI().Key()} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v (%v), want a file of mode 0600", path, info.Mode(), err)
		}
	}
	for _, dir := range []string{string(s.DataDir), string(s.DataDir.PKI())} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), ".") {
				t.Errorf("%s is left in %s", entry.Name(), dir)
			}
		}
	}
	if err := commands.CheckReady(t.Context(), s.DataDir, ""); err != nil {
		t.Error(err)
	}
}

func TestRunWarnsOfOpenSecrets(t *testing.T) {
	dir := t.TempDir()
	tokens, key := filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "key")
	harness.WriteFile(t, tokens, "t,ann,1,system:masters\n")
	writeSelfSigned(t, filepath.Join(dir, "crt"), key, "127.0.0.1")
	open := func(path string, mode os.FileMode) {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	open(tokens, 0o640)
	open(key, 0o604)
	shared := filepath.Join(dir, "shared")
	s := runServer(t, func(c *config) {
		c.TokenAuthFile, c.TLSCertFile, c.TLSPrivateKeyFile = tokens, filepath.Join(dir, "crt"), key
		c.DataDir = datadir.Dir(filepath.Join(shared, "data"))
		if err := os.Mkdir(shared, 0o700); err != nil {
			t.Fatal(err)
		}
		open(shared, 0o777)
	})
	for _, want := range []string{
		`"file":"` + tokens + `","mode":"0640",.*a file with a secret is open to other users`,
		`"file":"` + key + `","mode":"0604",.*a file with a secret is open to other users`,
		`"directory":"` + shared + `",.*every user can replace the data directory`,
	} {
		s.stderr.Await(t, want, s.ended)
	}
	// A new version is looked at, too.
	harness.WriteFile(t, tokens+".new", "u,ann,1,system:masters\n")
	open(tokens+".new", 0o666)
	if err := os.Rename(tokens+".new", tokens); err != nil {
		t.Fatal(err)
	}
	s.stderr.Await(t, `"file":"`+tokens+`","mode":"0666"`, s.ended)

	if s := runServer(t, nil); strings.Contains(s.stderr.String(), "a file with a secret") {
		t.Errorf("a warning of a file that the server made:\n%s", s.stderr)
	}
}

// What is wrong with the data directory is told at once, however long etcd takes.
func TestRunReportsADamagedCABeforeEtcdAnswers(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c := defaultConfig()
	c.DataDir, c.SecurePort = datadir.Dir(filepath.Join(t.TempDir(), "data")), 0
	c.EtcdServers = []string{"http://" + silent.Addr().String()}
	if err := os.MkdirAll(string(c.DataDir.PKI()), 0o700); err != nil {
		t.Fatal(err)
	}
	harness.WriteFile(t, c.DataDir.PKI().CACert(), "damaged")
	var out harness.Output
	err = run(t.Context(), c, nil, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "restore it, or remove") || strings.Contains(err.Error(), "no answer") {
		t.Errorf("got %v, want an error of the CA and none of etcd", err)
	}
}
