// Package files writes files so that a crash leaves the old or the new one, keeps
// directories from other users, and loads files again when they change.
package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Write is WriteWith for data, into a file that only one process writes at a time: what an
// earlier crash left of it is removed.
func Write(path string, data []byte, mode fs.FileMode) error {
	if err := removeLeftovers(filepath.Dir(path), prefix(path)); err != nil {
		return err
	}
	return WriteWith(path, mode, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// WriteWith atomically replaces the file at path, or the symbolic link, by one that fill writes:
// after a crash it has either the old content or the new one, complete. If fill fails, what is at
// path stays.
//
// Until the file is complete it has a random name in the same directory, which did not exist
// before, and mode 0600. It is left there if the process is killed.
func WriteWith(path string, mode fs.FileMode, fill func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), prefix(path)+"*") // O_EXCL, which follows no link
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // it may stay
		}
	}()
	if err = errors.Join(fill(f), f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return Rename(f.Name(), path)
}

// prefix begins the names that the file at path has until it is complete.
func prefix(path string) string { return "." + filepath.Base(path) + ".tmp" }

// Rename renames a file or a directory within its directory, and makes that survive a power
// failure.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func removeLeftovers(dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), prefix) {
			// One that cannot be removed, such as a directory, does no harm.
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
	return nil
}

// syncDir makes the entries of dir survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
