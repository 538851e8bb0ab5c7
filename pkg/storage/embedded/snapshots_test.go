package embedded

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/berth-project/berth/pkg/storage/snapshot"
)

func socketClient(t *testing.T, path string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix:" + path}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// A client that does not read holds up neither the etcd nor its end, and the socket serves
// nothing but snapshots.
func TestSnapshotsOneAtATime(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "sock")
	e := start(t, Config{DataDir: filepath.Join(dir, "etcd"), SnapshotSocket: socket})
	value := make([]byte, 1<<20) // more than a connection buffers, and no run of zeros
	rand.Read(value)
	for i := range 4 {
		if _, err := e.Client().Put(t.Context(), fmt.Sprintf("/k%d", i), string(value)); err != nil {
			t.Fatal(err)
		}
	}
	client := socketClient(t, socket)
	slow, err := client.SnapshotWithVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "backup")
	if _, err := snapshot.Save(t.Context(), client, path); err == nil || !strings.Contains(err.Error(), "another snapshot is being saved") {
		t.Errorf("a second snapshot: got %v", err)
	}
	if postponed, err := e.defragment(); !postponed || err != nil {
		t.Errorf("defragment: %v, %v; want it to be postponed", postponed, err)
	}
	if _, err := e.Client().Put(t.Context(), "/during", "1"); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := client.Get(ctx, "/k0"); err == nil || !strings.Contains(err.Error(), "unknown service") {
		t.Errorf("a read over the socket: got %v", err)
	}
	if _, err := client.Defragment(ctx, client.Endpoints()[0]); err == nil || !strings.Contains(err.Error(), "not implemented") {
		t.Errorf("defragment over the socket: got %v", err)
	}
	slow.Snapshot.Close()
	client.Close()
	client = socketClient(t, socket)
	eventually(t, "a snapshot after the slow one", func() bool {
		_, err = snapshot.Save(t.Context(), client, path)
		return err == nil
	})
	if _, err := client.SnapshotWithVersion(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil { // while a client does not read
		t.Error(err)
	}
}

// edit changes the database in a snapshot.
func edit(t *testing.T, file string, change func(meta *bbolt.Bucket) error) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, info.Size()-sha256.Size); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(file, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return change(tx.Bucket([]byte("meta"))) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if err := os.WriteFile(file, append(data, sum[:]...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRestore(t *testing.T) {
	var saved []byte
	dir := t.TempDir()
	e := start(t, Config{DataDir: filepath.Join(dir, "first")})
	for i := range 10 {
		if _, err := e.Client().Put(t.Context(), fmt.Sprintf("/k%d", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	st, err := snapshot.Save(t.Context(), e.Client(), filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if st.Keys != 10 || st.Revision != 11 {
		t.Errorf("got %+v, want 10 keys at revision 11", st)
	}
	if saved, err = os.ReadFile(filepath.Join(dir, "file")); err != nil || int64(len(saved)) != st.Bytes {
		t.Fatalf("%d bytes (%v), want %d", len(saved), err, st.Bytes)
	}
	now := time.Unix(1_800_000_000, 0)
	for name, test := range map[string]struct {
		now    time.Time
		change func(meta *bbolt.Bucket) error
		want   int64  // revision
		fails  string // or the error
	}{
		"as it is":             {now: now, want: 1_800_000_000_000_000},
		"with a clock at zero": {now: time.Unix(0, 0), want: 11 + minBump},
		"of etcd 3.5": {now: now, want: 1_800_000_000_000_000, change: func(meta *bbolt.Bucket) error {
			return meta.Delete([]byte("storageVersion"))
		}},
		"of a later etcd": {now: now, fails: "is of etcd 3.99, and this server has 3.7: use a newer server", change: func(meta *bbolt.Bucket) error {
			return meta.Put([]byte("storageVersion"), []byte("3.99.0"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, data := filepath.Join(dir, "file"), filepath.Join(dir, "etcd")
			if err := errors.Join(os.WriteFile(file, saved, 0o600), os.Mkdir(filepath.Join(dir, restorePrefix+"crashed"), 0o700)); err != nil {
				t.Fatal(err)
			}
			if test.change != nil {
				edit(t, file, test.change)
			}
			_, revision, err := Restore(file, data, test.now)
			if test.fails != "" {
				if _, statErr := os.Stat(data); err == nil || !strings.Contains(err.Error(), test.fails) || !errors.Is(statErr, os.ErrNotExist) {
					t.Errorf("got %v and %v, want %q and no directory", err, statErr, test.fails)
				}
				return
			}
			if err != nil || revision != test.want {
				t.Fatalf("got revision %d and %v, want %d", revision, err, test.want)
			}
			if entries, _ := filepath.Glob(filepath.Join(dir, restorePrefix+"*")); len(entries) > 0 {
				t.Errorf("%v is left", entries)
			}
			expectRestored(t, data, revision)
		})
	}
}

// expectRestored looks for what TestRestore has saved, and for the end of older revisions.
func expectRestored(t *testing.T, data string, revision int64) {
	t.Helper()
	e := start(t, Config{DataDir: data})
	resp, err := e.Client().Get(t.Context(), "/k", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 10 || resp.Header.Revision != revision || resp.Kvs[0].ModRevision != 2 {
		t.Errorf("got %v, %v", resp, err)
	}
	if _, err := e.Client().Get(t.Context(), "/k", clientv3.WithRev(revision-1)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a read of the past: got %v, want %v", err, rpctypes.ErrCompacted)
	}
	for _, from := range []int64{5, revision - 1} {
		watch := <-e.Client().Watch(t.Context(), "/k", clientv3.WithPrefix(), clientv3.WithRev(from))
		if !errors.Is(watch.Err(), rpctypes.ErrCompacted) {
			t.Errorf("a watch from %d: got %v, want %v", from, watch.Err(), rpctypes.ErrCompacted)
		}
	}
	if put, err := e.Client().Put(t.Context(), "/k0", "w"); err != nil || put.Header.Revision != revision+1 {
		t.Errorf("a write: got %v, %v", put, err)
	}
}
