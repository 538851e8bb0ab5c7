package files

import (
	"cmp"
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
)

const (
	// reloadDelay lets the writes of one change accumulate.
	reloadDelay = 100 * time.Millisecond
	// reloadPoll bounds how long a change goes unnoticed where the kernel does not report
	// it: on network file systems, or when the user has no inotify watches left.
	reloadPoll = 10 * time.Second
)

// Group is a set of files that are loaded together.
type Group struct {
	Name  string // for the log
	Paths []string
	// Load reads the files. If it fails, what was loaded before must stay in use.
	Load func() error

	seen [sha256.Size]byte // digest of the files when Load was last called
}

// LoadChanged calls Load if the content of the files has changed since the last call; the
// first call always does. It reports whether it called Load, and returns Load's error.
func (g *Group) LoadChanged() (changed bool, err error) {
	sum := digest(g.Paths)
	if sum == g.seen {
		return false, nil
	}
	// The digest is taken before Load reads, so later writes show as another change.
	g.seen = sum
	return true, g.Load()
}

// digest returns a hash of the content of the files, or of the errors of reading them. It is
// never the zero value.
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

// Reloader reloads files when they change.
type Reloader struct {
	// Groups must have been loaded once already.
	Groups []*Group
	// Changed is called after any of the groups was reloaded.
	Changed func() error
	// Asked has all groups loaded again, changed or not, for each signal; nil never does.
	Asked <-chan os.Signal
	// Logger receives what was loaded, and what was rejected and why.
	Logger zerolog.Logger

	delay, poll time.Duration // 0 means the defaults
}

// Run reloads files until ctx ends.
func (r *Reloader) Run(ctx context.Context) {
	delay, every := cmp.Or(r.delay, reloadDelay), cmp.Or(r.poll, reloadPoll)
	poll := time.NewTicker(every)
	defer poll.Stop()
	// Without a watcher these stay nil and never deliver; polling remains.
	var events <-chan fsnotify.Event
	var failures <-chan error
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		r.Logger.Warn().Err(err).Dur("every", every).Msg("cannot watch files; polling for changes")
	} else {
		defer watcher.Close()
		events, failures = watcher.Events, watcher.Errors
	}
	// The first check finds changes made before the watches were set up.
	r.watch(watcher)
	r.check(false)
	var settled <-chan time.Time // nil unless a change was reported
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-r.Asked:
			asked = true
		case <-events:
			if settled == nil {
				settled = time.After(delay)
			}
			continue
		case err := <-failures:
			// Events were probably lost; reading the files finds what they reported.
			r.Logger.Debug().Err(err).Msg("watching files failed")
		case <-settled:
		case <-poll.C:
		}
		settled = nil
		r.watch(watcher)
		r.check(asked)
	}
}

// check loads what has changed, or everything if somebody asked for it.
func (r *Reloader) check(asked bool) {
	if asked && len(r.Groups) == 0 {
		r.Logger.Info().Msg("there are no files to load again: no flag names one")
	}
	anyLoaded := false
	for _, group := range r.Groups {
		if asked {
			group.seen = [sha256.Size]byte{}
		}
		changed, err := group.LoadChanged()
		switch {
		case err != nil:
			r.Logger.Error().Err(err).Str("files", group.Name).Msg("the new version is refused, the old one stays in use")
		case changed:
			anyLoaded = true
			r.Logger.Info().Str("files", group.Name).Strs("paths", group.Paths).Msg("loaded again")
		}
	}
	if !anyLoaded {
		return
	}
	if err := r.Changed(); err != nil {
		r.Logger.Error().Err(err).Msg("cannot follow the change of a file")
	}
}

// watch subscribes to changes of the directories that the files are in. It watches
// directories because a file is usually replaced by a new one of the same name. It is called
// after each change because directories are replaced, too: the files of a ConfigMap are links
// into a directory that is swapped as a whole.
func (r *Reloader) watch(watcher *fsnotify.Watcher) {
	if watcher == nil {
		return
	}
	for _, group := range r.Groups {
		for _, path := range group.Paths {
			for _, dir := range linkDirs(path) {
				if err := watcher.Add(dir); err != nil {
					r.Logger.Debug().Err(err).Str("directory", dir).Msg("cannot watch a directory; polling for changes")
				}
			}
		}
	}
}

// linkDirs returns the directory of path and, if path is a symbolic link, those of its
// targets, one after another.
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
