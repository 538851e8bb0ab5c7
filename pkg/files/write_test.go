package files

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-project/berth/test/harness"
)

func TestWriteReplacesInOneStep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	for _, left := range []string{".token.tmp", ".token.tmp123"} {
		harness.WriteFile(t, filepath.Join(dir, left), "longer than what is written: left by a crash")
	}
	for _, text := range []string{"first", "second"} {
		if err := Write(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := harness.ReadFile(t, path); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v (%v), want the file alone", entries, err)
	}
}

// Whatever somebody has put under a name of Write's, nothing is written through it.
func TestWriteFollowsNoLink(t *testing.T) {
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
	harness.WriteFile(t, elsewhere, "untouched")
	path := filepath.Join(dir, "token")
	for _, planted := range []string{path, filepath.Join(dir, ".token.tmp"), filepath.Join(dir, ".token.tmp1")} {
		if err := os.Symlink(elsewhere, planted); err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := harness.ReadFile(t, elsewhere); got != "untouched" {
		t.Errorf("the file that the links lead to holds %q", got)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v (%v), want a file of 0600", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v (%v), want the file alone", entries, err)
	}
}

// What cannot be removed under a name of Write's, such as a directory, is no hindrance.
func TestWriteIgnoresAPlantedDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, ".token.tmp", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "token")
	if err := Write(path, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v (%v), want 0644", info.Mode(), err)
	}
}

func TestWriteLeavesTheOldOneWhenItFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	// A directory cannot be replaced by a file.
	if err := os.MkdirAll(filepath.Join(path, "kept"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("text"), 0o600); err == nil {
		t.Fatal("no error")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || !entries[0].IsDir() {
		t.Errorf("the directory holds %v (%v), want what it held before", entries, err)
	}
}
