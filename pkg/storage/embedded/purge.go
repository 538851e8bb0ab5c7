package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

const (
	// purgeInterval is that of etcd's own purge loop.
	purgeInterval = 30 * time.Second
	// keptFiles is how many write-ahead logs and snapshots are kept, those in use included.
	keptFiles = 2
)

// purger removes the write-ahead logs and snapshots that etcd no longer needs.
//
// etcd would do that itself, but its loop gives up at the first failure and treats it as
// fatal. A failed run is harmless, and its cause, such as too many open files, may be gone
// a moment later. So etcd's loop is disabled, and this one tries again.
type purger struct {
	walDir, snapDir string
	log             zerolog.Logger
}

// run purges immediately and then at every interval, until ctx ends.
func (p purger) run(ctx context.Context, interval time.Duration) {
	ticks := time.Tick(interval)
	for {
		if err := p.purge(); err != nil {
			p.log.Warn().Err(err).Msg("cannot remove old files of etcd; will try again")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
	}
}

func (p purger) purge() error {
	return errors.Join(
		removeOldest(p.snapDir, ".snap.db", os.Remove),
		removeOldest(p.snapDir, ".snap", os.Remove),
		removeOldest(p.walDir, ".wal", removeUnlocked),
	)
}

// removeOldest removes the files with the suffix in dir, except the newest keptFiles. Their
// names sort by age. A locked file is in use, and so is every newer one.
func removeOldest(dir, suffix string, remove func(path string) error) error {
	names, err := fileutil.ReadDir(dir) // sorted
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, suffix) })
	for i := 0; i < len(names)-keptFiles; i++ {
		err := remove(filepath.Join(dir, names[i]))
		switch {
		case errors.Is(err, fileutil.ErrLocked):
			return nil
		// etcd removes snapshots by itself, too.
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// removeUnlocked removes a write-ahead log unless etcd holds its lock, which it does as
// long as it would need the file to start.
func removeUnlocked(path string) error {
	lock, err := fileutil.TryLockFile(path, os.O_WRONLY, fileutil.PrivateFileMode)
	if err != nil {
		return fmt.Errorf("locking %s: %w", path, err)
	}
	return errors.Join(os.Remove(path), lock.Close())
}
