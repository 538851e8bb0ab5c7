package harness

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"
	"time"
)

// Authority is a CA that signs whatever a test wants, a year before and after now.
type Authority struct{ pair *tls.Certificate }

// NewAuthority returns a new CA with this common name.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	return &Authority{Sign(t, nil, authorityTemplate(name))}
}

// Intermediate returns a CA that a has signed.
func (a *Authority) Intermediate(t testing.TB, name string) *Authority {
	t.Helper()
	return &Authority{Sign(t, a, authorityTemplate(name))}
}

func authorityTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
}

// PEM returns the certificate of the CA.
func (a *Authority) PEM() []byte { return CertificatePEM(a.pair) }

// DER returns the certificate of the CA.
func (a *Authority) DER() []byte { return a.pair.Leaf.Raw }

// Client returns a client certificate of a user.
func (a *Authority) Client(t testing.TB, user string, groups ...string) *tls.Certificate {
	t.Helper()
	return Sign(t, a, &x509.Certificate{Subject: pkix.Name{CommonName: user, Organization: groups}})
}

// Sign signs a certificate with a new key, as its own CA if by is nil. Without dates it is valid
// for a year before and after now; without usages it is for clients.
func Sign(t testing.TB, by *Authority, template *x509.Certificate) *tls.Certificate {
	t.Helper()
	const year = 365 * 24 * time.Hour
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-year)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(year)
	}
	if template.ExtKeyUsage == nil && !template.IsCA {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by = &Authority{&tls.Certificate{Leaf: template, PrivateKey: key}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.pair.Leaf, &key.PublicKey, by.pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// CertificatePEM returns the certificates of a pair.
func CertificatePEM(pair *tls.Certificate) []byte {
	var text bytes.Buffer
	for _, der := range pair.Certificate {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a buffer never fails
	}
	return text.Bytes()
}

// KeyPEM returns the key of a pair.
func KeyPEM(t testing.TB, pair *tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
