package main

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
)

const (
	// reloadDelay lets the several writes of one change come together.
	reloadDelay = 100 * time.Millisecond
	// reloadPoll bounds how long a change stays unseen where the kernel does not tell of
	// it: on network file systems, or when the user has no inotify watches left.
	reloadPoll = 10 * time.Second
)

// watchedFiles is files that are taken together, and how.
type watchedFiles struct {
	what  string // for the log
	paths []string
	load  func() error

	seen [sha256.Size]byte // what paths held when load was last called
}

// loadChanged calls load where the files' content is not what it was at the last call;
// the first call always does. changed tells whether it was called.
func (w *watchedFiles) loadChanged() (changed bool, err error) {
	sum := digest(w.paths)
	if sum == w.seen {
		return false, nil
	}
	// Taken before load reads: what is written in between shows as a further change.
	w.seen = sum
	return true, w.load()
}

// digest stands for the content of the files, or the reasons why they cannot be read.
// It is never the zero value.
func digest(paths []string) (sum [sha256.Size]byte) {
	all := sha256.New()
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			data = []byte(err.Error())
		}
		one := sha256.Sum256(data)
		all.Write(one[:])
	}
	all.Sum(sum[:0])
	return sum
}

// reloader loads files again when they change.
type reloader struct {
	files []*watchedFiles
	// changed is called after any of the files was loaded again.
	changed func() error
	logger  zerolog.Logger
	delay   time.Duration
	poll    time.Duration
}

// run works until ctx ends. The files have been loaded once before.
func (r *reloader) run(ctx context.Context) {
	// A nil channel, where there is no watcher, never delivers: polling is left.
	var events <-chan fsnotify.Event
	var failures <-chan error
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		r.logger.Warn().Err(err).Dur("every", r.poll).Msg("changes of files are polled for")
	} else {
		defer watcher.Close()
		events, failures = watcher.Events, watcher.Errors
	}
	poll := time.NewTicker(r.poll)
	defer poll.Stop()
	var settled <-chan time.Time
	// Once at the start, for what changed before the watches were there.
	for {
		r.watch(watcher)
		r.check()
	wait:
		for {
			select {
			case <-ctx.Done():
				return
			case <-events:
				if settled == nil {
					settled = time.After(r.delay)
				}
			case err := <-failures:
				// Most likely events were lost; what they told of is found by looking.
				r.logger.Debug().Err(err).Msg("watching files")
				break wait
			case <-settled:
				settled = nil
				break wait
			case <-poll.C:
				break wait
			}
		}
	}
}

func (r *reloader) check() {
	anyLoaded := false
	for _, files := range r.files {
		changed, err := files.loadChanged()
		switch {
		case err != nil:
			r.logger.Error().Err(err).Str("files", files.what).Msg("the new version is refused, the old one stays in use")
		case changed:
			anyLoaded = true
			r.logger.Info().Str("files", files.what).Strs("paths", files.paths).Msg("loaded again")
		}
	}
	if !anyLoaded {
		return
	}
	if err := r.changed(); err != nil {
		r.logger.Error().Err(err).Msg("cannot follow the change of a file")
	}
}

// watch has the kernel tell of changes of the directories that the files are in. It is
// directories because a new file by the old name is the usual change, and it is called
// after each change because directories are replaced, too: a ConfigMap's files are links
// into a directory that is swapped as a whole.
func (r *reloader) watch(watcher *fsnotify.Watcher) {
	if watcher == nil {
		return
	}
	for _, files := range r.files {
		for _, path := range files.paths {
			for _, dir := range linkDirs(path) {
				if err := watcher.Add(dir); err != nil {
					r.logger.Debug().Err(err).Str("directory", dir).Msg("cannot be watched, changes are polled for")
				}
			}
		}
	}
}

// linkDirs returns the directory of path and, where path is a symbolic link, those of
// what it leads to, one after another.
func linkDirs(path string) []string {
	const maxLinks = 40 // Linux's own limit
	var dirs []string
	for range maxLinks {
		dirs = append(dirs, filepath.Dir(path))
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return dirs
}
