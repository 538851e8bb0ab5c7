package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/test/harness"
)

// snapshotCommand runs apiserver snapshot with args, and returns what it prints.
func snapshotCommand(args ...string) (stdout string, err error) {
	var out bytes.Buffer
	cmd := newCommand(nil, &out, &out)
	cmd.SetArgs(append([]string{"snapshot"}, args...))
	err = cmd.ExecuteContext(context.Background())
	return out.String(), err
}

func mustSnapshot(t *testing.T, args ...string) string {
	t.Helper()
	out, err := snapshotCommand(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// adminOf returns a function that sends requests of the administrator to a server.
func adminOf(t *testing.T, s *runningServer) func(method, path, body string) (int, string) {
	t.Helper()
	client, token := caller(t, s.DataDir.PKI().CACert()), strings.TrimSpace(harness.ReadFile(t, s.DataDir.Token()))
	return func(method, path, body string) (int, string) {
		return call(t, client, method, s.url+path, token, body)
	}
}

// versions is what became of one object: the answer to each acknowledged write, "" for a
// deletion.
type versions []string

// writers create, update and delete objects, each its own.
type writers struct {
	mu    sync.Mutex
	acked map[string]versions
	more  chan struct{} // closed and replaced at each acknowledged write
	stop  chan struct{}
	all   sync.WaitGroup
}

func (w *writers) run(send func(method, path, body string) (int, string), id int) error {
	for round := 0; ; round++ {
		name := fmt.Sprintf("writer-%d-%d", id, round%7)
		path := endpointsPath + "/" + name
		body := func(step string) string {
			return fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"step":%q,"round":"%d"}},"subsets":[{"addresses":[{"ip":"10.0.0.%d"}],"ports":[{"port":80}]}]}`, name, step, round, round%250+1)
		}
		for _, step := range []struct {
			method, path, body string
			skip               bool
		}{
			{method: "DELETE", path: path, skip: round < 7 || round/7%2 == 0},
			{method: "POST", path: endpointsPath, body: body("created"), skip: round >= 7 && round/7%2 == 0},
			{method: "PUT", path: path, body: body("updated")},
		} {
			select {
			case <-w.stop:
				return nil
			default:
			}
			if step.skip {
				continue
			}
			code, answer := send(step.method, step.path, step.body)
			if code != http.StatusOK && code != http.StatusCreated {
				return fmt.Errorf("%s %s: %d: %s", step.method, step.path, code, answer)
			}
			if step.method == "DELETE" {
				answer = ""
			}
			w.mu.Lock()
			w.acked[name] = append(w.acked[name], answer)
			close(w.more)
			w.more = make(chan struct{})
			w.mu.Unlock()
		}
	}
}

// await waits for n more acknowledged writes.
func (w *writers) await(t *testing.T, n int) {
	t.Helper()
	for range n {
		w.mu.Lock()
		more := w.more
		w.mu.Unlock()
		select {
		case <-more:
		case <-time.After(patience):
			t.Fatal("nothing was written")
		}
	}
}

// counts returns how many writes of each object are acknowledged.
func (w *writers) counts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[string]int{}
	for name, v := range w.acked {
		counts[name] = len(v)
	}
	return counts
}

func metadataOf(t *testing.T, object string) (meta struct {
	Name, ResourceVersion, Continue string
}) {
	t.Helper()
	in := struct{ Metadata any }{&meta}
	if err := json.Unmarshal([]byte(object), &in); err != nil {
		t.Fatalf("%v in %s", err, object)
	}
	return meta
}

// A snapshot has every write that was acknowledged before it began, and what is restored goes
// on from there for clients that have seen more.
func TestSnapshotUnderLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "backup.db")
	s := runServer(t, nil)
	send := adminOf(t, s)
	w := &writers{acked: map[string]versions{}, more: make(chan struct{}), stop: make(chan struct{})}
	for id := range 4 {
		w.all.Go(func() {
			if err := w.run(send, id); err != nil {
				t.Error(err)
			}
		})
	}
	w.await(t, 200)
	_, page := send("GET", endpointsPath+"?limit=2", "")
	before := w.counts()
	mustSnapshot(t, "save", file, "--data-dir="+string(s.DataDir))
	w.await(t, 50)
	close(w.stop)
	w.all.Wait()
	_, last := send("GET", endpointsPath, "")
	s.stop()
	<-s.ended

	if err := os.Rename(s.DataDir.Etcd(), s.DataDir.Etcd()+".old"); err != nil {
		t.Fatal(err)
	}
	out := mustSnapshot(t, "restore", file, "--data-dir="+string(s.DataDir))
	if !strings.Contains(out, "Those in "+string(s.DataDir)+" stay.") {
		t.Errorf("it printed %s", out)
	}
	s = runServer(t, func(c *config) { c.DataDir = s.DataDir })
	send = adminOf(t, s)
	for name, acked := range w.acked {
		code, got := send("GET", endpointsPath+"/"+name, "")
		if code == http.StatusNotFound {
			got = ""
		} else if code != http.StatusOK {
			t.Fatalf("%s: %d: %s", name, code, got)
		}
		found := before[name] == 0 && got == ""
		for _, version := range acked[max(0, before[name]-1):] {
			found = found || version == got
		}
		if !found {
			t.Errorf("%s: the snapshot began after %d writes, and this is none since then: %s", name, before[name], got)
		}
	}
	expectExpired(t, send, metadataOf(t, page).Continue, metadataOf(t, last).ResourceVersion)
}

// expectExpired has a client with a continue token and a version of before a restore list again.
func expectExpired(t *testing.T, send func(method, path, body string) (int, string), token, version string) {
	t.Helper()
	for _, query := range []string{
		"limit=2&continue=" + token,
		"resourceVersionMatch=Exact&resourceVersion=" + version,
	} {
		if code, answer := send("GET", endpointsPath+"?"+query, ""); code != http.StatusGone {
			t.Errorf("%s: got %d, want 410: %s", query, code, answer)
		}
	}
	_, watch := send("GET", endpointsPath+"?watch=1&timeoutSeconds=5&resourceVersion="+version, "")
	if !strings.Contains(watch, `"code":410`) {
		t.Errorf("a watch from %s: got %s, want 410", version, watch)
	}
	// It lists, and watches from there.
	_, list := send("GET", endpointsPath, "")
	now := metadataOf(t, list).ResourceVersion
	older, _ := strconv.ParseInt(version, 10, 64)
	if newer, err := strconv.ParseInt(now, 10, 64); err != nil || newer <= older {
		t.Errorf("the version is %s after %s", now, version)
	}
	if code, answer := send("POST", endpointsPath, `{"metadata":{"name":"after-the-restore"}}`); code != http.StatusCreated {
		t.Fatalf("got %d: %s", code, answer)
	}
	_, watch = send("GET", endpointsPath+"?watch=1&timeoutSeconds=1&resourceVersion="+now, "")
	if !strings.Contains(watch, "ADDED") || !strings.Contains(watch, "after-the-restore") {
		t.Errorf("a watch from the list: got %s", watch)
	}
}

// saved returns a snapshot of a server with one object.
func saved(t *testing.T) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "backup.db")
	t.Run("save", func(t *testing.T) {
		s := runServer(t, nil)
		adminOf(t, s)("POST", endpointsPath, exampleBody)
		out := mustSnapshot(t, "save", file, "--data-dir="+string(s.DataDir))
		if status := mustSnapshot(t, "status", file); "saved "+status != out {
			t.Errorf("save printed %q, and status %q", out, status)
		}
	})
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	return file
}

func TestSnapshotRefusals(t *testing.T) {
	file := saved(t)
	data := []byte(harness.ReadFile(t, file))
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		harness.WriteFile(t, path, string(data))
		return path
	}
	flipped := bytes.Clone(data)
	flipped[len(data)/2] ^= 1
	garbage := bytes.Repeat([]byte("no database "), 512)
	sum := sha256.Sum256(garbage)
	for name, test := range map[string]struct{ path, want string }{
		"no file":               {filepath.Join(dir, "none"), "no such file"},
		"a directory":           {dir, "it is not a file"},
		"an empty file":         {write("empty", nil), "no checksum at its end"},
		"no checksum":           {write("bare", data[:len(data)-sha256.Size]), "no checksum at its end"},
		"cut short":             {write("cut", data[:len(data)-4096]), "its checksum is wrong"},
		"a changed bit":         {write("flipped", flipped), "its checksum is wrong"},
		"something else":        {write("garbage", append(garbage, sum[:]...)), "is not the database of an etcd"},
		"only a checksum":       {write("sum", sum[:]), "its checksum is wrong"},
		"a checksum of no data": {write("nothing", sha256.New().Sum(nil)), "is not the database of an etcd"},
	} {
		t.Run(name, func(t *testing.T) {
			fresh := filepath.Join(t.TempDir(), "data")
			for _, args := range [][]string{{"status", test.path}, {"restore", test.path, "--data-dir=" + fresh}} {
				if out, err := snapshotCommand(args...); err == nil || !strings.Contains(err.Error(), test.want) || out != "" {
					t.Errorf("%s: got %q and %v, want %q", args[0], out, err, test.want)
				}
			}
			if _, err := os.Stat(fresh); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a data directory was made (%v)", err)
			}
		})
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"save over a file":        {[]string{"save", file, "--data-dir=" + dir}, "there is no database in "},
		"save without a database": {[]string{"save", file + "2", "--data-dir=" + dir}, "there is no database in "},
		"save from a silent etcd": {[]string{"save", file + "2", "--etcd-servers=http://127.0.0.1:1"}, "--etcd-servers: etcd at http://127.0.0.1:1: no answer within 5s"},
		"save without a file":     {[]string{"save"}, "want one, the FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := snapshotCommand(test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if harness.ReadFile(t, file) != string(data) {
		t.Error("the file has changed")
	}
}

func TestSnapshotLeavesWhatIsThere(t *testing.T) {
	file := saved(t)
	s := runServer(t, func(c *config) {
		// What a crash leaves is replaced.
		if err := os.MkdirAll(string(c.DataDir), 0o700); err != nil {
			t.Fatal(err)
		}
		left, err := net.Listen("unix", c.DataDir.EtcdSocket())
		if err != nil {
			t.Fatal(err)
		}
		left.(*net.UnixListener).SetUnlinkOnClose(false)
		left.Close()
	})
	dir := "--data-dir=" + string(s.DataDir)
	if info, err := os.Stat(s.DataDir.EtcdSocket()); err != nil || info.Mode() != 0o600|fs.ModeSocket {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"save over a file":      {[]string{"save", file, dir}, file + " exists already and is not replaced"},
		"restore while it runs": {[]string{"restore", file, dir}, "is in use by another process"},
	} {
		if _, err := snapshotCommand(test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	s.stop()
	<-s.ended
	if _, err := os.Stat(s.DataDir.EtcdSocket()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	want := "nothing was restored: " + s.DataDir.Etcd() + " holds a database already"
	if _, err := snapshotCommand("restore", file, dir); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	// A server that has stopped can be saved, too, and runs afterwards. Files whose names are like
	// those that an unfinished snapshot has may be anybody's, such as another call's.
	others := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".stopped.tmpl")
	harness.WriteFile(t, others, "mine")
	mustSnapshot(t, "save", file+".stopped", dir)
	if got := harness.ReadFile(t, others); got != "mine" {
		t.Errorf("%s holds %q", others, got)
	}
	runServer(t, func(c *config) { c.DataDir = s.DataDir })
}

// A path that is too long for a socket takes away the snapshots, and nothing else.
func TestSnapshotOfADeepDataDirectory(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep", 30), "data")
	s := runServer(t, func(c *config) { c.DataDir = datadir.Dir(deep) })
	s.stderr.Await(t, `use a shorter --data-dir, such as a relative one",.*"message":"snapshots cannot be saved while the server runs"`, s.ended)
	_, err := snapshotCommand("save", filepath.Join(t.TempDir(), "backup.db"), "--data-dir="+deep)
	if err == nil || !strings.Contains(err.Error(), "is in use by another process; stop it first; the server there cannot be asked for a snapshot: ") {
		t.Errorf("got %v", err)
	}
}

// A limit on the size of files stands for a disk that is full.
func TestSnapshotOnAFullDisk(t *testing.T) {
	s := runServer(t, nil)
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", `ulimit -f 8; exec "$0" "$@"`, executable, "snapshot", "save", filepath.Join(out, "backup.db"), "--data-dir="+string(s.DataDir))
	cmd.Env = append(os.Environ(), beTheServer+"=1")
	printed, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(printed), "apiserver: nothing was saved: ") || !strings.Contains(string(printed), "file too large") {
		t.Errorf("got %v: %s", err, printed)
	}
	if entries, err := os.ReadDir(out); err != nil || len(entries) > 0 {
		t.Errorf("%v is left (%v)", entries, err)
	}
}
