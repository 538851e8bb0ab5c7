package main

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var pkiTime = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func sans(hosts ...string) sanSet {
	var s sanSet
	for _, host := range hosts {
		s.add(host)
	}
	return s
}

// madePKI returns a data directory with a PKI that was made at pkiTime.
func madePKI(t *testing.T) dataFiles {
	t.Helper()
	files := dataFiles{dir: t.TempDir()}
	if _, _, err := ensurePKI(files, sans("localhost", "127.0.0.1"), pkiTime); err != nil {
		t.Fatal(err)
	}
	return files
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPKIIsTrustedAndPrivate(t *testing.T) {
	files := dataFiles{dir: t.TempDir()}
	pair, caPEM, err := ensurePKI(files, sans("localhost", "berth.example.com", "127.0.0.1", "::1"), pkiTime)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, files.caCert()); got != string(caPEM) {
		t.Errorf("the CA returned is not the one in %s", files.caCert())
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(caPEM)
	for _, name := range []string{"localhost", "berth.example.com", "127.0.0.1", "::1"} {
		opts := x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: pkiTime, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		if _, err := pair.Leaf.Verify(opts); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	if got, want := pair.Leaf.NotAfter, pkiTime.Add(certLifetime); !got.Equal(want) {
		t.Errorf("the certificate ends at %v, want %v", got, want)
	}
	for path, want := range map[string]os.FileMode{files.pki(): 0o700, files.caKey(): 0o600, files.key(): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(files.pki(), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPKIAtALaterStart(t *testing.T) {
	for name, test := range map[string]struct {
		names  sanSet
		later  time.Duration
		change func(*testing.T, dataFiles)
		keeps  bool   // the serving certificate stays
		want   string // an error; then every file stays
	}{
		"nothing has changed":                 {names: sans("localhost", "127.0.0.1"), keeps: true},
		"fewer names":                         {names: sans("localhost"), keeps: true},
		"a further name":                      {names: sans("localhost", "berth.example.com")},
		"a further address":                   {names: sans("127.0.0.1", "::1")},
		"31 days left":                        {later: certLifetime - 31*24*time.Hour, keeps: true},
		"29 days left":                        {later: certLifetime - 29*24*time.Hour},
		"long expired":                        {later: 3 * certLifetime},
		"certificate gone":                    {change: remove(dataFiles.cert)},
		"key gone":                            {change: remove(dataFiles.key)},
		"certificate damaged":                 {change: overwrite(dataFiles.cert)},
		"another pair's key":                  {change: func(t *testing.T, f dataFiles) { write(t, f.key(), read(t, madePKI(t).key())) }},
		"another CA's pair":                   {change: exchangePair},
		"a leftover of a crash":               {keeps: true, change: func(t *testing.T, f dataFiles) { write(t, filepath.Join(f.pki(), ".ca.key.tmp"), "x") }},
		"CA key kept elsewhere":               {change: remove(dataFiles.caKey), keeps: true},
		"CA key kept elsewhere, and needed":   {change: remove(dataFiles.caKey), names: sans("other"), keeps: true, want: "ca.key is not there; restore it"},
		"CA damaged":                          {change: overwrite(dataFiles.caCert), keeps: true, want: "there is no PEM certificate in it; restore it, or remove"},
		"CA key damaged":                      {change: overwrite(dataFiles.caKey), keeps: true, want: "ca.key: "},
		"CA expired":                          {later: caLifetime + time.Hour, keeps: true, want: "has expired on"},
		"CA nearly expired, certificate, too": {later: caLifetime - 24*time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			files := madePKI(t)
			if test.change != nil {
				test.change(t, files)
			}
			ca, _ := os.ReadFile(files.caCert())
			cert, _ := os.ReadFile(files.cert())
			now := pkiTime.Add(test.later)
			pair, _, err := ensurePKI(files, test.names, now)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("got %v, want %q", err, test.want)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if got := read(t, files.caCert()); got != string(ca) {
				t.Error("the CA was replaced")
			}
			if kept := read(t, files.cert()) == string(cert); kept != test.keeps {
				t.Errorf("the certificate was kept: %v, want %v", kept, test.keeps)
			}
			if err == nil {
				verify(t, ca, pair.Leaf, now)
			}
		})
	}
}

// A CA near its end can give no certificate a longer life: it must not sign one at each
// start either.
func TestPKIWithACANearItsEnd(t *testing.T) {
	files := madePKI(t)
	now := pkiTime.Add(caLifetime - 24*time.Hour)
	for start := range 2 {
		pair, _, err := ensurePKI(files, sans("localhost"), now)
		if err != nil {
			t.Fatal(err)
		}
		before := read(t, files.cert())
		if want := pkiTime.Add(caLifetime); !pair.Leaf.NotAfter.Equal(want) {
			t.Errorf("start %d: the certificate ends at %v, want with the CA at %v", start, pair.Leaf.NotAfter, want)
		}
		if _, _, err := ensurePKI(files, sans("localhost"), now); err != nil || read(t, files.cert()) != before {
			t.Errorf("start %d: the certificate was replaced (%v)", start, err)
		}
	}
}

func remove(path func(dataFiles) string) func(*testing.T, dataFiles) {
	return func(t *testing.T, f dataFiles) {
		if err := os.Remove(path(f)); err != nil {
			t.Fatal(err)
		}
	}
}

func overwrite(path func(dataFiles) string) func(*testing.T, dataFiles) {
	return func(t *testing.T, f dataFiles) { write(t, path(f), "damaged") }
}

func exchangePair(t *testing.T, files dataFiles) {
	other := madePKI(t)
	write(t, files.key(), read(t, other.key()))
	write(t, files.cert(), read(t, other.cert()))
}

func verify(t *testing.T, caPEM []byte, cert *x509.Certificate, now time.Time) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(caPEM)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
		t.Error(err)
	}
}

func TestServingNames(t *testing.T) {
	for name, test := range map[string]struct {
		bind, external string
		want           []string
	}{
		"loopback":  {bind: "127.0.0.1"},
		"address":   {bind: "192.0.2.7", want: []string{"192.0.2.7"}},
		"with zone": {bind: "fe80::1%eth0", want: []string{"fe80::1"}},
		"mapped":    {bind: "::ffff:192.0.2.7", want: []string{"192.0.2.7"}},
		"external":  {bind: "127.0.0.1", external: "berth.example.com", want: []string{"berth.example.com"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := servingNames(config{BindAddress: test.bind, ExternalHostname: test.external})
			if err != nil {
				t.Fatal(err)
			}
			want := sans(append([]string{"localhost", "127.0.0.1", "::1", hostname()}, test.want...)...)
			if !covers(got, want) || !covers(want, got) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
	// The addresses of the interfaces are this machine's; loopback's is one of them.
	every, err := servingNames(config{BindAddress: "0.0.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	if !covers(every, sans("127.0.0.1")) || covers(every, sans("0.0.0.1")) {
		t.Errorf("with 0.0.0.0: %v", every)
	}
}

func covers(have, want sanSet) bool {
	return want.coveredBy(&x509.Certificate{DNSNames: have.dns, IPAddresses: have.netIPs()})
}

func TestServerName(t *testing.T) {
	for name, test := range map[string]struct {
		sans sanSet
		host string
		want string
	}{
		"covered address":   {sans("a.example.com", "127.0.0.1"), "127.0.0.1", ""},
		"covered name":      {sans("a.example.com"), "a.example.com", ""},
		"under a wildcard":  {sans("*.example.com"), "a.example.com", ""},
		"another name":      {sans("a.example.com"), "127.0.0.1", "a.example.com"},
		"a wildcard":        {sans("*.example.com"), "127.0.0.1", "berth.example.com"},
		"another address":   {sans("192.0.2.7"), "127.0.0.1", "192.0.2.7"},
		"no name whatever":  {sans(), "127.0.0.1", ""},
		"an IPv6 loopback":  {sans("::1"), "::1", ""},
		"an IPv6 by a name": {sans("a.example.com"), "::1", "a.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			cert := &x509.Certificate{DNSNames: test.sans.dns, IPAddresses: test.sans.netIPs()}
			if got := serverName(cert, test.host); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
