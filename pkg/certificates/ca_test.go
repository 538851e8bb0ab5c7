package certificates

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-project/berth/test/harness"
)

var pkiTime = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// madePKI returns a directory whose certificates were made at pkiTime.
func madePKI(t *testing.T) Dir {
	t.Helper()
	dir := Dir(filepath.Join(t.TempDir(), "pki"))
	if _, err := dir.Ensure([]string{"localhost", "127.0.0.1"}, pkiTime); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPKIIsTrustedAndPrivate(t *testing.T) {
	dir := Dir(filepath.Join(t.TempDir(), "pki"))
	serving, err := dir.Ensure([]string{"localhost", "berth.example.com", "127.0.0.1", "::1"}, pkiTime)
	if err != nil {
		t.Fatal(err)
	}
	if got := harness.ReadFile(t, dir.CACert()); got != string(serving.CAPEM) {
		t.Errorf("the CA returned is not the one in %s", dir.CACert())
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(serving.CAPEM)
	for _, name := range []string{"localhost", "berth.example.com", "127.0.0.1", "::1"} {
		opts := x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: pkiTime, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		if _, err := serving.Pair.Leaf.Verify(opts); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	if got, want := serving.Pair.Leaf.NotAfter, pkiTime.Add(certLifetime); !got.Equal(want) {
		t.Errorf("the certificate ends at %v, want %v", got, want)
	}
	for path, want := range map[string]os.FileMode{string(dir): 0o700, dir.CAKey(): 0o600, dir.Key(): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(string(dir), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPKIAtALaterStart(t *testing.T) {
	for name, test := range map[string]struct {
		names  []string
		later  time.Duration
		change func(*testing.T, Dir)
		keeps  bool   // the serving certificate stays
		want   string // an error; then every file stays
	}{
		"nothing has changed":                 {names: []string{"localhost", "127.0.0.1"}, keeps: true},
		"fewer names":                         {names: []string{"localhost"}, keeps: true},
		"a further name":                      {names: []string{"localhost", "berth.example.com"}},
		"a further address":                   {names: []string{"127.0.0.1", "::1"}},
		"31 days left":                        {later: certLifetime - 31*24*time.Hour, keeps: true},
		"29 days left":                        {later: certLifetime - 29*24*time.Hour},
		"long expired":                        {later: 3 * certLifetime},
		"certificate gone":                    {change: remove(Dir.Cert)},
		"key gone":                            {change: remove(Dir.Key)},
		"certificate damaged":                 {change: overwrite(Dir.Cert)},
		"another pair's key":                  {change: func(t *testing.T, f Dir) { harness.WriteFile(t, f.Key(), harness.ReadFile(t, madePKI(t).Key())) }},
		"another CA's pair":                   {change: exchangePair},
		"a leftover of a crash":               {keeps: true, change: func(t *testing.T, f Dir) { harness.WriteFile(t, filepath.Join(string(f), ".ca.key.tmp"), "x") }},
		"CA key kept elsewhere":               {change: remove(Dir.CAKey), keeps: true},
		"CA key kept elsewhere, and needed":   {change: remove(Dir.CAKey), names: []string{"other"}, keeps: true, want: "ca.key does not exist; restore it"},
		"CA damaged":                          {change: overwrite(Dir.CACert), keeps: true, want: "any valid RSA or ECDSA certificates; restore it, or remove"},
		"CA key damaged":                      {change: overwrite(Dir.CAKey), keeps: true, want: "ca.key: "},
		"CA expired":                          {later: caLifetime + time.Hour, keeps: true, want: "by this machine's clock; set the clock if it is wrong, otherwise remove"},
		"CA nearly expired, certificate, too": {later: caLifetime - 24*time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			dir := madePKI(t)
			if test.change != nil {
				test.change(t, dir)
			}
			ca, _ := os.ReadFile(dir.CACert())
			cert, _ := os.ReadFile(dir.Cert())
			now := pkiTime.Add(test.later)
			serving, err := dir.Ensure(test.names, now)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("got %v, want %q", err, test.want)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if got := harness.ReadFile(t, dir.CACert()); got != string(ca) {
				t.Error("the CA was replaced")
			}
			if kept := harness.ReadFile(t, dir.Cert()) == string(cert); kept != test.keeps {
				t.Errorf("the certificate was kept: %v, want %v", kept, test.keeps)
			}
			if err == nil {
				verify(t, ca, serving.Pair.Leaf, now)
			}
		})
	}
}

// A CA near its end can give no certificate a longer life: it must not sign one at each
// start either.
func TestPKIWithACANearItsEnd(t *testing.T) {
	dir := madePKI(t)
	now := pkiTime.Add(caLifetime - 24*time.Hour)
	for start := range 2 {
		serving, err := dir.Ensure([]string{"localhost"}, now)
		if err != nil {
			t.Fatal(err)
		}
		before := harness.ReadFile(t, dir.Cert())
		if want := pkiTime.Add(caLifetime); !serving.Pair.Leaf.NotAfter.Equal(want) {
			t.Errorf("start %d: the certificate ends at %v, want with the CA at %v", start, serving.Pair.Leaf.NotAfter, want)
		}
		if _, err := dir.Ensure([]string{"localhost"}, now); err != nil || harness.ReadFile(t, dir.Cert()) != before {
			t.Errorf("start %d: the certificate was replaced (%v)", start, err)
		}
	}
}

func remove(path func(Dir) string) func(*testing.T, Dir) {
	return func(t *testing.T, f Dir) {
		if err := os.Remove(path(f)); err != nil {
			t.Fatal(err)
		}
	}
}

func overwrite(path func(Dir) string) func(*testing.T, Dir) {
	return func(t *testing.T, f Dir) { harness.WriteFile(t, path(f), "damaged") }
}

func exchangePair(t *testing.T, dir Dir) {
	other := madePKI(t)
	harness.WriteFile(t, dir.Key(), harness.ReadFile(t, other.Key()))
	harness.WriteFile(t, dir.Cert(), harness.ReadFile(t, other.Cert()))
}

func verify(t *testing.T, caPEM []byte, cert *x509.Certificate, now time.Time) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(caPEM)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
		t.Error(err)
	}
}
