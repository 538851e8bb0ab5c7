package main

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-project/berth/cmd/apiserver/internal/commands"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/test/harness"
)

// process is a server in a process of its own.
type process struct {
	dir    datadir.Dir
	url    string
	cmd    *exec.Cmd
	stdout *harness.Output
	stderr *harness.Output
	ended  chan struct{} // closed when the process has ended, with status
	status int           // -1: by a signal
}

// startProcess starts the server on a data directory. It is killed with the test.
func startProcess(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	return startCommand(t, dir, selfCommand(t, append([]string{"--data-dir=" + dir, "--secure-port=0"}, args...)...))
}

// selfCommand returns a command line of the binary under test, for startCommand.
func selfCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(executable, args...)
}

func startCommand(t *testing.T, dir string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{dir: datadir.Dir(dir), stdout: new(harness.Output), stderr: new(harness.Output), cmd: cmd, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), beTheServer+"=1")
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // the status tells all that counts
		p.status = p.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
	})
	return p
}

func (p *process) awaitReady(t *testing.T) {
	t.Helper()
	p.url = p.stdout.Await(t, `is ready at (https://\S+)`, p.ended)
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (p *process) token(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(harness.ReadFile(t, p.dir.Token()))
}

func TestProcessKeepsWhatItConfirmed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	// Each round leaves a database that the next one must recover.
	for round := range 3 {
		p := startProcess(t, dir)
		p.awaitReady(t)
		client := caller(t, p.dir.PKI().CACert())
		body := strings.ReplaceAll(exampleBody, "test-endpoint", fmt.Sprintf("round-%d", round))
		code, answer := call(t, client, "POST", p.url+endpointsPath, p.token(t), body)
		p.signal(t, syscall.SIGKILL)
		if code != http.StatusCreated {
			t.Fatalf("round %d: got %d: %s", round, code, answer)
		}
		<-p.ended
	}
	ca, token := harness.ReadFile(t, datadir.Dir(dir).PKI().CACert()), harness.ReadFile(t, datadir.Dir(dir).Token())
	p := startProcess(t, dir)
	p.awaitReady(t)
	client := caller(t, p.dir.PKI().CACert())
	for round := range 3 {
		if code, answer := call(t, client, "GET", p.url+fmt.Sprintf("%s/round-%d", endpointsPath, round), p.token(t), ""); code != http.StatusOK {
			t.Errorf("the object of round %d: got %d: %s", round, code, answer)
		}
	}
	if harness.ReadFile(t, p.dir.PKI().CACert()) != ca || harness.ReadFile(t, p.dir.Token()) != token {
		t.Error("the CA or the token is another one than before")
	}
}

func TestProcessHoldsItsDataDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := startProcess(t, dir)
	first.awaitReady(t)
	kubeconfig := harness.ReadFile(t, first.dir.Kubeconfig())
	// The port is taken, too, which is not what the user has to know.
	second := startProcess(t, dir, "--secure-port="+first.url[strings.LastIndexByte(first.url, ':')+1:])
	<-second.ended
	if want := "apiserver: data directory " + dir + " is in use by another process; stop it first\n"; second.status != 1 || second.stderr.String() != want {
		t.Errorf("status %d, stderr %q, want 1 and %q", second.status, second.stderr, want)
	}
	if harness.ReadFile(t, first.dir.Kubeconfig()) != kubeconfig {
		t.Error("the kubeconfig of the first one was replaced")
	}
	if code, answer := call(t, caller(t, first.dir.PKI().CACert()), "POST", first.url+endpointsPath, first.token(t), exampleBody); code != http.StatusCreated {
		t.Errorf("the first one afterwards: got %d: %s", code, answer)
	}
	if err := commands.CheckReady(t.Context(), first.dir, ""); err != nil {
		t.Errorf("apiserver ready: %v", err)
	}
}

func TestProcessRefusesADamagedDatabase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := startProcess(t, dir)
	p.awaitReady(t)
	p.signal(t, syscall.SIGTERM)
	<-p.ended
	logs, err := filepath.Glob(filepath.Join(p.dir.Etcd(), "member", "wal", "*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("there is no log to damage: %v", err)
	}
	harness.WriteFile(t, logs[0], strings.Repeat("damaged", 1000))
	again := startProcess(t, dir)
	<-again.ended
	lines := strings.Split(strings.TrimSpace(again.stderr.String()), "\n")
	last := lines[len(lines)-1]
	if want := "apiserver: cannot open the database in data directory " + p.dir.Etcd(); again.status != 1 || !strings.HasPrefix(last, want) {
		t.Errorf("status %d, stderr ends with %q, want 1 and %q", again.status, last, want)
	}
}

// A database that cannot be written ends the process, though calls of its etcd never return.
func TestProcessEndsIfTheDatabaseCannotBeWritten(t *testing.T) {
	p := startProcess(t, filepath.Join(t.TempDir(), "data"), "--log-format=json")
	p.awaitReady(t)
	database, err := os.Stat(filepath.Join(p.dir.Etcd(), "member", "snap", "db"))
	if err != nil {
		t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: uint64(database.Size()), Max: uint64(database.Size())}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	client, token := caller(t, p.dir.PKI().CACert()), p.token(t)
	var writers sync.WaitGroup
	for writer := range 4 {
		writers.Go(func() {
			for i := 0; fill(t, client, p.url+endpointsPath, token, fmt.Sprintf("e%d-%d", writer, i)) == nil; i++ {
			}
		})
	}
	writers.Wait()
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatal("it did not end")
	}
	// Requests that were in progress may still have lines behind it.
	cause := slices.ContainsFunc(strings.Split(p.stderr.String(), "\n"), func(line string) bool {
		return strings.HasPrefix(line, "apiserver: etcd: ") && strings.Contains(line, "file too large")
	})
	if p.status != 1 || !cause {
		t.Errorf("status %d, want 1, and the cause on stderr:\n%s", p.status, p.stderr.String())
	}
}

// fill creates an object of 200 KB that does not compress. An error says that the server ends.
func fill(t *testing.T, client *http.Client, url, token, name string) error {
	text := make([]byte, 100_000)
	_, _ = rand.Read(text) // never fails
	body := fmt.Sprintf(`{"metadata":{"name":"%s","annotations":{"a":"%x"}}}`, name, text)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func TestProcessEndsWhenAsked(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(s.String(), func(t *testing.T) {
			p := startProcess(t, filepath.Join(t.TempDir(), "data"), "--log-format=json")
			p.awaitReady(t)
			p.signal(t, s)
			<-p.ended
			if p.status != 0 {
				t.Errorf("status %d, want 0:\n%s", p.status, p.stderr)
			}
		})
	}
}

// slowRequest has sent all of a POST but the end of its body.
func slowRequest(t *testing.T, p *process) (conn *tls.Conn, rest string) {
	t.Helper()
	restOf := len(exampleBody) / 2
	opened, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", strings.TrimPrefix(p.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	fmt.Fprintf(opened, "POST %s HTTP/1.1\r\nHost: berth\r\nX-Auth-Token: %s\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
		endpointsPath, p.token(t), len(exampleBody))
	// That the server asks for the body shows that the handler is at work.
	line, err := bufio.NewReader(opened).ReadString('\n')
	if err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q, %v, want 100 Continue", line, err)
	}
	if _, err := opened.Write([]byte(exampleBody[:restOf])); err != nil {
		t.Fatal(err)
	}
	return opened.(*tls.Conn), exampleBody[restOf:]
}

func TestProcessFinishesWhatIsUnderWay(t *testing.T) {
	p := startProcess(t, filepath.Join(t.TempDir(), "data"))
	p.awaitReady(t)
	conn, rest := slowRequest(t, p)
	p.signal(t, syscall.SIGTERM)
	p.stderr.Await(t, `"stopping"`, p.ended)
	// It accepts nothing more.
	eventually(t, func() error {
		if commands.CheckReady(t.Context(), p.dir, "") == nil {
			return errors.New("it still accepts connections")
		}
		return nil
	})
	p.expectEnd(t, conn, rest)
}

// expectEnd sends the rest of a slow request, which must succeed, and then the process ends.
func (p *process) expectEnd(t *testing.T, conn *tls.Conn, rest string) {
	t.Helper()
	if _, err := conn.Write([]byte(rest)); err != nil {
		t.Fatal(err)
	}
	answer := bufio.NewReader(conn)
	resp, err := http.ReadResponse(answer, nil)
	if err == nil && resp.StatusCode == http.StatusContinue {
		resp, err = http.ReadResponse(answer, nil)
	}
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Errorf("got %v, %v, want 201", resp, err)
	}
	if resp != nil {
		resp.Body.Close()
	}
	<-p.ended
	if p.status != 0 {
		t.Errorf("status %d, want 0:\n%s", p.status, p.stderr)
	}
}

func TestProcessEndsAtOnceAtTheSecondSignal(t *testing.T) {
	p := startProcess(t, filepath.Join(t.TempDir(), "data"))
	p.awaitReady(t)
	slowRequest(t, p)
	p.signal(t, syscall.SIGTERM)
	p.stderr.Await(t, `"stopping"`, p.ended)
	p.signal(t, os.Interrupt)
	<-p.ended
	if p.status != 1 {
		t.Errorf("status %d, want 1", p.status)
	}
}
