package embedded

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

func touch(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func fileNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestPurgeKeepsTheNewest(t *testing.T) {
	p := purger{walDir: t.TempDir(), snapDir: t.TempDir()}
	touch(t, p.walDir, "0.tmp", "1.wal", "2.wal", "3.wal", "4.wal", "5.wal")
	touch(t, p.snapDir, "1.snap", "2.snap", "3.snap", "4.snap.db", "5.snap.db", "6.snap.db", "db")
	// As etcd does with a log that a start would need.
	lock, err := fileutil.TryLockFile(filepath.Join(p.walDir, "3.wal"), os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := p.purge(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"0.tmp", "3.wal", "4.wal", "5.wal"}, fileNames(t, p.walDir)); diff != "" {
		t.Errorf("logs, the third one in use (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"2.snap", "3.snap", "5.snap.db", "6.snap.db", "db"}, fileNames(t, p.snapDir)); diff != "" {
		t.Errorf("snapshots (-want +got)\n%s", diff)
	}
}

// A run that fails is logged, and the next one makes up for it.
func TestPurgeGoesOnAfterAFailure(t *testing.T) {
	var mu sync.Mutex
	var lines strings.Builder
	p := purger{
		walDir: filepath.Join(t.TempDir(), "wal"), snapDir: t.TempDir(),
		log: zerolog.New(writerFunc(func(line []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return lines.Write(line)
		})),
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.run(ctx, time.Millisecond) })
	defer running.Wait()
	defer cancel()
	eventually(t, "the failure in the log", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(lines.String(), "no such file or directory")
	})
	if err := os.Mkdir(p.walDir, 0o700); err != nil {
		t.Fatal(err)
	}
	touch(t, p.walDir, "1.wal", "2.wal", "3.wal")
	eventually(t, "the removal", func() bool { return len(fileNames(t, p.walDir)) == keptFiles })
}

// Etcd survives a run that has no file descriptor left: its own loop would have called that
// fatal.
func TestPurgeWithoutFileDescriptors(t *testing.T) {
	e := start(t, Config{DataDir: t.TempDir()})
	if e.server.Cfg.MaxSnapFiles != 0 || e.server.Cfg.MaxWALFiles != 0 {
		t.Error("etcd purges, too")
	}
	p := purger{walDir: e.server.Cfg.WALDir(), snapDir: e.server.Cfg.SnapDir()}
	withoutFileDescriptors(t, func() {
		if err := p.purge(); err == nil {
			t.Error("a run without file descriptors succeeded")
		}
	})
	if err := p.purge(); err != nil {
		t.Errorf("a run afterwards: %v", err)
	}
	if _, err := e.Client().Put(t.Context(), "/a", "1"); err != nil {
		t.Error(err)
	}
	select {
	case err := <-e.Err():
		t.Errorf("etcd stopped: %v", err)
	default:
	}
}

func TestStartPurges(t *testing.T) {
	dir := t.TempDir()
	e := start(t, Config{DataDir: dir})
	snapDir := e.server.Cfg.SnapDir()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	touch(t, snapDir, "0000000000000001.snap.db", "0000000000000002.snap.db", "0000000000000003.snap.db")
	start(t, Config{DataDir: dir})
	eventually(t, "the removal of the oldest snapshot", func() bool {
		found, err := filepath.Glob(filepath.Join(snapDir, "*.snap.db"))
		return err == nil && len(found) == keptFiles
	})
}

// withoutFileDescriptors calls f while this process cannot open any file.
func withoutFileDescriptors(t *testing.T, f func()) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}
