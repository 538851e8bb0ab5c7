package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// A report takes the place of an old one once it is complete. Without a new one, the old one
// stays, and nothing else is left.
func TestOldReportStaysUntilThereIsANewOne(t *testing.T) {
	dir := t.TempDir()
	old, link := filepath.Join(dir, "run.json"), filepath.Join(dir, "link.json")
	write(t, old, "old")
	if err := os.Symlink("run.json", link); err != nil {
		t.Fatal(err)
	}
	f := newFakeAPI(t)
	var meanwhile atomic.Value
	f.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		if isLoad(r) {
			data, err := os.ReadFile(old)
			if err != nil {
				t.Error(err)
			}
			meanwhile.Store(string(data))
		}
		return false
	}
	flags := []string{"--rate=50", "--duration=200ms", "--mix=get=1", "--output=json=" + link, "--output=html=/dev/null"}
	if r := runTool(t, f, flags...); r.status != statusOK || meanwhile.Load() != "old" {
		t.Fatalf("status %d, during the run the report was %q: %s", r.status, meanwhile.Load(), r.stderr)
	}
	report := read(t, old)
	if !strings.Contains(report, `"tool": "berth-loadtest/`) {
		t.Errorf("the report is %q", report)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link has become %v, %v", info, err)
	}
	if info, err := os.Stat(old); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the report has the mode %v, %v, not that of the old one", info.Mode(), err)
	}
	if info, err := os.Stat("/dev/null"); err != nil || info.Mode().IsRegular() {
		t.Errorf("/dev/null has become %v, %v", info, err)
	}

	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			writeStatus(w, http.StatusForbidden, "Forbidden", "no")
		}
		return r.Method == http.MethodPost
	}
	if r := runTool(t, f, flags...); r.status != statusFailed || read(t, old) != report {
		t.Errorf("status %d, and the report has become %q", r.status, read(t, old))
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("there are %v, %v", entries, err)
	}
}

// What cannot be deleted is named, with a command that deletes it.
func TestRunSaysWhatIsLeft(t *testing.T) {
	f := newFakeAPI(t, "loadtest-2")
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodDelete {
			return false
		}
		writeStatus(w, http.StatusForbidden, "Forbidden", "no deleting here")
		return true
	}
	r := runTool(t, f, "--token=secret", "--namespaces=2", "--rate=50", "--duration=100ms", "--mix=get=1")
	if r.status != statusOK || !strings.Contains(r.stderr, "no deleting here") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
	kubectl := `left behind; delete it with: kubectl --server=` + f.URL + " --certificate-authority="
	var commands []string
	for line := range strings.Lines(r.stderr) {
		if rest, found := strings.CutPrefix(line, kubectl); found {
			_, command, _ := strings.Cut(rest, " ")
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	run := f.namespaces["loadtest-1"]["berth-loadtest/run"]
	want := []string{
		`--token="$TOKEN" delete endpoints -n loadtest-2 -l berth-loadtest/run=` + run,
		`--token="$TOKEN" delete namespaces -l berth-loadtest/run=` + run,
	}
	if run == "" || strings.Join(commands, "\n") != strings.Join(want, "\n") {
		t.Errorf("the commands are %q, want %q:\n%s", commands, want, r.stderr)
	}
}

// A namespace whose creation had no answer is deleted if it was created all the same.
func TestRunDeletesNamespaceOfUnknownCreation(t *testing.T) {
	f := newFakeAPI(t)
	f.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && r.URL.Path == "/api/v1/namespaces" {
			f.serveNamespace(discarded{}, r, nil)
			panic(http.ErrAbortHandler)
		}
		return false
	}
	r := runTool(t, f)
	if r.status != statusFailed || len(f.deleted) != 1 || len(f.namespaces) > 0 {
		t.Errorf("status %d, deleted %v, left %v: %s", r.status, f.deleted, f.namespaces, r.stderr)
	}
}

type discarded struct{}

func (discarded) Header() http.Header         { return http.Header{} }
func (discarded) Write(p []byte) (int, error) { return len(p), nil }
func (discarded) WriteHeader(int)             {}

// startTool starts the tool as a process of its own, which runs for an hour, and waits until
// it sends load.
func startTool(t *testing.T, f *fakeAPI, output string) (cmd *exec.Cmd, stderr *strings.Builder) {
	t.Helper()
	loading, loadingNow := context.WithTimeout(t.Context(), patience)
	var seen atomic.Bool
	answer := f.answer
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if isLoad(r) && !seen.Swap(true) {
			loadingNow()
		}
		return answer != nil && answer(w, r)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stderr = &strings.Builder{}
	cmd = exec.CommandContext(t.Context(), exe, "--server="+f.URL, "--ca-file="+f.caFile(t), "--objects=5",
		"--duration=1h", "--rate=50", "--mix=get=1", "--output=json="+output)
	cmd.Env = append(os.Environ(), runMain+"=1")
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended if the test is good
	<-loading.Done()
	if !seen.Load() {
		t.Fatal("there is no load")
	}
	return cmd, stderr
}

func signalTool(t *testing.T, cmd *exec.Cmd, s os.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Either signal ends the run early, and nothing is left.
func TestSignalEndsRun(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			f := newFakeAPI(t)
			output := filepath.Join(t.TempDir(), "run.json")
			cmd, stderr := startTool(t, f, output)
			signalTool(t, cmd, s)
			if err := cmd.Wait(); err != nil || len(f.namespaces) > 0 {
				t.Errorf("%v, namespaces %v: %s", err, f.namespaces, stderr)
			}
			if !strings.Contains(read(t, output), `"interrupted": true`) {
				t.Error("the report does not say that the run was interrupted")
			}
		})
	}
}

// A second signal ends the process although the server does not answer; it says what is left.
func TestSecondSignalEndsProcess(t *testing.T) {
	f := newFakeAPI(t)
	deleting := make(chan struct{})
	var once atomic.Bool
	f.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodDelete {
			if !once.Swap(true) {
				close(deleting)
			}
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
		return false
	}
	dir := t.TempDir()
	cmd, stderr := startTool(t, f, filepath.Join(dir, "run.json"))
	signalTool(t, cmd, os.Interrupt)
	<-deleting
	signalTool(t, cmd, os.Interrupt)
	err := cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != statusAborted {
		t.Errorf("%v, status %d, want %d: %s", err, code, statusAborted, stderr)
	}
	want := "delete namespaces -l berth-loadtest/run=" + f.namespaces["loadtest"]["berth-loadtest/run"] + "\n"
	if !strings.HasSuffix(stderr.String(), want) {
		t.Errorf("the last line of\n%s\nis not %s", stderr, want)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("there are %v, %v", entries, err)
	}
}
