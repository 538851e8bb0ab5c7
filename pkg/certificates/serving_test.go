package certificates

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-project/berth/test/harness"
)

func TestServerName(t *testing.T) {
	for name, test := range map[string]struct {
		names []string
		host  string
		want  string
	}{
		"covered address":   {[]string{"a.example.com", "127.0.0.1"}, "127.0.0.1", ""},
		"covered name":      {[]string{"a.example.com"}, "a.example.com", ""},
		"under a wildcard":  {[]string{"*.example.com"}, "a.example.com", ""},
		"another name":      {[]string{"a.example.com"}, "127.0.0.1", "a.example.com"},
		"a wildcard":        {[]string{"*.example.com"}, "127.0.0.1", "berth.example.com"},
		"another address":   {[]string{"192.0.2.7"}, "127.0.0.1", "192.0.2.7"},
		"no name whatever":  {nil, "127.0.0.1", ""},
		"an IPv6 loopback":  {[]string{"::1"}, "::1", ""},
		"an IPv6 by a name": {[]string{"a.example.com"}, "::1", "a.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			serving, err := Dir(t.TempDir()).Ensure(test.names, pkiTime)
			if err != nil {
				t.Fatal(err)
			}
			if got := serving.ServerName(test.host); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestLoadFindsTheCA(t *testing.T) {
	pki, other := madePKI(t), madePKI(t)
	leaf, ca, key := harness.ReadFile(t, pki.Cert()), harness.ReadFile(t, pki.CACert()), pki.Key()
	otherCA := harness.ReadFile(t, other.CACert())
	for name, test := range map[string]struct {
		cert, key, ca string
		want          string // CA of clients
		unknown       bool
		fails         string
	}{
		"CA in the file":                 {cert: leaf + ca, key: key, want: ca},
		"another CA in the file":         {cert: leaf + otherCA, key: key, unknown: true},
		"no CA":                          {cert: leaf, key: key, unknown: true},
		"it signed itself":               {cert: ca, key: pki.CAKey(), want: ca},
		"it signed itself, and one more": {cert: ca + otherCA, key: pki.CAKey(), want: ca},
		"CA named":                       {cert: leaf, key: key, ca: ca, want: ca},
		"CA named among others":          {cert: leaf, key: key, ca: otherCA + ca, want: otherCA + ca},
		"CA named and in the file":       {cert: leaf + ca, key: key, ca: ca, want: ca},
		"another CA named":               {cert: leaf, key: key, ca: otherCA, fails: "the CA in CAFILE did not sign the certificate: x509: certificate signed by unknown authority"},
		"no certificate is named":        {cert: leaf, key: key, ca: "none", fails: "CAFILE"},
		"another key":                    {cert: leaf, key: other.Key(), fails: "private key does not match public key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			certFile, caFile := filepath.Join(dir, "crt"), ""
			harness.WriteFile(t, certFile, test.cert)
			if test.ca != "" {
				caFile = filepath.Join(dir, "ca")
				harness.WriteFile(t, caFile, test.ca)
			}
			var h Holder
			old := &Serving{}
			h.Set(old)
			err := h.Load(certFile, test.key, caFile)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(test.fails, "CAFILE", caFile)) || h.Get() != old {
					t.Errorf("got %v, want %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := h.Get(); string(got.CAPEM) != test.want || got.Unknown != test.unknown || (got.CAFile == "") != (test.want == "") {
				t.Errorf("got %q in %q, unknown %v", got.CAPEM, got.CAFile, got.Unknown)
			}
		})
	}
}
