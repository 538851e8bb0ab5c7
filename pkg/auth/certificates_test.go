package auth

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/test/harness"
)

// trusting returns Certificates that trust these CAs, and loads others.
func trusting(t testing.TB, cas ...*harness.Authority) (*Certificates, func(...*harness.Authority)) {
	t.Helper()
	c, path := NewCertificates(), filepath.Join(t.TempDir(), "ca.crt")
	load := func(cas ...*harness.Authority) {
		t.Helper()
		var bundle strings.Builder
		for _, ca := range cas {
			bundle.Write(ca.PEM())
		}
		writeFile(t, path, bundle.String())
		if err := c.Load(path); err != nil {
			t.Fatal(err)
		}
	}
	load(cas...)
	return c, load
}

// chainOf returns what a server sees of a client's certificate and intermediates.
func chainOf(t testing.TB, pair *tls.Certificate, intermediates ...*harness.Authority) []*x509.Certificate {
	t.Helper()
	chain := []*x509.Certificate{pair.Leaf}
	for _, ca := range intermediates {
		certificate, err := x509.ParseCertificate(ca.DER())
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, certificate)
	}
	return chain
}

func withUID(values ...string) pkix.Name {
	name := pkix.Name{CommonName: "ann"}
	for _, value := range values {
		name.ExtraNames = append(name.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}, Value: value})
	}
	return name
}

func TestCertificates(t *testing.T) {
	ca, other := harness.NewAuthority(t, "ca"), harness.NewAuthority(t, "ca") // of the same name
	between := ca.Intermediate(t, "between")
	sign := func(template x509.Certificate) []*x509.Certificate {
		return chainOf(t, harness.Sign(t, ca, &template))
	}
	now := time.Now()
	ann := pkix.Name{CommonName: "ann"}
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		want  *User // without extra; nil: nobody
		err   string
	}{
		"a user with groups":       {chain: chainOf(t, ca.Client(t, "ann", "dev", "system:masters")), want: &User{Name: "ann", Groups: []string{"dev", "system:masters", AllAuthenticated}}},
		"without groups":           {chain: chainOf(t, ca.Client(t, "ann")), want: &User{Name: "ann", Groups: []string{AllAuthenticated}}},
		"with a uid":               {chain: sign(x509.Certificate{Subject: withUID("u-1")}), want: &User{Name: "ann", UID: "u-1", Groups: []string{AllAuthenticated}}},
		"with two uids":            {chain: sign(x509.Certificate{Subject: withUID("u-1", "u-2")}), err: "one UID (1.3.6.1.4.1.57683.2) at most"},
		"with an empty uid":        {chain: sign(x509.Certificate{Subject: withUID("")}), err: "one UID"},
		"without a name":           {chain: sign(x509.Certificate{Subject: pkix.Name{Organization: []string{"dev"}}})},
		"no certificate":           {},
		"for any use":              {chain: sign(x509.Certificate{Subject: ann, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}), want: &User{Name: "ann", Groups: []string{AllAuthenticated}}},
		"for servers":              {chain: sign(x509.Certificate{Subject: ann, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}), err: "incompatible key usage"},
		"expired":                  {chain: sign(x509.Certificate{Subject: ann, NotAfter: now.Add(-time.Second)}), err: "certificate has expired"},
		"not valid yet":            {chain: sign(x509.Certificate{Subject: ann, NotBefore: now.Add(time.Hour)}), err: "not yet valid"},
		"of another CA":            {chain: chainOf(t, other.Client(t, "ann", "system:masters")), err: "unknown authority"},
		"its own":                  {chain: chainOf(t, harness.Sign(t, nil, &x509.Certificate{Subject: ann})), err: "unknown authority"},
		"the CA's":                 {chain: chainOf(t, ca.Client(t, "x"), ca)[1:], want: &User{Name: "ca", Groups: []string{AllAuthenticated}}},
		"of an intermediate":       {chain: chainOf(t, between.Client(t, "ann"), between), want: &User{Name: "ann", Groups: []string{AllAuthenticated}}},
		"without the intermediate": {chain: chainOf(t, between.Client(t, "bob")), err: "unknown authority"},
		"among strangers":          {chain: chainOf(t, between.Client(t, "ann"), other, between), want: &User{Name: "ann", Groups: []string{AllAuthenticated}}},
		"signed by a client":       {chain: chainOf(t, signedByClient(t, ca)), err: "unknown authority"},
		"twice":                    {chain: chainOf(t, between.Client(t, "ann"), between, between), want: &User{Name: "ann", Groups: []string{AllAuthenticated}}},
		"of many ways":             {chain: chainOf(t, between.Client(t, "ann"), between, ca.Intermediate(t, "between")), err: "two of the certificates that were presented have the same subject"},
		"too many":                 {chain: chainOf(t, ca.Client(t, "ann"), other, other, other, other), err: "5 certificates were presented, and 4 are the most"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := trusting(t, ca)
			for range 2 { // the second time it is known
				id, err := c.Authenticate(test.chain)
				if test.err != "" {
					if err == nil || !strings.Contains(err.Error(), test.err) || id != nil {
						t.Errorf("got %v, %v, want %q", id, err, test.err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if test.want == nil {
					if id != nil {
						t.Errorf("it is that of %v", id.User)
					}
					continue
				}
				if id == nil {
					t.Fatal("it names nobody")
				}
				if extra := id.User.Extra[credentialID]; len(extra) != 1 || !strings.HasPrefix(extra[0], "X509SHA256=") || len(extra[0]) != len("X509SHA256=")+64 {
					t.Errorf("extra %v", id.User.Extra)
				}
				got := id.User
				got.Extra = nil
				if diff := cmp.Diff(*test.want, got); diff != "" {
					t.Errorf("user (-want +got):\n%s", diff)
				}
			}
		})
	}
	if id, err := NewCertificates().Authenticate(chainOf(t, ca.Client(t, "ann"))); id != nil || err != nil {
		t.Errorf("without CAs: %v, %v", id, err)
	}
	if id, err := (*Certificates)(nil).Authenticate(chainOf(t, ca.Client(t, "ann"))); id != nil || err != nil {
		t.Errorf("without Certificates: %v, %v", id, err)
	}
}

// signedByClient returns a certificate that a client has signed with its own.
func signedByClient(t *testing.T, ca *harness.Authority) *tls.Certificate {
	client := ca.Intermediate(t, "client")
	return client.Client(t, "ann", "system:masters")
}

// All certificates of a user share the buckets of one ID, which is no token's.
func TestCertificatesShareAnID(t *testing.T) {
	ca := harness.NewAuthority(t, "ca")
	c, _ := trusting(t, ca)
	first, err := c.Authenticate(chainOf(t, ca.Client(t, "ann", "dev")))
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Authenticate(chainOf(t, ca.Client(t, "ann")))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := c.Authenticate(chainOf(t, ca.Client(t, "bob")))
	if err != nil {
		t.Fatal(err)
	}
	if first == second || first.ID != second.ID || first.ID == stranger.ID || first.ID != UserID("ann") {
		t.Errorf("ids %x, %x, %x", first.ID, second.ID, stranger.ID)
	}
	if got := len(c.Of("ann")); got != 2 || len(c.Of("carol")) != 0 {
		t.Errorf("ann has %d", got)
	}
}

// An identity ends when its CA is no longer trusted, and stays over every other reload.
func TestCertificatesFollowTheirCA(t *testing.T) {
	ca, other := harness.NewAuthority(t, "ca"), harness.NewAuthority(t, "other")
	between := ca.Intermediate(t, "between")
	c, load := trusting(t, ca)
	chain, deep, foreign := chainOf(t, ca.Client(t, "ann")), chainOf(t, between.Client(t, "bob"), between), chainOf(t, other.Client(t, "cid"))
	ann, err := c.Authenticate(chain)
	if err != nil {
		t.Fatal(err)
	}
	bob, err := c.Authenticate(deep)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Authenticate(foreign); err == nil {
		t.Fatal("a foreign certificate was accepted")
	}
	load(other, ca)
	if again, err := c.Authenticate(chain); again != ann || err != nil || ann.Valid.Err() != nil || bob.Valid.Err() != nil {
		t.Errorf("with one more CA it is another (%v)", err)
	}
	cid, err := c.Authenticate(foreign)
	if err != nil {
		t.Errorf("the error before it was trusted stays: %v", err)
	}
	load(other)
	if ann.Valid.Err() == nil || bob.Valid.Err() == nil || cid.Valid.Err() != nil {
		t.Errorf("without its CA: %v, %v, with its CA: %v", ann.Valid.Err(), bob.Valid.Err(), cid.Valid.Err())
	}
	for _, chain := range [][]*x509.Certificate{chain, deep} {
		if id, err := c.Authenticate(chain); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("without its CA: %v, %v", id, err)
		}
	}
	path := filepath.Join(t.TempDir(), "ca.crt")
	damaged := strings.Replace(string(ca.PEM()), "\nMI", "\n!!", 1)
	for text, want := range map[string]string{
		"": "it has no certificate in PEM form",
		string(harness.KeyPEM(t, ca.Client(t, "x"))):                     "it has no certificate in PEM form",
		string(other.PEM()) + damaged:                                    "1 of its 2 certificates are damaged",
		"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n": "certificate 1: x509: malformed",
	} {
		writeFile(t, path, text)
		if err := c.Load(path); err == nil || !strings.HasPrefix(err.Error(), path+": "+want) {
			t.Errorf("of %q: %v, want %q", text, err, want)
		}
	}
	if again, err := c.Authenticate(foreign); again != cid || err != nil || cid.Valid.Err() != nil {
		t.Errorf("a refused file changed something: %v", err)
	}
}

// An identity ends with the first certificate of its chain that expires.
func TestCertificatesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := harness.NewAuthority(t, "ca")
		began := time.Now()
		c, _ := trusting(t, ca)
		brief := chainOf(t, harness.Sign(t, ca, &x509.Certificate{Subject: pkix.Name{CommonName: "ann"}, NotAfter: began.Add(time.Hour)}))
		early := chainOf(t, harness.Sign(t, ca, &x509.Certificate{Subject: pkix.Name{CommonName: "bob"}, NotBefore: began.Add(30 * time.Minute)}))
		id, err := c.Authenticate(brief)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Authenticate(early); err == nil {
			t.Error("a certificate is accepted before it is valid")
		}
		<-id.Valid.Done()
		if lasted := time.Since(began); lasted != time.Hour {
			t.Errorf("it ended after %v", lasted)
		}
		if _, err := c.Authenticate(brief); err == nil || !strings.Contains(err.Error(), "has expired") || len(c.Of("ann")) != 0 {
			t.Errorf("after that: %v", err)
		}
		if id, err := c.Authenticate(early); err != nil || id == nil {
			t.Errorf("it is valid now: %v", err)
		}
	})
}

// What clients can make grow has a bound.
func TestCertificatesAreBounded(t *testing.T) {
	ca, other := harness.NewAuthority(t, "ca"), harness.NewAuthority(t, "other")
	c, _ := trusting(t, ca)
	for i := range maxKnown {
		id, _, err := NewIdentity(UserID("x"), User{Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		c.known[[32]byte{byte(i), byte(i >> 8), 1}] = knownCertificate{identity: id}
	}
	if _, err := c.Authenticate(chainOf(t, ca.Client(t, "bob"))); err != nil || len(c.known) != maxKnown {
		t.Errorf("%d are known, %v", len(c.known), err)
	}
	if again, err := c.Authenticate(chainOf(t, ca.Client(t, "cid"))); err != nil || again == nil || len(c.known) != maxKnown {
		t.Error(err)
	}
	bad := chainOf(t, other.Client(t, "eve"))
	for i := range maxRefused + 10 {
		certificate := *bad[0]
		certificate.Raw = append(certificate.Raw[:len(certificate.Raw):len(certificate.Raw)], big.NewInt(int64(i)).Bytes()...)
		if _, err := c.Authenticate([]*x509.Certificate{&certificate}); err == nil {
			t.Fatal("accepted")
		}
	}
	if len(c.refused) > maxRefused {
		t.Errorf("%d errors are kept", len(c.refused))
	}
}

func TestCertificatesAgainstReloads(t *testing.T) {
	ca, other := harness.NewAuthority(t, "ca"), harness.NewAuthority(t, "other")
	c, load := trusting(t, ca, other)
	chain := chainOf(t, ca.Client(t, "ann"))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				if id, err := c.Authenticate(chain); id != nil && err == nil && id.User.Name != "ann" {
					t.Errorf("it is that of %v", id.User)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 100 {
		load(other)
		load(ca)
	}
	close(done)
	readers.Wait()
	load(other)
	if id, err := c.Authenticate(chain); err == nil || len(c.Of("ann")) != 0 {
		t.Errorf("after the last reload: %v", id)
	}
}

func TestClientCAs(t *testing.T) {
	ca := harness.NewAuthority(t, "ca")
	c, load := trusting(t, ca)
	if pool := c.ClientCAs(); pool == nil || NewCertificates().ClientCAs() != nil {
		t.Error("a CA is not told of, or one is where there is none")
	}
	old := harness.Sign(t, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: "old"}, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(-time.Hour),
	})
	path := filepath.Join(t.TempDir(), "ca.crt")
	writeFile(t, path, string(harness.CertificatePEM(old))+string(ca.PEM()))
	if err := c.Load(path); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"CN=old"}, c.ExpiredCAs(time.Now())); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
	var many []*harness.Authority
	for i := range 20 {
		many = append(many, harness.NewAuthority(t, fmt.Sprint(i, strings.Repeat("x", 1000))))
	}
	load(many...)
	if c.ClientCAs() != nil {
		t.Error("20 KB of names would be sent at each handshake")
	}
}

// FuzzLoadCAs checks that a file with CAs is read whole or not at all.
func FuzzLoadCAs(f *testing.F) {
	ca := harness.NewAuthority(f, "ca")
	f.Add(ca.PEM())
	f.Add(append(ca.PEM(), []byte("# text\n-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")...))
	f.Fuzz(func(t *testing.T, data []byte) {
		trusted, err := parseCAs(data)
		if (err == nil) != (trusted != nil && len(trusted.cas) > 0) {
			t.Fatalf("got %v, %v", trusted, err)
		}
		if begun := strings.Count(string(data), "-----BEGIN CERTIFICATE-----"); err == nil && len(trusted.cas) > begun {
			t.Fatalf("%d CAs of %d blocks", len(trusted.cas), begun)
		}
	})
}

func BenchmarkCertificates(b *testing.B) {
	ca := harness.NewAuthority(b, "ca")
	c, _ := trusting(b, ca)
	for name, chain := range map[string][]*x509.Certificate{
		"known":   chainOf(b, ca.Client(b, "ann", "dev")),
		"refused": chainOf(b, harness.NewAuthority(b, "ca").Client(b, "ann")),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = c.Authenticate(chain)
			}
		})
	}
}
