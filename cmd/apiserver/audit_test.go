package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/berth-project/berth/test/harness"
)

const (
	auditPolicy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: "
	auditToken  = "a-token-of-the-administrator"
)

// startAudited starts a server with an audit log, which path may name, and a policy.
func startAudited(t *testing.T, path string) (p *process, log, policy string) {
	t.Helper()
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens.csv")
	log, policy = filepath.Join(dir, "log", "audit.log"), filepath.Join(dir, "policy.yaml")
	if path != "" {
		log = path
	}
	harness.WriteFile(t, tokens, auditToken+",ann,1,system:masters\n")
	harness.WriteFile(t, policy, auditPolicy+"Metadata\n")
	p = startProcess(t, filepath.Join(dir, "data"), "--token-auth-file="+tokens, "--audit-log-path="+log, "--audit-policy-file="+policy)
	return p, log, policy
}

// A version of the policy that was refused leaves the one before in force, and SIGHUP has the
// log's file opened again.
func TestProcessFollowsAuditPolicy(t *testing.T) {
	p, log, policy := startAudited(t, "")
	p.awaitReady(t)
	client := caller(t, p.dir.PKI().CACert())
	get := func() { call(t, client, "GET", p.url+endpointsPath, auditToken, "") }
	lines := func(path string, want int) {
		t.Helper()
		eventually(t, func() error {
			data, err := os.ReadFile(path)
			if got := strings.Count(string(data), `"requestURI":"`+endpointsPath+`"`); err == nil && got != want {
				return fmt.Errorf("%s has %d lines of requests, want %d", path, got, want)
			}
			return err
		})
	}
	get()
	lines(log, 2)

	replace(t, policy, auditPolicy+"Much\n")
	p.stderr.Await(t, `line 4: rules\[0\].level: Unsupported value: .*"files":"audit-policy-file".*the new version is refused`, p.ended)
	get()
	lines(log, 4)

	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	replace(t, policy, auditPolicy+"Metadata\n  omitStages: [RequestReceived]\n")
	p.stderr.Await(t, `"files":"audit-policy-file".*"loaded again"`, p.ended)
	if log := p.stderr.String(); strings.Contains(log, "audit-log-path") {
		t.Errorf("opened again, which nobody has asked for: %s", log)
	}
	p.signal(t, syscall.SIGHUP)
	p.stderr.Await(t, `"files":"audit-log-path".*"loaded again"`, p.ended)
	get()
	lines(log, 1)
	lines(log+".1", 4)

	get()
	p.signal(t, syscall.SIGTERM)
	<-p.ended
	if p.status != 0 {
		t.Errorf("status %d, want 0:\n%s", p.status, p.stderr)
	}
	lines(log, 2) // what waited to be written was
	if strings.Contains(harness.ReadFile(t, log)+harness.ReadFile(t, log+".1"), auditToken) {
		t.Error("a token is in the audit log")
	}
}

// Standard output has the log's lines alone, if that is where it goes.
func TestProcessWritesAuditLogToStdout(t *testing.T) {
	p, _, _ := startAudited(t, "-")
	p.url = p.stderr.Await(t, `is ready at (https://\S+)`, p.ended)
	client := caller(t, p.dir.PKI().CACert())
	call(t, client, "GET", p.url+endpointsPath, auditToken, "")
	p.stdout.Await(t, `"stage":"ResponseComplete","requestURI":"`+endpointsPath+`"`, p.ended)
	for line := range strings.Lines(p.stdout.String()) {
		if !strings.HasPrefix(line, `{"kind":"Event","apiVersion":"audit.k8s.io/v1",`) {
			t.Errorf("standard output has %q", line)
		}
	}
}

// Requests go on while the disk is full, and lost lines are counted.
func TestProcessWithFullAuditDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	p, _, _ := startAudited(t, "/dev/full")
	p.awaitReady(t)
	client := caller(t, p.dir.PKI().CACert())
	if code, body := call(t, client, "POST", p.url+endpointsPath, auditToken, `{"metadata":{"name":"web"}}`); code != 201 {
		t.Errorf("%d %s", code, body)
	}
	p.stderr.Await(t, "no space left on device.*lines of the audit log are lost", p.ended)
	eventually(t, func() error {
		_, metrics := call(t, client, "GET", p.url+"/metrics", auditToken, "")
		for _, want := range []string{`apiserver_audit_error_total{plugin="log"} `, "apiserver_audit_event_total "} {
			if !strings.Contains(metrics, "\n"+want) || strings.Contains(metrics, "\n"+want+"0\n") {
				return fmt.Errorf("metrics lack %s", want)
			}
		}
		return nil
	})
}

// A policy with faults ends the server, which names them all.
func TestFaultyAuditPolicy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	harness.WriteFile(t, path, auditPolicy+"Much\n  namespace: a\n")
	p := startProcess(t, t.TempDir(), "--audit-log-path=-", "--audit-policy-file="+path)
	<-p.ended
	want := "apiserver: --audit-policy-file: loading the audit policy: file " + path + ": line 5: rules[0].namespace: there is no such field; there are "
	if got := p.stderr.String(); p.status != 1 || !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 1 {
		t.Errorf("status %d\n%s", p.status, got)
	}
}
