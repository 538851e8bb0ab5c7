// Package files writes files so that a crash leaves the old or the new one, and loads files
// again when they change.
package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write atomically replaces the file at path: after a crash it has either the old content
// or the new one, complete. A path must have only one writer at a time.
func Write(path string, data []byte, mode fs.FileMode) (err error) {
	dir, base := filepath.Split(path)
	tmp := filepath.Join(dir, "."+base+".tmp")
	defer func() {
		if err != nil {
			_ = os.Remove(tmp) // if it stays, the next call overwrites it
		}
	}()
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	// A file left behind by an earlier crash has its old mode.
	err = errors.Join(f.Chmod(mode), err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the entries of dir survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
