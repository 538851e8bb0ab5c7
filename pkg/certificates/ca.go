// Package certificates creates and keeps the serving certificate and the CA that signs it, or
// holds one that the user provides, and signs client certificates and those of etcd.
package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	certutil "k8s.io/client-go/util/cert"

	"github.com/berth-project/berth/pkg/files"
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	certLifetime = 365 * 24 * time.Hour
	// renewBefore is how long before it expires the serving certificate is replaced.
	renewBefore = 30 * 24 * time.Hour
	// clockSkew is how far a client's clock may be behind when a certificate is new.
	clockSkew = time.Hour
)

// Dir is the directory that holds a CA, a serving certificate, and their keys.
type Dir string

// CACert returns the path of the CA's certificate.
func (d Dir) CACert() string { return filepath.Join(string(d), "ca.crt") }

// CAKey returns the path of the CA's key.
func (d Dir) CAKey() string { return filepath.Join(string(d), "ca.key") }

// Cert returns the path of the serving certificate.
func (d Dir) Cert() string { return filepath.Join(string(d), "apiserver.crt") }

// Key returns the path of the serving certificate's key.
func (d Dir) Key() string { return filepath.Join(string(d), "apiserver.key") }

// Ensure returns a serving certificate that is valid for names, which are host names and IP
// addresses, signed by the CA in the directory. It creates the directory, the CA and the
// certificate if they do not exist, and replaces the certificate if it expires within 30 days
// of now, is not valid for all names, or was not signed by the CA. It never replaces a CA,
// since clients trust it: a damaged or expired one is an error. Only one caller at a time may
// use a directory.
func (d Dir) Ensure(names []string, now time.Time) (*Serving, error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the directory of the certificates: %w", err)
	}
	ca, err := d.ensureCA("berth-ca", now)
	if err != nil {
		return nil, err
	}
	serving := &Serving{CAPEM: encode(ca.Leaf.Raw), CAFile: d.CACert()}
	serving.Pair, err = d.ensureLeaf(ca, leaf{
		commonName: "berth-apiserver",
		names:      names,
		usage:      []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		cert:       d.Cert(),
		key:        d.Key(),
	}, now)
	if err != nil {
		return nil, err
	}
	return serving, nil
}

// ensureCA returns the CA. Its key is nil if its file does not exist: it may be kept elsewhere
// as long as nothing has to be signed.
func (d Dir) ensureCA(name string, now time.Time) (*tls.Certificate, error) {
	certs, err := certutil.CertsFromFile(d.CACert())
	if errors.Is(err, fs.ErrNotExist) {
		return makePair(caTemplate(name, now), nil, d.CACert(), d.CAKey())
	}
	if err != nil {
		return nil, fmt.Errorf("%w; restore it, or remove %s to have a new CA made", err, d)
	}
	if now.After(certs[0].NotAfter) {
		return nil, fmt.Errorf("%s has expired on %s, and it is %s by this machine's clock; set the clock if it is wrong, otherwise remove %s to have a new CA made, which clients must then trust",
			d.CACert(), certs[0].NotAfter.Format(time.DateOnly), now.Format(time.DateOnly), d)
	}
	ca, err := tls.LoadX509KeyPair(d.CACert(), d.CAKey())
	if errors.Is(err, fs.ErrNotExist) {
		return &tls.Certificate{Leaf: certs[0]}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; restore it, or remove %s to have a new CA made", d.CAKey(), err, d)
	}
	return &ca, nil
}

// caTemplate is for a CA that signs no other CA.
func caTemplate(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
}

// leaf is a certificate that a CA signs, and where it is.
type leaf struct {
	commonName string
	names      []string // host names and IP addresses
	usage      []x509.ExtKeyUsage
	cert, key  string // paths
}

// ensureLeaf returns a certificate that the CA in d signs. It keeps the one that is there as long as
// that is still good.
func (d Dir) ensureLeaf(ca *tls.Certificate, want leaf, now time.Time) (*tls.Certificate, error) {
	if cert, err := tls.LoadX509KeyPair(want.cert, want.key); err == nil && stillGood(cert.Leaf, ca.Leaf, want, now) {
		return &cert, nil
	}
	if ca.PrivateKey == nil {
		return nil, fmt.Errorf("%s must be issued again and %s does not exist; restore it, or remove %s to have a new CA made",
			want.cert, d.CAKey(), d)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: want.commonName},
		NotBefore:   now.Add(-clockSkew),
		NotAfter:    now.Add(certLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: want.usage,
	}
	if template.NotAfter.After(ca.Leaf.NotAfter) {
		template.NotAfter = ca.Leaf.NotAfter
	}
	for _, name := range want.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return makePair(template, ca, want.cert, want.key)
}

// makePair makes a pair as sign does, and writes both. The certificate is written last: a crash in
// between leaves a CA's key that nobody trusts yet, or a pair that does not match, and the next start
// replaces either.
func makePair(template *x509.Certificate, ca *tls.Certificate, certPath, keyPath string) (*tls.Certificate, error) {
	pair, keyPEM, err := sign(template, ca)
	if err != nil {
		return nil, err
	}
	if err := files.Write(keyPath, keyPEM, 0o600); err != nil {
		return nil, err
	}
	if err := files.Write(certPath, encode(pair.Leaf.Raw), 0o644); err != nil {
		return nil, err
	}
	return pair, nil
}

// sign makes a key, and has its certificate signed by ca, or by itself if ca is nil.
func sign(template *x509.Certificate, ca *tls.Certificate) (pair *tls.Certificate, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if ca == nil {
		ca = &tls.Certificate{Leaf: template, PrivateKey: key}
	}
	// CreateCertificate chooses a random serial number.
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Leaf, &key.PublicKey, ca.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	pair = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}
	return pair, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// stillGood reports whether a certificate can be kept. One that expires together with its CA is
// kept until then: a new one would expire no later.
func stillGood(cert, ca *x509.Certificate, want leaf, now time.Time) bool {
	if expiresSoon(cert, now) && cert.NotAfter.Before(ca.NotAfter) {
		return false
	}
	for _, name := range want.names {
		if cert.VerifyHostname(name) != nil {
			return false
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, usage := range want.usage {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return false
		}
	}
	return true
}
