package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-project/berth/cmd/apiserver/internal/commands"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/test/harness"
)

// runCommand runs the binary's command line in this process.
func runCommand(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, failure bytes.Buffer
	if status := execute(args, &out, &failure); status != 0 {
		t.Fatalf("%q: status %d, %s", args, status, &failure)
	}
	return out.String(), failure.String()
}

// makeToken appends a token to a file.
func makeToken(t *testing.T, file string, args ...string) string {
	t.Helper()
	stdout, stderr := runCommand(t, append([]string{"token", "create", "--file=" + file}, args...)...)
	if stderr != "" || strings.Count(stdout, "\n") != 1 {
		t.Fatalf("stdout %q, stderr %q", stdout, stderr)
	}
	return strings.TrimSpace(stdout)
}

func TestTokenCreatePrintsTheLine(t *testing.T) {
	stdout, stderr := runCommand(t, "token", "create", "--user=ann", "--uid=7", "--group=dev,ops", "--group=x", "--ttl=1h")
	_, line, _ := strings.Cut(stderr, "\n")
	file := filepath.Join(t.TempDir(), "tokens.csv")
	harness.WriteFile(t, file, line)
	tokens := auth.NewTokens()
	if err := tokens.Load(file); err != nil {
		t.Fatal(err)
	}
	id, ok, _ := tokens.Authenticate(t.Context(), strings.TrimSuffix(stdout, "\n"))
	if !ok {
		t.Fatalf("the line %q is not that of the token on stdout", line)
	}
	if got := strings.Join(id.User.Groups, " "); id.User.Name != "ann" || id.User.UID != "7" || got != "dev ops x system:authenticated" {
		t.Errorf("it is the token of %v", id.User)
	}
	if left := time.Until(id.Expires); left < 59*time.Minute || left > time.Hour {
		t.Errorf("it expires in %v", left)
	}
}

func TestTokenCreateAppends(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens.csv")
	made := []string{makeToken(t, file, "--user=ann")}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
	harness.WriteFile(t, file, harness.ReadFile(t, file)+"plain,bob,2") // without a line feed
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	var appending sync.WaitGroup
	var mu sync.Mutex
	for range 8 {
		appending.Go(func() {
			token := makeToken(t, file, "--user=cid")
			mu.Lock()
			defer mu.Unlock()
			made = append(made, token)
		})
	}
	appending.Wait()
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v (%v), want 0640", info.Mode(), err)
	}
	tokens := auth.NewTokens()
	if err := tokens.Load(file); err != nil {
		t.Fatal(err)
	}
	for _, token := range append(made, "plain") {
		if _, ok, _ := tokens.Authenticate(t.Context(), token); !ok {
			t.Errorf("a token is missing in %q", harness.ReadFile(t, file))
		}
	}
	if strings.Contains(harness.ReadFile(t, file), made[0]) {
		t.Error("the file has a token that should be hashed")
	}
}

// The kubeconfig is all that a user of a running server needs.
func TestTokenCreateKubeconfig(t *testing.T) {
	dir := t.TempDir()
	file, path := dir+"/tokens.csv", dir+"/ann.kubeconfig"
	admin := makeToken(t, file, "--user=admin", "--group=system:masters")
	s := runServer(t, func(c *config) { c.TokenAuthFile = file })
	args := []string{"token", "create", "--data-dir=" + string(s.DataDir), "--user=ann", "--group=dev,system:masters", "--file=" + file, "--kubeconfig=" + path}
	stdout, stderr := runCommand(t, args...)
	if want := `wrote ` + path + `: user "ann", groups ["dev" "system:masters"], never expires` + "\n"; stdout != want || stderr != "" {
		t.Errorf("stdout %q, stderr %q, want %q", stdout, stderr, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
	a, err := datadir.ReadKubeconfig(path)
	if err != nil || a.Server != s.url || a.User != "ann" || a.Token == "" {
		t.Fatalf("the kubeconfig has %+v, %v", a, err)
	}
	s.expectCode(t, caller(t, s.DataDir.PKI().CACert()), a.Token, http.StatusOK)
	if a, err := datadir.ReadKubeconfig(s.DataDir.Kubeconfig()); err != nil || a.Token != "" || strings.Contains(harness.ReadFile(t, file), admin) {
		t.Errorf("the server's own has %v, %v", a, err)
	}

	// A failure leaves neither a line without a kubeconfig nor the reverse.
	lines := harness.ReadFile(t, file)
	for want, change := range map[string][]string{
		"--kubeconfig: " + path + " exists already, and would be replaced":    nil,
		"must be the data directory of a server that has started":             {"--kubeconfig=" + dir + "/bob", "--data-dir=" + dir},
		"no such file or directory":                                           {"--kubeconfig=" + dir + "/none/bob"},
		"--file: open " + dir + "/none/tokens.csv: no such file or directory": {"--kubeconfig=" + dir + "/bob", "--file=" + dir + "/none/tokens.csv"},
		`--server: "http://a" is not a URL with https`:                        {"--kubeconfig=" + dir + "/bob", "--server=http://a"},
		"--server: requires --kubeconfig":                                     {"--kubeconfig=", "--server=https://a"},
	} {
		var stdout, stderr bytes.Buffer
		if status := execute(append(args, change...), &stdout, &stderr); status != 1 || stdout.Len() > 0 || !strings.Contains(stderr.String(), want) {
			t.Errorf("status %d, %q, want %q", status, &stderr, want)
		}
	}
	if _, err := os.Stat(dir + "/bob"); !errors.Is(err, os.ErrNotExist) || harness.ReadFile(t, file) != lines {
		t.Errorf("after failures: %v, %s", err, harness.ReadFile(t, file))
	}
}

func TestTokenCreateRefusals(t *testing.T) {
	dir := t.TempDir()
	const invalid = "secret,ann\n"
	harness.WriteFile(t, dir+"/invalid", invalid)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no user":            {nil, "--user: must not be empty"},
		"an empty group":     {[]string{"--user=a", "--group=b,,c"}, `--group: a group cannot be named "" in a token file`},
		"a life of the past": {[]string{"--user=a", "--ttl=-1s"}, "--ttl: -1s is negative"},
		"a day without unit": {[]string{"--user=a", "--ttl=30"}, `invalid argument "30" for "--ttl"`},
		"an invalid file":    {[]string{"--user=a", "--file=" + dir + "/invalid"}, "--file: " + dir + "/invalid is not a valid token file: line 1: it must have at least 3 columns"},
		"no directory":       {[]string{"--user=a", "--file=" + dir + "/none/tokens.csv"}, "--file: open " + dir + "/none/tokens.csv: no such file or directory"},
		"an argument":        {[]string{"ann"}, `unknown command "ann" for "apiserver token create"`},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if status := execute(append([]string{"token", "create"}, test.args...), &stdout, &stderr); status != 1 || stdout.Len() > 0 || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("status %d, %q, want %q", status, &stderr, test.want)
			}
		})
	}
	if got := harness.ReadFile(t, dir+"/invalid"); got != invalid {
		t.Errorf("the invalid file was changed to %q", got)
	}
}

// With hashes alone the server works, and says what its kubeconfig lacks. A token expires in a
// watch, too.
func TestRunWithHashedTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens.csv")
	admin := makeToken(t, file, "--user=ann", "--group=system:masters")
	s := runServer(t, func(c *config) { c.TokenAuthFile = file })
	s.stderr.Await(t, "(the kubeconfig has no token)", s.ended)
	if a, err := datadir.ReadKubeconfig(s.DataDir.Kubeconfig()); err != nil || a.Token != "" || a.Server != s.url {
		t.Errorf("the kubeconfig has %v, %v", a, err)
	}
	if err := commands.CheckReady(t.Context(), s.DataDir, ""); err != nil {
		t.Error(err)
	}
	if err := commands.PrintLimits(t.Context(), s.DataDir, "", "", io.Discard); err == nil || !strings.Contains(err.Error(), "the kubeconfig in the data directory has no valid token") {
		t.Errorf("the limits: %v", err)
	}
	if _, err := exec.LookPath("curl"); err == nil {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", s.stdout.Await(t, `\n(curl (?s:.*)\n}')\n`, s.ended)+" -sS -w '%{http_code}'")
		cmd.Env = append(os.Environ(), "TOKEN="+admin)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "201") {
			t.Errorf("%v, %s", err, out)
		}
	}

	client := caller(t, s.DataDir.PKI().CACert())
	client.Timeout = 0
	if code, body := call(t, client, "POST", s.url+endpointsPath, admin, `{"metadata":{"name":"first"}}`); code != http.StatusCreated {
		t.Fatalf("got %d: %s", code, body)
	}
	const ttl = 3 * time.Second
	brief := makeToken(t, file, "--user=bob", "--group=system:masters", "--ttl="+ttl.String())
	s.expectCode(t, client, brief, http.StatusOK)
	w := watch(t, client, s.url, brief, "application/json", "identity")
	event, err := w.next()
	for err == nil && event.Type == "ADDED" {
		event, err = w.next()
	}
	if err != nil || event.Type != "ERROR" || !strings.Contains(string(event.Object.Raw), `"code":401`) {
		t.Errorf("at the expiry the watch got %v, %v", event, err)
	}
	if _, err := w.next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the error: %v", err)
	}
	if code, body := call(t, client, "GET", s.url+endpointsPath, brief, ""); code != http.StatusUnauthorized {
		t.Errorf("after its expiry the token gets %d: %s", code, body)
	}
	if code, _ := call(t, client, "GET", s.url+endpointsPath, admin, ""); code != http.StatusOK {
		t.Errorf("the other token gets %d", code)
	}
	if log := s.stderr.String() + s.stdout.String(); strings.Contains(log, admin) || strings.Contains(log, brief) {
		t.Error("the output has a token")
	}
}
