package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/berth-project/berth/test/harness"
)

// patience is far more than anything here takes on a machine under load.
const patience = time.Minute

// process is a program that is killed, stopped and started again.
type process struct {
	name, binary, dir string
	args              func() []string
	started           func(pid int) // nil, or called after each start

	mayEnd bool // by itself, of a fault

	clock string // the file that has by how much its clock is ahead; empty before the first start

	cmd   *exec.Cmd
	ended chan struct{}
}

// start starts the program, in its directory. It may have ended before.
func (p *process) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(p.dir, p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the process has its own
	cmd, ended := exec.Command(p.binary, p.args()...), make(chan struct{})
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	if p.clock == "" {
		if err := p.makeClock(); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Env = append(os.Environ(), "FAULTS_CLOCK="+p.clock)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.cmd, p.ended = cmd, ended
	if p.started != nil {
		p.started(cmd.Process.Pid)
	}
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
}

// signal sends a signal; one that has ended hears nothing.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends the process at once, even one that is stopped.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// revive starts the process again if a fault has ended it.
func (p *process) revive(t *testing.T) {
	t.Helper()
	if !p.mayEnd {
		return
	}
	select {
	case <-p.ended:
		p.start(t)
	default:
	}
}

// canTrace reports whether failSync works here.
func canTrace() bool {
	_, err := exec.LookPath("strace")
	return err == nil && os.Geteuid() == 0
}

// failSync makes every fsync of a process fail, until heal ends that. The process may end by it.
func failSync(t *testing.T, p *process) (heal func()) {
	t.Helper()
	var output harness.Output
	cmd := exec.Command("strace", "-f", "-p", strconv.Itoa(p.cmd.Process.Pid), "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO", "-o", os.DevNull)
	cmd.Stderr = &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // by a signal, or with the process
	}()
	output.Await(t, "attached", ended)
	p.mayEnd = true
	return func() {
		_ = cmd.Process.Kill() // at a signal that it handles it waits for a process that is ending, without an end
		<-ended
	}
}

// logged returns the end of what the process has logged.
func (p *process) logged(t *testing.T) string {
	log := harness.ReadFile(t, filepath.Join(p.dir, p.name+".log"))
	return log[max(0, len(log)-8<<10):]
}

// end kills the process when the test ends, and shows its log if it has failed.
func (p *process) end(t *testing.T) {
	t.Cleanup(func() {
		if p.cmd == nil {
			return
		}
		p.kill()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", p.name, p.logged(t))
		}
	})
}
