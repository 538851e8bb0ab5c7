package clients

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 60 * time.Second
	// stopTimeout is a little more than what the server gives requests under way.
	stopTimeout = 40 * time.Second
	// endAtOnce is in the environment of every child: with the race detector each of them
	// would otherwise sleep for a second at its end.
	endAtOnce = "GORACE=atexit_sleep_ms=0"
)

// server is the server's process, which can be ended and started again on the same data
// and the same port. Its methods are for one goroutine.
type server struct {
	dataDir string
	flags   []string
	port    string // "0" until the first start
	log     output // of all its processes together

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
	result error         // of the process; valid once exited is closed
}

// newServer returns a server that is not started.
func newServer(dataDir string, flags ...string) *server {
	return &server{dataDir: dataDir, flags: flags, port: "0"}
}

// startServer starts a server for one test, with more flags if need be.
func startServer(t *testing.T, flags ...string) *server {
	t.Helper()
	s := newServer(filepath.Join(t.TempDir(), "data"), flags...)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.log.String())
		}
	})
	return s
}

// restart ends the server by the signal and starts it again.
func (s *server) restart(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := s.end(signal); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

func (s *server) kubeconfig() string { return filepath.Join(s.dataDir, "kubeconfig") }

var readyLine = regexp.MustCompile(`ready at (https://\S+)\n`)

// start starts the process and waits until it is ready.
func (s *server) start() error {
	stdout := &output{}
	args := append([]string{"--data-dir=" + s.dataDir, "--secure-port=" + s.port}, s.flags...)
	s.cmd = exec.Command(binary, args...) // end ends it, by a signal that lets it finish
	s.cmd.Stdout, s.cmd.Stderr = stdout, &s.log
	s.cmd.Env = append(os.Environ(), endAtOnce)
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		defer close(exited)
		s.result = cmd.Wait()
	}(s.cmd, s.exited)
	deadline := time.After(startTimeout)
	for {
		more := stdout.more()
		if match := readyLine.FindStringSubmatch(stdout.String()); match != nil {
			address, err := url.Parse(match[1])
			if err != nil {
				return err
			}
			s.port = address.Port()
			return nil
		}
		select {
		case <-more:
		case <-s.exited:
			return fmt.Errorf("the server ended before it was ready: %w\n%s", s.result, s.log.String())
		case <-deadline:
			return fmt.Errorf("the server is not ready after %v\n%s", startTimeout, s.log.String())
		}
	}
}

// stop lets the server end by itself, which must succeed.
func (s *server) stop() error { return s.end(syscall.SIGTERM) }

// end sends the signal and waits for the process to end: with status 0, unless it was
// killed.
func (s *server) end(signal syscall.Signal) error {
	// An error says that it has ended already, which the result below tells better.
	_ = s.cmd.Process.Signal(signal)
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		_ = s.cmd.Process.Kill() // as above
		<-s.exited
		return fmt.Errorf("the server did not end within %v after %v", stopTimeout, signal)
	}
	var exit *exec.ExitError
	if signal == syscall.SIGKILL && errors.As(s.result, &exit) {
		return nil
	}
	if s.result != nil {
		return fmt.Errorf("the server ended with %w, want status 0", s.result)
	}
	return nil
}

// output collects what a process writes and wakes whoever waits for more of it.
type output struct {
	mu    sync.Mutex
	data  bytes.Buffer
	grown chan struct{} // closed and forgotten by the next Write; nil while nobody waits
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.grown != nil {
		close(o.grown)
		o.grown = nil
	}
	return o.data.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data.String()
}

// more returns a channel that is closed at the next Write.
func (o *output) more() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.grown == nil {
		o.grown = make(chan struct{})
	}
	return o.grown
}
