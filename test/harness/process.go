package harness

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 30 * time.Second
	// stopTimeout is a little more than what the server gives requests under way.
	stopTimeout = 40 * time.Second
)

// process is one process of a server.
type process struct {
	binary string
	flags  []string
	cmd    *exec.Cmd
	exited chan error // has the result once the process has ended
	killed bool       // by Kill, which has taken the result
}

// startProcess starts a server in a directory, and returns it with its address when it is ready.
func startProcess(t testing.TB, dir, binary string, flags []string) (p *process, url string) {
	t.Helper()
	// A server under attack logs more than the test's memory should hold.
	stderr, err := os.OpenFile(filepath.Join(dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close() // the process has its own
	var stdout Output
	cmd := exec.Command(binary, flags...) //nolint:noctx // stop ends it, and by a signal that lets it finish
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p = &process{binary: binary, flags: flags, cmd: cmd, exited: make(chan error, 1)}
	go func() { p.exited <- cmd.Wait() }()
	return p, p.waitReady(t, &stdout, dir)
}

var readyLine = regexp.MustCompile(`ready at (https://\S+)\n`)

// waitReady returns the address that the server prints when it is ready. One that does not
// become ready is killed.
func (p *process) waitReady(t testing.TB, stdout *Output, dir string) string {
	t.Helper()
	deadline := time.After(startTimeout)
	for {
		written := stdout.written()
		if match := readyLine.FindStringSubmatch(stdout.String()); match != nil {
			return match[1]
		}
		select {
		case <-written:
		case err := <-p.exited:
			t.Fatalf("the server ended before it was ready: %v\n%s", err, endOfLog(t, dir))
		case <-deadline:
			p.kill()
			t.Fatalf("the server is not ready after %v; it printed %q", startTimeout, stdout.String())
		}
	}
}

// kill ends the process at once. An error of the signal says that it has ended already.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited //nolint:errcheck // it was killed
	p.killed = true
}

func (p *process) stop(t testing.TB) {
	t.Helper()
	if p.killed {
		return
	}
	// An error says that it has ended already, which the result below tells better.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.exited:
		if err != nil {
			t.Errorf("the server ended with %v, want status 0", err)
		}
	case <-time.After(stopTimeout):
		p.kill()
		t.Errorf("the server did not end within %v after SIGTERM, and was killed", stopTimeout)
	}
}

// Kill ends the server as a crash would, without a word to its clients. Restart may follow.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.process.kill()
}

// Restart starts a server that Kill has ended again: on the same data and port, with the same
// flags. It returns when the server is ready.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	address, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	old := s.process
	next, _ := startProcess(t, s.Dir, old.binary, append([]string{"--secure-port=" + address.Port()}, old.flags[1:]...))
	*old, s.PID = *next, next.cmd.Process.Pid
}
