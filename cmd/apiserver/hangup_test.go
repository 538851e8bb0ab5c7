package main

import (
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/berth-project/berth/cmd/apiserver/internal/commands"
	"github.com/berth-project/berth/test/harness"
)

// A SIGHUP loads every file again and says so of each, whether it has changed or not.
func TestProcessLoadsFilesAgainAtSIGHUP(t *testing.T) {
	dir := t.TempDir()
	tokens, limits := filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "limits.yaml")
	crt, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	harness.WriteFile(t, tokens, "old,ann,1,system:masters\n")
	harness.WriteFile(t, limits, "apiVersion: berth/v1alpha1\nkind: RateLimitConfiguration\n")
	writeSelfSigned(t, crt, key, "127.0.0.1")
	p := startProcess(t, filepath.Join(dir, "data"), "--token-auth-file="+tokens, "--rate-limit-config="+limits, "--tls-cert-file="+crt, "--tls-private-key-file="+key)
	p.awaitReady(t)
	p.signal(t, syscall.SIGHUP)
	for _, flag := range []string{"token-auth-file", "rate-limit-config", "tls-cert-file"} {
		p.stderr.Await(t, `"files":"`+flag+`",.*"loaded again"`, p.ended)
	}

	// A version that was refused is refused again, and the old one stays in force.
	replace(t, tokens, "broken\n")
	const refused = `"files":"token-auth-file",.*the new version is refused`
	p.stderr.Await(t, refused, p.ended)
	p.signal(t, syscall.SIGHUP)
	p.stderr.Await(t, refused+`(?s:.*)`+refused, p.ended)
	client := caller(t, crt)
	if code, body := call(t, client, "GET", p.url+endpointsPath, "old", ""); code != http.StatusOK {
		t.Errorf("the token of the version in force: got %d: %s", code, body)
	}
	p.signal(t, syscall.SIGTERM)
	<-p.ended
	if p.status != 0 {
		t.Errorf("status %d, want 0:\n%s", p.status, p.stderr)
	}
}

func TestProcessWithoutFilesSurvivesSIGHUP(t *testing.T) {
	p := startProcess(t, filepath.Join(t.TempDir(), "data"))
	p.awaitReady(t)
	p.signal(t, syscall.SIGHUP)
	p.stderr.Await(t, "there are no files to load again", p.ended)
	if err := commands.CheckReady(t.Context(), p.dir, ""); err != nil {
		t.Error(err)
	}
}

// A SIGHUP that comes while the server starts does not end it.
func TestProcessSurvivesSIGHUPWhileItStarts(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p := startProcess(t, filepath.Join(t.TempDir(), "data"), "--etcd-servers=http://"+silent.Addr().String())
	conn, err := silent.Accept() // from now on it waits for an answer of etcd's
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.signal(t, syscall.SIGHUP)
	p.signal(t, syscall.SIGTERM)
	<-p.ended
	if p.status != 0 || p.stdout.String() != "" {
		t.Errorf("status %d, want 0, of a server that was never ready:\n%s%s", p.status, p.stdout, p.stderr)
	}
}

// A SIGHUP that comes while the server stops neither ends nor revives it.
func TestProcessStopsInSpiteOfSIGHUP(t *testing.T) {
	p := startProcess(t, filepath.Join(t.TempDir(), "data"))
	p.awaitReady(t)
	conn, rest := slowRequest(t, p)
	p.signal(t, syscall.SIGTERM)
	p.stderr.Await(t, `"stopping"`, p.ended)
	for range 10 {
		p.signal(t, syscall.SIGHUP)
	}
	p.stderr.Await(t, "there are no files to load again", p.ended)
	p.expectEnd(t, conn, rest)
}
