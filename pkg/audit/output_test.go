package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                          "opening the audit log: open " + dir + ": it is a directory",
		filepath.Join(file, "a.log"): "opening the audit log: stat " + file + "/a.log: not a directory",
	} {
		l, err := Open(Config{Policy: &Policy{}, Path: path, Metrics: prometheus.NewRegistry()})
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
		if l != nil {
			_ = l.Close(t.Context())
		}
	}
}

// TestDiskFull has each line counted that a full disk does not take, and the cause told.
func TestDiskFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	l := openLog(t, Config{Path: "/dev/full"})
	for range 10 {
		l.write(t, "/a")
	}
	eventually(t, func() bool { return l.losses(pluginLog) == 20 })
	if err := l.close(patience); err != nil {
		t.Error(err)
	}
	told := l.told.String()
	if n := strings.Count(told, "\n"); n != 2 || !strings.Contains(told, "no space left on device") || !strings.Contains(told, `"path":"/dev/full"`) {
		t.Errorf("%d messages: %s", n, told)
	}
}

// TestNobodyReads has a pipe that is full: requests go on, lines are counted, and the end of the
// process waits as long as it is told to.
func TestNobodyReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, Config{Path: path, QueueLines: 1000})
	const requests = 5000
	for i := range requests {
		l.get(fmt.Sprint("/", i))
	}
	if lost := l.losses(pluginBuffered); lost < 2*requests-1000-1000 || lost > 2*requests-1000 { // some hundreds are in the pipe
		t.Errorf("%d of %d lines are dropped", lost, 2*requests)
	}
	if err := l.close(time.Millisecond); err != nil {
		t.Errorf("the writer was not interrupted: %v", err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	// The pipe has lost what was in it with its last descriptor: all lines have to be accounted for
	// as written, which the queue does not know of, or lost.
	if lost := l.losses(pluginBuffered) + l.losses(pluginLog); lost > 2*requests || lost < 2*requests-1000 {
		t.Errorf("%d of %d lines are lost", lost, 2*requests)
	}
	if !strings.Contains(l.told.String(), "the queue is full") {
		t.Errorf("told %s", l.told)
	}
}

// TestSlowReader has everything written that a pipe's reader takes late, and in order.
func TestSlowReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := openLog(t, Config{Path: path})
	var want []string
	for i := range 2000 {
		l.get(fmt.Sprint("/", i))
		want = append(want, both(fmt.Sprint("/", i))...)
	}
	var got []string
	lines := bufio.NewScanner(reader)
	for len(got) < len(want) && lines.Scan() {
		var event auditv1.Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatal(err)
		}
		got = append(got, string(event.Stage)+" "+event.RequestURI)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
	_ = reader.Close()
}

// TestRotation has all lines in the files together, each of which ends with a whole line.
func TestRotation(t *testing.T) {
	l := openLog(t, Config{MaxSize: 1, Compress: true})
	var want []string
	for i := range 4000 { // of 350 bytes each
		path := fmt.Sprint("/", i)
		l.get(path)
		want = append(want, both(path)...)
		if i%500 == 0 {
			l.settle(t)
		}
	}
	if err := l.close(patience); err != nil {
		t.Fatal(err)
	}
	var files []string
	eventually(t, func() bool {
		var err error
		if files, err = filepath.Glob(filepath.Join(filepath.Dir(l.path), "audit-*.log*")); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, ".log.gz") {
				return false
			}
		}
		return len(files) > 1
	})
	if diff := cmp.Diff(want, read(t, append(files, l.path)...)); diff != "" {
		t.Errorf("%d files (-want +got)\n%s", len(files), diff)
	}
}

// TestMovedFile has lines written to a new file once the old one was moved, removed or replaced,
// or a signal asks for it.
func TestMovedFile(t *testing.T) {
	l := openLog(t, Config{})
	l.write(t, "/a")
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		t.Fatal(err)
	}
	l.write(t, "/b")
	if err := os.Rename(l.path, l.path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.write(t, "/c")
	if err := os.RemoveAll(filepath.Dir(l.path)); err != nil {
		t.Fatal(err)
	}
	l.write(t, "/d")
	l.Reopen()
	l.write(t, "/e")
	if diff := cmp.Diff(both("/d", "/e"), read(t, l.path)); diff != "" {
		t.Errorf("after the directory was removed (-want +got)\n%s", diff)
	}
	if dir, err := os.Stat(filepath.Dir(l.path)); err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("the directory has the mode %v, %v", dir.Mode(), err)
	}
	if lost := l.losses(pluginLog); lost != 0 {
		t.Errorf("%d lines are lost", lost)
	}
}

// TestTornLine has a line that was written in part followed by whole ones.
func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte(`{"kind":"Ev`), 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, Config{Path: path})
	l.write(t, "/a")
	if diff := cmp.Diff(append([]string{`no event: "{\"kind\":\"Ev\n"`}, both("/a")...), read(t, path)); diff != "" {
		t.Errorf("a file of before (-want +got)\n%s", diff)
	}

	torn := &tearing{room: 100}
	s := openLog(t, Config{Path: "-", Stdout: torn})
	s.write(t, "/a")
	torn.give(1 << 20)
	s.write(t, "/b")
	out := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(out, torn.bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append([]string{`no event: "{\"kind\":\"Event\",\"api"`}, both("/b")...), read(t, out)); diff != "" {
		t.Errorf("a full disk that has room again (-want +got)\n%s", diff)
	}
	if lost := s.losses(pluginLog); lost != 2 {
		t.Errorf("%d lines are counted as lost, want 2", lost)
	}
}

// tearing is a writer with room for so many bytes.
type tearing struct {
	mu   sync.Mutex
	room int
	data []byte
}

func (w *tearing) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(p), w.room)
	w.data, w.room = append(w.data, p[:n]...), w.room-n
	if n < len(p) {
		return n, errors.New("no room")
	}
	return n, nil
}

func (w *tearing) give(room int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.room = room
}

func (w *tearing) bytes() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.data)
}
