package files

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/berth-project/berth/test/harness"
)

// patience is far more than anything here takes on a machine under load.
const patience = 30 * time.Second

// reloads counts what a reloader does with one file.
type reloads struct {
	path   string
	loaded chan string   // what load found, unless it is "broken"
	told   chan struct{} // one element after each call of changed
	asked  chan os.Signal
	log    *harness.Output
}

func (r *reloads) load() error {
	data, err := os.ReadFile(r.path)
	if err != nil {
		return err
	}
	if string(data) == "broken" {
		return errors.New("the file is broken")
	}
	r.loaded <- string(data)
	return nil
}

// startReloader watches path until the test ends. A poll of 0 is never.
func startReloader(t *testing.T, path string, poll time.Duration) *reloads {
	t.Helper()
	if poll == 0 {
		poll = time.Hour
	}
	r := &reloads{path: path, loaded: make(chan string, 100), told: make(chan struct{}, 100), asked: make(chan os.Signal, 1), log: &harness.Output{}}
	files := &Group{Name: "test", Paths: []string{path}, Load: r.load}
	if changed, err := files.LoadChanged(); err != nil || !changed {
		t.Fatalf("the first load: %v, %v", changed, err)
	}
	<-r.loaded
	reloader := &Reloader{
		Groups: []*Group{files}, Changed: func() error { r.told <- struct{}{}; return nil },
		Asked: r.asked, Logger: zerolog.New(r.log), delay: time.Millisecond, poll: poll,
	}
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { reloader.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		goleak.VerifyNone(t, before)
	})
	return r
}

// expect waits until text was loaded. What came before it may have been skipped or not.
func (r *reloads) expect(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case got := <-r.loaded:
			<-r.told
			if got == text {
				return
			}
		case <-timeout:
			t.Fatalf("%q was not loaded; the log:\n%s", text, r.log)
		}
	}
}

func TestReloadInPlaceAndByRename(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	harness.WriteFile(t, path, "one")
	r := startReloader(t, path, 0)
	harness.WriteFile(t, path, "two")
	r.expect(t, "two")
	for _, text := range []string{"three", "four"} {
		harness.WriteFile(t, path+".new", text)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		r.expect(t, text)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.log.Await(t, "no such file", nil)
	harness.WriteFile(t, path, "five")
	r.expect(t, "five")
}

func TestReloadRefusesABrokenVersionOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	harness.WriteFile(t, path, "one")
	r := startReloader(t, path, time.Millisecond)
	harness.WriteFile(t, path+".new", "broken")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	r.log.Await(t, `"error":"the file is broken","files":"test","message":"the new version is refused, the old one stays`, nil)
	// Any number of polls later there is still one line.
	harness.WriteFile(t, path, "two")
	r.expect(t, "two")
	if got := strings.Count(r.log.String(), "the file is broken"); got != 1 {
		t.Errorf("the refusal was logged %d times, want once:\n%s", got, r.log)
	}
}

// A ConfigMap is mounted as a link to a link into a directory that is swapped.
func TestReloadFollowsAConfigMap(t *testing.T) {
	dir := t.TempDir()
	publish := func(version, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		harness.WriteFile(t, filepath.Join(dir, version, "file"), text)
		if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	publish("..1", "one")
	path := filepath.Join(dir, "file")
	if err := os.Symlink(filepath.Join("..data", "file"), path); err != nil {
		t.Fatal(err)
	}
	r := startReloader(t, path, 0)
	for _, version := range []string{"two", "three", "four"} {
		publish(".."+version, version)
		r.expect(t, version)
		if old := filepath.Join(dir, "..1"); version == "two" {
			if err := os.RemoveAll(old); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A link to a file elsewhere: the change happens where the link leads to.
func TestReloadFollowsALinkElsewhere(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	harness.WriteFile(t, target, "one")
	path := filepath.Join(t.TempDir(), "file")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	r := startReloader(t, path, 0)
	harness.WriteFile(t, target, "two")
	r.expect(t, "two")
}

// If the kernel reports nothing, as for a parent directory that is swapped, polling
// finds the change.
func TestReloadByPolling(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		harness.WriteFile(t, filepath.Join(dir, version, "file"), version)
	}
	current := filepath.Join(dir, "current")
	if err := os.Symlink("one", current); err != nil {
		t.Fatal(err)
	}
	r := startReloader(t, filepath.Join(current, "file"), 10*time.Millisecond)
	if err := os.Symlink("two", current+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(current+".new", current); err != nil {
		t.Fatal(err)
	}
	r.expect(t, "two")
}

// Whoever asks gets every file loaded, changed or not, and told why one is refused.
func TestReloadWhenAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	harness.WriteFile(t, path, "one")
	r := startReloader(t, path, 0)
	r.asked <- syscall.SIGHUP
	r.expect(t, "one")
	harness.WriteFile(t, path+".new", "broken")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	r.log.Await(t, "the file is broken", nil)
	r.asked <- syscall.SIGHUP
	r.log.Await(t, "the file is broken(?s:.*)the file is broken", nil)
}

func TestReloadLeavesWhatIsTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	harness.WriteFile(t, path, "one")
	files := &Group{Paths: []string{path}, Load: func() error { return nil }}
	for i, want := range []bool{true, false} {
		harness.WriteFile(t, path, "one")
		if changed, err := files.LoadChanged(); err != nil || changed != want {
			t.Errorf("time %d: changed %v (%v), want %v", i, changed, err, want)
		}
	}
}
