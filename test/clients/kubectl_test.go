package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// kubectl runs real kubectl in a namespace of its own.
type kubectl struct {
	t         *testing.T
	namespace string
	env       []string
}

func newKubectl(t *testing.T) *kubectl {
	t.Helper()
	_, namespace, _ := sharedNamespace(t)
	return &kubectl{t: t, namespace: namespace}
}

// result is how one kubectl ended.
type result struct {
	k              *kubectl
	command        string
	stdout, stderr string
	code           int
}

// command is kubectl with the arguments, in the test's namespace unless they name
// another. It ends with ctx.
func (k *kubectl) command(ctx context.Context, stdin string, args ...string) *exec.Cmd {
	k.t.Helper()
	path, err := kubectlPath()
	if err != nil {
		k.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"--namespace=" + k.namespace}, args...)...)
	// The cache of what the server serves is shared, as that of a user at a terminal is.
	home := filepath.Dir(shared.dataDir)
	cmd.Env = append(os.Environ(), asKubectl+"=1", endAtOnce, "KUBECONFIG="+shared.kubeconfig(), "HOME="+home, "KUBECACHEDIR="+filepath.Join(home, "cache"))
	cmd.Env = append(cmd.Env, k.env...)
	cmd.Stdin = strings.NewReader(stdin)
	return cmd
}

// run runs kubectl to its end.
func (k *kubectl) run(args ...string) *result {
	k.t.Helper()
	return k.runWith("", args...)
}

func (k *kubectl) runWith(stdin string, args ...string) *result {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := k.command(ctx, stdin, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	r := &result{k: k, command: "kubectl " + strings.Join(args, " ")}
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		k.t.Fatalf("%s: %v", r.command, err)
	}
	r.stdout, r.stderr = stdout.String(), withoutRaceNote(stderr.String())
	return r
}

// ok checks that kubectl ended with 0, without a word on standard error, and printed this
// text. Spaces are compared as one, an age is AGE, and NS is the test's namespace.
func (r *result) ok(want ...string) {
	r.k.t.Helper()
	r.ended(0, strings.Join(want, "\n"), "")
}

// ended checks exit code and texts.
func (r *result) ended(code int, stdout, stderr string) {
	r.k.t.Helper()
	want := fmt.Sprintf("exit code %d\n%s\nstderr:\n%s", code, plain(stdout), plain(stderr))
	got := fmt.Sprintf("exit code %d\n%s\nstderr:\n%s", r.code, r.plain(r.stdout), r.plain(r.stderr))
	if want != got {
		r.k.t.Errorf("%s (-want +got):\n%s", r.command, cmp.Diff(want, got))
	}
}

// contains checks that kubectl ended with 0 and printed the texts, among others, in
// their order.
func (r *result) contains(texts ...string) *result {
	r.k.t.Helper()
	if r.code != 0 {
		r.k.t.Errorf("%s: exit code %d, stderr %q", r.command, r.code, r.stderr)
	}
	rest := r.plain(r.stdout)
	for _, text := range texts {
		_, after, found := strings.Cut(rest, plain(text))
		if !found {
			r.k.t.Errorf("%s: %q is missing in\n%s", r.command, text, rest)
			return r
		}
		rest = after
	}
	return r
}

// fails checks that kubectl ended with 1 and that standard error holds the text.
func (r *result) fails(stderr string) *result {
	r.k.t.Helper()
	if got := r.plain(r.stderr); r.code != 1 || !strings.Contains(got, plain(stderr)) {
		r.k.t.Errorf("%s: got exit code %d and stderr %q, want 1 and %q", r.command, r.code, got, stderr)
	}
	return r
}

// withoutRaceNote is a text without the line that kubectl logs because the test binary was
// built with the race detector.
func withoutRaceNote(text string) string { return raceNote.ReplaceAllString(text, "") }

var (
	raceNote = regexp.MustCompile(`(?m)^I.* withrace\.go:\d+\] .*\n`)
	spaces   = regexp.MustCompile(`[ \t]+`)
	age      = regexp.MustCompile(`(?m) \d+[smh](\d+[sm])?( |$)`)
)

func (r *result) plain(text string) string {
	return strings.ReplaceAll(plain(text), r.k.namespace, "NS")
}

// plain is a text without what differs from run to run, or matters to nobody.
func plain(text string) string {
	lines := strings.Split(strings.TrimSpace(spaces.ReplaceAllString(text, " ")), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return age.ReplaceAllString(strings.Join(lines, "\n"), " AGE$2")
}

// manifest is a file with an Endpoints of the address and the labels.
func (k *kubectl) manifest(name, ip string, labels ...string) string {
	k.t.Helper()
	text := "apiVersion: v1\nkind: Endpoints\nmetadata:\n  name: " + name + "\n"
	if len(labels) > 0 {
		text += "  labels:\n"
	}
	for _, label := range labels {
		key, value, _ := strings.Cut(label, "=")
		text += fmt.Sprintf("    %s: %q\n", key, value)
	}
	text += "subsets:\n- addresses:\n  - ip: " + ip + "\n  ports:\n  - name: http\n    port: 80\n    protocol: TCP\n"
	return k.file(name+".yaml", text)
}

func (k *kubectl) file(name, text string) string {
	k.t.Helper()
	path := filepath.Join(k.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
	return path
}

// create creates an Endpoints.
func (k *kubectl) create(name, ip string, labels ...string) {
	k.t.Helper()
	k.run("create", "-f", k.manifest(name, ip, labels...)).ok("endpoints/" + name + " created")
}

// background is a kubectl that is under way.
type background struct {
	*result
	out  *output
	done chan struct{}
}

// start starts kubectl, which is killed when the test ends if it runs on until then.
func (k *kubectl) start(args ...string) *background {
	k.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out := &output{}
	b := &background{result: &result{k: k, command: "kubectl " + strings.Join(args, " ")}, out: out, done: make(chan struct{})}
	cmd := k.command(ctx, "", args...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	go func() {
		defer close(b.done)
		_ = cmd.Wait() // the code says it all
		b.code, b.stdout, b.stderr = cmd.ProcessState.ExitCode(), out.String(), withoutRaceNote(stderr.String())
	}()
	k.t.Cleanup(func() { cancel(); <-b.done })
	return b
}

// printed waits until kubectl has printed the text.
func (b *background) printed(text string) {
	b.k.t.Helper()
	ctx, cancel := context.WithTimeout(b.k.t.Context(), patience)
	defer cancel()
	for {
		more := b.out.more()
		got := b.plain(b.out.String())
		if strings.Contains(got, plain(text)) {
			return
		}
		select {
		case <-more:
		case <-b.done:
			b.k.t.Fatalf("%s ended and printed %q and %q, not %q", b.command, got, b.stderr, text)
		case <-ctx.Done():
			b.k.t.Fatalf("%s printed %q, not %q", b.command, got, text)
		}
	}
}

// wait waits until kubectl ends by itself.
func (b *background) wait() *result {
	b.k.t.Helper()
	ctx, cancel := context.WithTimeout(b.k.t.Context(), patience)
	defer cancel()
	select {
	case <-b.done:
	case <-ctx.Done():
		b.k.t.Fatalf("%s does not end; it printed %q", b.command, b.out.String())
	}
	return b.result
}
