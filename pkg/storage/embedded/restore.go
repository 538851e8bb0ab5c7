package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"
	etcdversion "go.etcd.io/etcd/api/v3/version"
	etcdutl "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/berth-project/berth/pkg/files"
	"github.com/berth-project/berth/pkg/storage/snapshot"
)

const (
	restorePrefix = ".restore-"
	// minBump is what etcd's documentation adds to a revision.
	minBump = 1_000_000_000
)

// Restore makes the data directory dir of an Etcd from a snapshot in a file, and returns what
// is in the file and the revision of the new database. dir must not exist or be empty; the
// directory that it is in must be locked. After an error, and after a crash, dir has not
// changed.
//
// A database that goes back would give out the revisions after the snapshot again. So the new
// one begins at the time in microseconds, which is beyond every revision that it ever had,
// also where the same file is restored again: for that it would have had to write a million
// times a second. All revisions before are marked as compacted.
func Restore(file, dir string, now time.Time) (from snapshot.Status, revision int64, err error) {
	if entries, err := os.ReadDir(dir); len(entries) > 0 {
		return from, 0, fmt.Errorf("%s holds a database already; move it away first: mv %s %s.old", dir, dir, dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return from, 0, err
	}
	if from, err = snapshot.Read(file); err != nil {
		return from, 0, err
	}
	if err := checkFormat(from.Version); err != nil {
		return from, 0, fmt.Errorf("%s %w", file, err)
	}
	parent := filepath.Dir(dir)
	if err := removeRestores(parent); err != nil {
		return from, 0, err
	}
	temporary, err := os.MkdirTemp(parent, restorePrefix)
	if err != nil {
		return from, 0, err
	}
	defer func() { _ = os.RemoveAll(temporary) }() // if it stays, the next call removes it
	revision = max(now.UnixMicro(), from.Revision+minBump)
	err = restore(etcdutl.RestoreConfig{
		SnapshotPath:        file,
		Name:                memberName,
		OutputDataDir:       temporary,
		PeerURLs:            []string{memberURL.String()},
		InitialCluster:      memberName + "=" + memberURL.String(),
		InitialClusterToken: memberName,
		RevisionBump:        uint64(revision - from.Revision),
		MarkCompacted:       true,
	})
	if err != nil {
		return from, 0, fmt.Errorf("restoring %s: %w", file, err)
	}
	return from, revision, files.Rename(temporary, dir)
}

// checkFormat returns why the embedded etcd cannot read a database of the format of a minor
// release; "" is one before 3.6.
func checkFormat(format string) error {
	if format == "" {
		return nil
	}
	parsed, err := version.ParseGeneric(format)
	if err != nil {
		return fmt.Errorf("has an unknown format: %w", err)
	}
	if own := version.MustParseSemantic(etcdversion.Version); parsed.GreaterThan(own) {
		return fmt.Errorf("is of etcd %d.%d, and this server has %d.%d: use a newer server", parsed.Major(), parsed.Minor(), own.Major(), own.Minor())
	}
	return nil
}

// removeRestores removes what calls of Restore that crashed have left.
func removeRestores(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), restorePrefix) {
			if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// restore has etcd restore a snapshot. What etcd calls fatal, such as a full disk, and its
// panics become errors.
func restore(cfg etcdutl.RestoreConfig) error {
	fatal := make(fatalHook, 1)
	done := make(chan error, 1)
	go func() {
		err := errors.New("etcd gave up") // if its logger ends this goroutine
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("the data is damaged: %v", p)
			}
			done <- err
		}()
		err = etcdutl.NewV3(newZapLogger(zerolog.Nop(), fatal)).Restore(cfg)
	}()
	select {
	case err := <-fatal: // it may be of a goroutine of etcd's, for which the other one waits
		return err
	case err := <-done:
		select {
		case cause := <-fatal:
			return cause
		default:
			return err
		}
	}
}
