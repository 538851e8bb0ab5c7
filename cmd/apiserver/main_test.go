package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
)

// beTheServer makes the test binary run as the server itself, for tests that need a
// process of its own.
const beTheServer = "BERTH_TEST_BE_THE_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(beTheServer) != "" {
		os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestExecuteReportsFailuresInOneLine(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		args []string
		env  map[string]string
		want string
	}{
		"an unknown flag":       {args: []string{"--no-such-flag"}, want: "unknown flag: --no-such-flag; see apiserver --help"},
		"an unknown command":    {args: []string{"serve"}, want: `unknown command "serve"; see apiserver --help`},
		"no such snapshot":      {args: []string{"snapshot", "savve"}, want: `unknown command "savve"; see apiserver snapshot --help`},
		"no file":               {args: []string{"snapshot", "save"}, want: "0 arguments, want one, the FILE; see apiserver snapshot save --help"},
		"a value of a flag":     {args: []string{"--secure-port=http"}, want: `"--secure-port"`},
		"a range of a flag":     {args: []string{"--secure-port=70000"}, want: "--secure-port: 70000 is not between 0 and 65535"},
		"a value of a variable": {env: map[string]string{"BERTH_REQUEST_TIMEOUT": "5"}, want: `BERTH_REQUEST_TIMEOUT: invalid value "5"`},
		"a range of a variable": {env: map[string]string{"BERTH_SECURE_PORT": "-1"}, want: "BERTH_SECURE_PORT: -1 is not between 0 and 65535"},
		"a file of a flag":      {args: []string{"--token-auth-file=" + dir + "/none"}, want: "--token-auth-file: "},
		"a file of a variable":  {env: map[string]string{"BERTH_RATE_LIMIT_CONFIG": dir + "/none"}, want: "BERTH_RATE_LIMIT_CONFIG: "},
		"no server that is ready": {
			args: []string{"ready", "--data-dir=" + dir + "/none"}, want: "kubeconfig: no such file or directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range test.env {
				t.Setenv(key, value)
			}
			var stdout, stderr bytes.Buffer
			// A server that starts in spite of all would write here and nowhere else.
			t.Chdir(t.TempDir())
			if status := execute(test.args, &stdout, &stderr); status != 1 {
				t.Errorf("status %d, want 1", status)
			}
			line := stderr.String()
			if !strings.HasPrefix(line, "apiserver: ") || strings.Count(line, "\n") != 1 || !strings.Contains(line, test.want) {
				t.Errorf("stderr %q, want one line with %q", line, test.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout %q, want none", &stdout)
			}
			if entries, err := os.ReadDir("."); err != nil || len(entries) > 0 {
				t.Errorf("the working directory holds %v (%v), want nothing", entries, err)
			}
		})
	}
}

// A server that is asked whether it is ready cannot write to the terminal.
func TestReadyPrintsNoControlCharacters(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not\x1b[2J \u009b31m\x9b\u202e\u2066\r\bready\xff", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	var stdout, stderr bytes.Buffer
	status := execute([]string{"ready", "--server=" + server.URL}, &stdout, &stderr)
	if want := "apiserver: not ready: 503 Service Unavailable: not [2J 31m ready\n"; status != 1 || stderr.String() != want {
		t.Errorf("status %d, %q, want 1 and %q", status, &stderr, want)
	}
}

func TestVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	for _, arg := range []string{"--version", "version"} {
		stdout.Reset()
		if status := execute([]string{arg}, &stdout, &stderr); status != 0 || stderr.Len() > 0 {
			t.Fatalf("%s: status %d, stderr %q", arg, status, &stderr)
		}
		if want := "apiserver " + binaryVersion() + " (Kubernetes API v" + kubernetesVersion + ")\n"; stdout.String() != want {
			t.Errorf("%s: got %q, want %q", arg, &stdout, want)
		}
	}
}

func TestServedVersion(t *testing.T) {
	saved := version
	defer func() { version = saved }()
	version = "v1.2.3-4-gabc+dirty build"
	if got, want := servedVersion().GitVersion, "v"+kubernetesVersion+"+berth.v1.2.3-4-gabc.dirty.build"; got != want {
		t.Errorf("gitVersion %q, want %q", got, want)
	}
	module, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "k8s.io/api v0." + strings.TrimPrefix(kubernetesVersion, "1.") + "\n"; !bytes.Contains(module, []byte(want)) {
		t.Errorf("go.mod has no %q: kubernetesVersion is out of date", want)
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := execute([]string{"--help"}, &stdout, &stderr); status != 0 || stderr.Len() > 0 {
		t.Fatalf("status %d, stderr %q", status, &stderr)
	}
	for _, flag := range []string{
		"data-dir", "etcd-servers", "etcd-cafile", "etcd-certfile", "etcd-keyfile", "etcd-compaction-interval",
		"quota-backend-bytes", "bind-address", "secure-port", "http-port", "tls-cert-file", "tls-private-key-file", "tls-min-version", "tls-cipher-suites",
		"external-hostname", "token-auth-file", "rate-limit-config", "max-requests-inflight",
		"max-mutating-requests-inflight", "request-timeout", "log-level", "log-format", "version", "help",
	} {
		if !strings.Contains(stdout.String(), "--"+flag+" ") {
			t.Errorf("--%s is not in the help text", flag)
		}
	}
	for line := range strings.SplitSeq(stdout.String(), "\n") {
		if len(line) > cli.HelpWidth+10 {
			t.Errorf("a line of %d characters: %s", len(line), line)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "fish", "zsh"} {
		var stdout, stderr bytes.Buffer
		if status := execute([]string{"completion", shell}, &stdout, &stderr); status != 0 || stderr.Len() > 0 || !strings.Contains(stdout.String(), "apiserver") {
			t.Errorf("%s: status %d, stderr %q, %d bytes", shell, status, &stderr, stdout.Len())
		}
	}
}

func TestUnknownVariables(t *testing.T) {
	got := cli.UnknownVariables(newCommand(nil, nil, nil).Flags(), []string{
		"BERTH_SECURE_PORTS=1", "BERTH_DATA_DIR=x", "HOME=/", "BERTH_ETCD_SERVER=", "BERTH_TEST_X=1", "BERTH=1",
	})
	if want := []string{"BERTH_ETCD_SERVER", "BERTH_SECURE_PORTS"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	s := runServer(t, func(started *config) { started.UnknownVariables = got })
	for _, name := range got {
		s.stderr.Await(t, "("+name+").* belongs to no flag", s.ended)
	}
}
