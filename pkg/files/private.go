package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

const (
	groupWritable    fs.FileMode = 0o020
	writableByOthers fs.FileMode = 0o022
	groupReadable    fs.FileMode = 0o040
	openToOthers     fs.FileMode = 0o066
	// maxDepth is deeper than what the server writes, and ends a walk of links in a circle.
	maxDepth = 4
)

// LockDir creates a directory with mode 0700 if it does not exist, and locks it until lock is
// closed or the process ends. It fails at once if another process holds the lock. The lock
// must be a file, not a link to one.
func LockDir(dir string) (lock io.Closer, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be made: %w", dir, err)
	}
	// O_NONBLOCK: a named pipe is an error, rather than a wait for its reader.
	const flags = os.O_WRONLY | os.O_CREATE | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	file, err := fileutil.TryLockFile(filepath.Join(dir, "lock"), flags, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("data directory %s is in use by another process; stop it first", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory %s cannot be locked: %w", dir, err)
	}
	return file, nil
}

// CheckPrivate returns an error that says how to mend it if users other than root and the
// process's own may write in a directory, or own or may write what it has under the names in
// used, which may be files, directories or missing: they could take over the process. A
// directory of root's may be writable for its group, since a process of another user could
// not use it otherwise. A symbolic link and what it leads to are held to the same.
func CheckPrivate(dir string, used ...string) error {
	err := checkPrivate(dir, 0)
	for _, name := range used {
		if err == nil {
			err = checkPrivate(filepath.Join(dir, name), maxDepth)
		}
	}
	if err != nil {
		return fmt.Errorf("data directory %s is refused: %w", dir, err)
	}
	return nil
}

// checkPrivate checks what is at path, if it exists, and in it down to a depth.
func checkPrivate(path string, depth int) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Type() == fs.ModeSymlink {
		if err := distrust(path, info, os.Geteuid()); err != nil {
			return err
		}
		info, err = os.Stat(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = distrust(path, info, os.Geteuid())
	}
	if err != nil || depth == 0 || !info.IsDir() {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := checkPrivate(filepath.Join(path, entry.Name()), depth-1); err != nil {
			return err
		}
	}
	return nil
}

// distrust returns why a process of the user uid must not use what info is about.
func distrust(path string, info fs.FileInfo, uid int) error {
	owner, mode := ownerOf(info), info.Mode()
	refused := writableByOthers
	switch {
	case owner != uid && owner != 0:
		return fmt.Errorf("%s belongs to user %d, and the server runs as user %d; run it as the former, or, if you trust what is in it, run: chown -R %d %s",
			path, owner, uid, uid, path)
	case mode.Type() == fs.ModeSymlink: // a link has no permissions of its own
		return nil
	case !mode.IsRegular() && !mode.IsDir():
		return fmt.Errorf("%s is neither a file nor a directory; remove it", path)
	case owner != uid:
		refused &^= groupWritable
	}
	if mode&refused != 0 {
		return fmt.Errorf("%s is writable for other users (mode %04o), who could take over the server; run: chmod -R go-w %s",
			path, mode.Perm(), path)
	}
	return nil
}

// Exposed returns the permissions of the file at path, and whether they let other users read
// or write it; false if there is no such file. A file of another user than the process's own
// may be readable for its group, since the process could not read it otherwise.
func Exposed(path string) (mode fs.FileMode, exposed bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	needless := openToOthers
	if uid := os.Geteuid(); uid != 0 && uid != ownerOf(info) {
		needless &^= groupReadable
	}
	return info.Mode().Perm(), info.Mode()&needless != 0
}

// Replaceable returns the nearest directory above path in which every user may replace what
// belongs to others, one that is writable for all and not sticky, or "" if there is none.
func Replaceable(path string) (dir string) {
	path, err := filepath.EvalSymlinks(path)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return ""
	}
	for dir = filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && info.Mode()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

func ownerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }
