package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func start(t testing.TB, cfg Config) *Etcd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	e, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !cond() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func TestRestartKeepsDataAndRevision(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	e := start(t, Config{DataDir: dir})
	var rev int64
	for i := range 6000 { // more than a snapshot's worth, so that both it and the log are read
		resp, err := e.Client().Put(ctx, fmt.Sprintf("/k%d", i%10), fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		rev = resp.Header.Revision
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = start(t, Config{DataDir: dir})
	resp, err := e.Client().Get(ctx, "/k9")
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "5999" || resp.Kvs[0].ModRevision != rev || resp.Header.Revision != rev {
		t.Errorf("after a restart got %v, want value 5999 at revision %d", resp, rev)
	}
}

func TestSecondStartOnTheSameDirectory(t *testing.T) {
	dir := t.TempDir()
	e := start(t, Config{DataDir: dir})
	want := fmt.Sprintf("data directory %s is in use by another process; stop it first", dir)
	if _, err := Start(t.Context(), Config{DataDir: dir}); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := e.Client().Put(t.Context(), "/a", "1"); err != nil {
		t.Errorf("the first one was disturbed: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, Config{DataDir: dir})
}

func TestStartErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx  context.Context
		cfg  Config
		want string
	}{
		"no directory":       {t.Context(), Config{}, "no data directory"},
		"negative quota":     {t.Context(), Config{DataDir: t.TempDir(), QuotaBytes: -1}, "negative quota"},
		"below a file":       {t.Context(), Config{DataDir: filepath.Join(file, "x")}, "cannot be made"},
		"context that ended": {expired, Config{DataDir: t.TempDir()}, context.Canceled.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := Start(tc.ctx, tc.cfg)
			if err == nil {
				e.Close()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want one line with %q", err, tc.want)
			}
		})
	}
}

func TestDamagedDirectory(t *testing.T) {
	damages := map[string]func(t *testing.T, dir string){
		"write-ahead log overwritten": func(t *testing.T, dir string) {
			overwrite(t, one(t, dir, "member/wal/*.wal"), 0, 4096)
		},
		"write-ahead log overwritten inside": func(t *testing.T, dir string) {
			overwrite(t, one(t, dir, "member/wal/*.wal"), 600, 4096)
		},
		"database overwritten": func(t *testing.T, dir string) {
			overwrite(t, one(t, dir, "member/snap/db"), 0, 1<<14)
		},
		"database cut short": func(t *testing.T, dir string) {
			if err := os.Truncate(one(t, dir, "member/snap/db"), 4096); err != nil {
				t.Fatal(err)
			}
		},
		"database is a directory": func(t *testing.T, dir string) {
			db := one(t, dir, "member/snap/db")
			if err := errors.Join(os.Remove(db), os.Mkdir(db, 0o700)); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			e := start(t, Config{DataDir: dir})
			for i := range 100 {
				if _, err := e.Client().Put(t.Context(), fmt.Sprintf("/k%d", i), strings.Repeat("v", 1000)); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			damage(t, dir)
			// An etcd that failed to start may still be about to create its next file.
			t.Cleanup(func() {
				eventually(t, "the removal of the directory", func() bool { return os.RemoveAll(dir) == nil })
			})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			e, err := Start(ctx, Config{DataDir: dir})
			if err == nil {
				e.Close()
				t.Fatal("started")
			}
			if errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want one line that names the directory", err)
			}
			t.Log(err)
		})
	}
}

func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names[0]
}

func overwrite(t *testing.T, name string, at int64, n int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(strings.Repeat("\xa5", n)), at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestFullDatabaseRecovers(t *testing.T) {
	const quota = 16 << 20
	ctx := t.Context()
	e := start(t, Config{DataDir: t.TempDir(), QuotaBytes: quota})
	value := strings.Repeat("x", 256<<10)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		_, err = e.Client().Put(ctx, fmt.Sprintf("/full/%04d", n), value)
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("after %d writes got %v, want ErrNoSpace", n, err)
	}
	if n*len(value) < quota/2 {
		t.Errorf("full after %d bytes of %d", n*len(value), quota)
	}
	eventually(t, "the alarm", e.full)
	if _, err := e.Client().Put(ctx, "/small", "1"); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("a small write to a full database: got %v, want ErrNoSpace", err)
	}
	if _, err := e.Client().Delete(ctx, "/full/", clientv3.WithPrefix()); err != nil {
		t.Fatalf("deleting from a full database: %v", err)
	}
	eventually(t, "a write after deletions", func() bool {
		_, err = e.Client().Put(ctx, "/again", value)
		return err == nil
	})
	if size := e.server.Backend().Size(); size > quota/2 {
		t.Errorf("the database still has %d bytes", size)
	}
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	e := start(t, Config{DataDir: t.TempDir()})
	ctx, cancel := context.WithCancel(t.Context())
	e.Client().Watch(ctx, "/", clientv3.WithPrefix())
	cancel()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	goleak.VerifyNone(t, ignore)
}

// What etcd calls fatal reaches the owner, and the process lives.
func TestFatalBecomesErr(t *testing.T) {
	e := start(t, Config{DataDir: t.TempDir()})
	cause := fmt.Errorf("write db: %w", syscall.ENOSPC)
	done := make(chan struct{})
	go func() {
		defer close(done)
		lg := newZapLogger(zerolog.Nop(), e.failed)
		lg.Fatal("failed to save Raft hard state and entries", zap.Error(cause))
		t.Error("the goroutine went on")
	}()
	<-done
	select {
	case err := <-e.Err():
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "make room on the disk and start the server again") {
			t.Errorf("got %v, want %v and a remedy", err, cause)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing arrived")
	}
}

func TestNoNoise(t *testing.T) {
	var lines atomic.Int64
	log := zerolog.New(writerFunc(func(p []byte) (int, error) {
		lines.Add(1)
		t.Logf("%s", p)
		return len(p), nil
	}))
	e := start(t, Config{DataDir: filepath.Join(t.TempDir(), "new"), Logger: log})
	if _, err := e.Client().Put(t.Context(), "/a", "1"); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if n := lines.Load(); n != 0 {
		t.Errorf("%d log lines from a healthy start and stop, want none", n)
	}
	newZapLogger(log, make(fatalHook, 1)).Warn("something", zap.Error(errors.New("e")))
	if n := lines.Load(); n != 1 {
		t.Errorf("%d log lines after a warning, want 1", n)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		e, err := Start(b.Context(), Config{DataDir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		e.Close()
		b.StartTimer()
	}
}

// BenchmarkCreate commits create transactions of 800 bytes from 32 goroutines.
func BenchmarkCreate(b *testing.B) {
	e := start(b, Config{DataDir: b.TempDir()})
	value := strings.Repeat("x", 800)
	var seq atomic.Int64
	b.SetParallelism((31 + runtime.GOMAXPROCS(0)) / runtime.GOMAXPROCS(0))
	cpu := cpuTime(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			key := fmt.Sprintf("/registry/endpoints/default/e%d", seq.Add(1))
			resp, err := e.Client().Txn(context.Background()).
				If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
				Then(clientv3.OpPut(key, value)).
				Else(clientv3.OpGet(key)).Commit()
			if err != nil || !resp.Succeeded {
				b.Errorf("%v, %v", resp, err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "txn/s")
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
