package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// maxExposure is the exposure that systemd-analyze may find, of 100: some more than there is,
// since newer versions look at more.
const maxExposure = "15"

func TestUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	self, err := os.Executable() // only that it can be executed is looked at
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "berth.service")
	substitute(t, "systemd/berth.service", unit, "/usr/local/bin/apiserver", self)
	for _, args := range [][]string{
		{"verify", "--man=no", unit},
		{"security", "--offline=true", "--no-pager", "--threshold=" + maxExposure, unit},
	} {
		if out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput(); err != nil {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		} else if args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze verify has complaints:\n%s", out)
		}
	}
}
