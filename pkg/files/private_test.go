package files

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-project/berth/test/harness"
)

// fileInfo is what the system says of a file.
type fileInfo struct {
	mode  fs.FileMode
	owner int
}

func (i fileInfo) Name() string       { return "file" }
func (i fileInfo) Size() int64        { return 0 }
func (i fileInfo) Mode() fs.FileMode  { return i.mode }
func (i fileInfo) ModTime() time.Time { return time.Time{} }
func (i fileInfo) IsDir() bool        { return i.mode.IsDir() }
func (i fileInfo) Sys() any           { return &syscall.Stat_t{Uid: uint32(i.owner)} }

func TestDistrust(t *testing.T) {
	const root, server, other = 0, 1000, 1001
	for name, test := range map[string]struct {
		mode       fs.FileMode
		owner, uid int
		want       string // "": trusted
	}{
		"a directory of one's own":        {fs.ModeDir | 0o700, server, server, ""},
		"systemd's StateDirectory":        {fs.ModeDir | 0o755, server, server, ""},
		"in a directory with setgid":      {fs.ModeDir | fs.ModeSetgid | 0o750, server, server, ""},
		"a file of one's own":             {0o644, server, server, ""},
		"a file of root's":                {0o444, root, server, ""},
		"a directory of root's":           {fs.ModeDir | 0o755, root, server, ""},
		"a volume with fsGroup":           {fs.ModeDir | fs.ModeSetgid | 0o770, root, server, ""},
		"a link of root's":                {fs.ModeSymlink | 0o777, root, server, ""},
		"a link of one's own":             {fs.ModeSymlink | 0o777, server, server, ""},
		"writable for the group":          {fs.ModeDir | 0o770, server, server, "/x is writable for other users (mode 0770)"},
		"the same of root":                {fs.ModeDir | 0o770, root, root, "/x is writable for other users (mode 0770)"},
		"writable for all":                {fs.ModeDir | 0o702, server, server, "run: chmod -R go-w /x"},
		"writable for all and root's":     {fs.ModeDir | 0o777, root, server, "/x is writable for other users (mode 0777)"},
		"sticky":                          {fs.ModeDir | fs.ModeSticky | 0o777, root, server, "/x is writable for other users (mode 0777)"},
		"a file that is writable for all": {0o602, server, server, "/x is writable for other users (mode 0602)"},
		"somebody else's directory":       {fs.ModeDir | 0o700, other, server, "/x belongs to user 1001, and the server runs as user 1000; run it as the former, or, if you trust what is in it, run: chown -R 1000 /x"},
		"somebody else's file":            {0o600, other, root, "/x belongs to user 1001, and the server runs as user 0"},
		"somebody else's link":            {fs.ModeSymlink | 0o777, other, root, "/x belongs to user 1001"},
		"a named pipe":                    {fs.ModeNamedPipe | 0o600, server, server, "/x is neither a file nor a directory; remove it"},
		"a socket":                        {fs.ModeSocket | 0o600, server, server, "/x is neither a file nor a directory"},
		"a device":                        {fs.ModeDevice | 0o600, root, root, "/x is neither a file nor a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			err := distrust("/x", fileInfo{test.mode, test.owner}, test.uid)
			if test.want == "" && err != nil {
				t.Errorf("got %v, want none", err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// chmod sets permissions whatever the umask is.
func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	chmod(t, path, mode)
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCheckPrivate(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(t *testing.T, dir string)
		want    string // "": private
	}{
		"empty":              {func(*testing.T, string) {}, ""},
		"missing":            {func(t *testing.T, dir string) { os.Remove(dir) }, ""},
		"open":               {func(t *testing.T, dir string) { chmod(t, dir, 0o777) }, "data directory DIR is refused: DIR is writable for other users (mode 0777)"},
		"all in order":       {func(t *testing.T, dir string) { mkdir(t, dir+"/used/member/snap", 0o700) }, ""},
		"open deep inside":   {func(t *testing.T, dir string) { mkdir(t, dir+"/used/member/snap", 0o777) }, "DIR/used/member/snap is writable"},
		"a pipe deep inside": {func(t *testing.T, dir string) { mkdir(t, dir+"/used/member", 0o700); mkfifo(t, dir+"/used/member/db") }, "DIR/used/member/db is neither"},
		"open and not used":  {func(t *testing.T, dir string) { mkdir(t, dir+"/lost+found", 0o777) }, ""},
		"a pipe":             {func(t *testing.T, dir string) { mkfifo(t, dir+"/used") }, "DIR/used is neither"},
		"a link":             {func(t *testing.T, dir string) { mkdir(t, dir+"/target", 0o700); symlink(t, "target", dir+"/used") }, ""},
		"a link elsewhere": {func(t *testing.T, dir string) {
			mkdir(t, dir+"/target", 0o777)
			symlink(t, "target", dir+"/used")
		}, "DIR/used is writable"},
		"a link to what has a pipe": {func(t *testing.T, dir string) {
			mkdir(t, dir+"/target", 0o700)
			mkfifo(t, dir+"/target/pipe")
			symlink(t, "target", dir+"/used")
		}, "DIR/used/pipe is neither"},
		"a link to a device": {func(t *testing.T, dir string) { symlink(t, os.DevNull, dir+"/used") }, "DIR/used is neither"},
		"a link to nowhere":  {func(t *testing.T, dir string) { symlink(t, "none", dir+"/used") }, ""},
		"links in a circle":  {func(t *testing.T, dir string) { mkdir(t, dir+"/used", 0o700); symlink(t, ".", dir+"/used/loop") }, ""},
		"a link to a link":   {func(t *testing.T, dir string) { symlink(t, "used", dir+"/used") }, "too many levels of symbolic links"},
		"the directory's own": {func(t *testing.T, dir string) {
			os.Remove(dir)
			mkdir(t, dir+".target", 0o777)
			symlink(t, dir+".target", dir)
		}, "DIR is writable"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			mkdir(t, dir, 0o700)
			test.prepare(t, dir)
			err := CheckPrivate(dir, "used", "missing")
			want := strings.ReplaceAll(test.want, "DIR", dir)
			if want == "" && err != nil {
				t.Errorf("got %v, want none", err)
			}
			if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// What somebody else owns is refused wherever it is, and a link as what it leads to.
func TestCheckPrivateLooksAtOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away; TestDistrust has the rule")
	}
	for _, planted := range []string{".", "used", "used/member", "used/zlink"} {
		dir := t.TempDir()
		chmod(t, dir, 0o700)
		mkdir(t, filepath.Join(dir, "used", "member"), 0o700)
		symlink(t, "member", filepath.Join(dir, "used", "zlink"))
		if err := CheckPrivate(dir, "used"); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, planted)
		if err := os.Lchown(path, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if err := CheckPrivate(dir, "used"); err == nil || !strings.Contains(err.Error(), path+" belongs to user 12345") {
			t.Errorf("%s: got %v", planted, err)
		}
	}
}

func TestLockDirOpensNothingThatIsPlanted(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	for name, plant := range map[string]func(path string){
		"link to nowhere": func(path string) { symlink(t, elsewhere, path) },
		"pipe":            func(path string) { mkfifo(t, path) },
		"directory":       func(path string) { mkdir(t, path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			plant(filepath.Join(dir, "lock"))
			if _, err := LockDir(dir); err == nil || !strings.Contains(err.Error(), "cannot be locked") {
				t.Errorf("got %v", err)
			}
			if _, err := os.Lstat(elsewhere); err == nil {
				t.Error("the target of the link was made")
			}
		})
	}
}

func TestExposed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if _, exposed := Exposed(path); exposed {
		t.Error("a file that does not exist is exposed")
	}
	harness.WriteFile(t, path, "secret")
	for mode, want := range map[fs.FileMode]bool{0o400: false, 0o600: false, 0o700: false, 0o640: true, 0o604: true, 0o620: true, 0o602: true} {
		chmod(t, path, mode)
		if got, exposed := Exposed(path); got != mode || exposed != want {
			t.Errorf("mode %04o: got %04o, %v, want %v", mode, got, exposed, want)
		}
	}
}

func TestReplaceable(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "a", "data")
	mkdir(t, dir, 0o700)
	for mode, want := range map[fs.FileMode]string{0o755: "", 0o775: "", 0o777: filepath.Join(top, "a"), 0o777 | fs.ModeSticky: ""} {
		chmod(t, filepath.Join(top, "a"), mode)
		if got := Replaceable(dir); got != want {
			t.Errorf("below a directory of mode %v: got %q, want %q", mode, got, want)
		}
	}
	chmod(t, filepath.Join(top, "a"), 0o777)
	symlink(t, dir, filepath.Join(top, "link"))
	if got := Replaceable(filepath.Join(top, "link")); got != filepath.Join(top, "a") {
		t.Errorf("through a link: got %q", got)
	}
}
