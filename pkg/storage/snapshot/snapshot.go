// Package snapshot saves snapshots of an etcd in files and checks them. The files are those of
// etcdctl snapshot save.
package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"github.com/berth-project/berth/pkg/files"
)

// pageBytes divides the size of every database, so that the rest tells whether a checksum
// follows it.
const pageBytes = 512

// stallTimeout bounds how long etcd may send nothing.
const stallTimeout = time.Minute

// Status is what is in a snapshot.
type Status struct {
	Revision int64 // of the last write
	Keys     int   // those of programs that use etcd, and the mark that a restore leaves
	Bytes    int64 // of the file
	// Version is the minor release of etcd whose format it has, such as "3.7.0"; "" before
	// 3.6, and until a new database has been used for some seconds.
	Version string
}

// Save writes a snapshot of the member that client is connected to, with its checksum, into a
// new file of mode 0600, and checks it. A write that the member has applied is in it. After an
// error there is no file. It is an error if there is one at path already. Several calls for one
// path may run at a time.
func Save(ctx context.Context, client clientv3.Maintenance, path string) (saved Status, err error) {
	if err := absent(path); err != nil {
		return Status{}, err
	}
	err = files.WriteWith(path, 0o600, func(f *os.File) error {
		if err := receive(ctx, client, f); err != nil {
			return err
		}
		if saved, err = Read(f.Name()); err != nil {
			return err
		}
		return absent(path) // it has taken a while
	})
	return saved, err
}

func absent(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists already and is not replaced", path)
	}
	return nil
}

// receive writes a snapshot to w.
func receive(ctx context.Context, client clientv3.Maintenance, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallTimeout, func() { cancel(fmt.Errorf("etcd sent nothing for %v", stallTimeout)) })
	defer stalled.Stop()
	sent, err := client.SnapshotWithVersion(ctx)
	if err == nil {
		defer sent.Snapshot.Close()
		_, err = io.Copy(w, readerFunc(func(p []byte) (int, error) {
			stalled.Reset(stallTimeout)
			return sent.Snapshot.Read(p)
		}))
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Read returns what is in the file at path. A file that is no snapshot, or has no checksum or
// a wrong one, is an error.
func Read(path string) (st Status, err error) {
	size, err := verify(path)
	if err != nil {
		return Status{}, err
	}
	defer func() {
		if p := recover(); p != nil {
			st, err = Status{}, fmt.Errorf("%s is not the database of an etcd: %v", path, p)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // the file is mapped into memory
	in, err := snapshot.NewV3(zap.NewNop()).Status(path)
	if err != nil {
		return Status{}, fmt.Errorf("%s is not the database of an etcd: %w", path, err)
	}
	return Status{Revision: in.Revision, Keys: in.TotalKey, Bytes: size, Version: in.Version}, nil
}

// verify compares the file at path with its checksum, and returns its size.
func verify(path string) (size int64, err error) {
	info, err := os.Stat(path) // opening a named pipe would wait
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, &fs.PathError{Op: "read", Path: path, Err: errors.New("it is not a file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size = info.Size()
	if size%pageBytes != sha256.Size {
		return 0, fmt.Errorf("%s has no checksum at its end: it is cut short, or was not made by snapshot save", path)
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, f, size-sha256.Size); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	want, err := io.ReadAll(f)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return 0, fmt.Errorf("%s is damaged: its checksum is wrong", path)
	}
	return size, nil
}
