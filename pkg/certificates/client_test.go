package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/test/harness"
)

func TestIssueClient(t *testing.T) {
	dir := Dir(filepath.Join(t.TempDir(), "pki"))
	if _, _, _, err := dir.IssueClient(Client{User: "ann"}, pkiTime, pkiTime.Add(time.Hour)); !os.IsNotExist(err) {
		t.Errorf("without a CA: %v", err)
	}
	if err := dir.EnsureClientCA(pkiTime); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir.ClientCAKey()); err != nil || info.Mode() != 0o600 {
		t.Errorf("the key: %v, %v, want mode 0600", info, err)
	}
	certPEM, keyPEM, leaf, err := dir.IssueClient(Client{User: "ann", Groups: []string{"dev", "ops"}, UID: "u-1"}, pkiTime, pkiTime.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if pair, err := tls.X509KeyPair(certPEM, keyPEM); err != nil || !pair.Leaf.Equal(leaf) {
		t.Errorf("the pair does not match: %v", err)
	}
	subject := leaf.Subject
	if diff := cmp.Diff([]string{"dev", "ops"}, subject.Organization); subject.CommonName != "ann" || diff != "" || !strings.Contains(subject.String(), "1.3.6.1.4.1.57683.2=") || !leaf.NotAfter.Equal(pkiTime.Add(time.Hour)) {
		t.Errorf("the subject is %s, until %v", subject, leaf.NotAfter)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(harness.ReadFile(t, dir.ClientCACert())))
	for usage, works := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageClientAuth: true, x509.ExtKeyUsageServerAuth: false} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: pkiTime, KeyUsages: []x509.ExtKeyUsage{usage}}); (err == nil) != works {
			t.Errorf("usage %v: %v", usage, err)
		}
	}
	_, _, leaf, err = dir.IssueClient(Client{User: "ann"}, pkiTime, pkiTime.Add(2*caLifetime))
	if err != nil || !leaf.NotAfter.Equal(pkiTime.Add(caLifetime)) || leaf.Subject.String() != "CN=ann" {
		t.Errorf("beyond the CA: %v, %v", leaf, err)
	}
}

// The CA stays as long as what it has signed may be valid.
func TestEnsureClientCA(t *testing.T) {
	dir := Dir(filepath.Join(t.TempDir(), "pki"))
	if err := dir.EnsureClientCA(pkiTime); err != nil {
		t.Fatal(err)
	}
	first := harness.ReadFile(t, dir.ClientCACert())
	if err := dir.EnsureClientCA(pkiTime.Add(caLifetime - time.Hour)); err != nil || harness.ReadFile(t, dir.ClientCACert()) != first {
		t.Errorf("it was replaced (%v)", err)
	}
	if err := dir.EnsureClientCA(pkiTime.Add(caLifetime + time.Hour)); err != nil || harness.ReadFile(t, dir.ClientCACert()) == first {
		t.Errorf("an expired one was not replaced (%v)", err)
	}
	harness.WriteFile(t, dir.ClientCACert(), "damaged")
	if err := dir.EnsureClientCA(pkiTime); err == nil || !strings.Contains(err.Error(), "restore it, or remove it to have a new CA made") {
		t.Errorf("of a damaged one: %v", err)
	}
}
