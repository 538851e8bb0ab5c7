// Package certificates creates and keeps the serving certificate and the CA that signs it,
// or holds one that the user provides.
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
	"math/big"
	"os"
	"path/filepath"
	"time"

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

// authority is a CA. Its key is nil if its file does not exist: it may be kept elsewhere as
// long as nothing has to be signed.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Ensure returns a serving certificate that is valid for names, signed by the CA in the
// directory. It creates the directory, the CA and the certificate if they do not exist, and
// replaces the certificate if it expires within 30 days of now, is not valid for all names,
// or was not signed by the CA. It never replaces a CA, since clients trust it: a damaged or
// expired one is an error. Only one caller at a time may use a directory.
func (d Dir) Ensure(names Names, now time.Time) (*Serving, error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the directory of the certificates: %w", err)
	}
	ca, err := d.ensureCA(now)
	if err != nil {
		return nil, err
	}
	serving := &Serving{CAPEM: encode(ca.cert), CAFile: d.CACert()}
	if cert, err := tls.LoadX509KeyPair(d.Cert(), d.Key()); err == nil && stillGood(cert.Leaf, ca.cert, names, now) {
		serving.Pair = &cert
		return serving, nil
	}
	if serving.Pair, err = d.issue(ca, names, now); err != nil {
		return nil, err
	}
	return serving, nil
}

func (d Dir) ensureCA(now time.Time) (*authority, error) {
	data, err := os.ReadFile(d.CACert())
	if errors.Is(err, fs.ErrNotExist) {
		return d.makeCA(now)
	}
	if err != nil {
		return nil, err
	}
	ca, err := d.loadCA(data)
	if err != nil {
		return nil, fmt.Errorf("%w; restore it, or remove %s to have a new CA made", err, d)
	}
	if now.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("%s has expired on %s; remove %s to have a new CA made",
			d.CACert(), ca.cert.NotAfter.Format(time.DateOnly), d)
	}
	return ca, nil
}

func (d Dir) loadCA(data []byte) (*authority, error) {
	certs, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.CACert(), err)
	}
	ca := &authority{cert: certs[0]}
	pair, err := tls.LoadX509KeyPair(d.CACert(), d.CAKey())
	if errors.Is(err, fs.ErrNotExist) {
		return ca, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.CAKey(), err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: not an ECDSA key", d.CAKey())
	}
	ca.key = key
	return ca, nil
}

func (d Dir) makeCA(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("berth-ca@%d", now.Unix())},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	ca := &authority{cert: template, key: key}
	if ca.cert, err = ca.sign(template, &key.PublicKey); err != nil {
		return nil, err
	}
	// The certificate is written last: until it exists, nobody trusts the key, and both can
	// be created again.
	if err := writePair(d.CAKey(), key, d.CACert(), ca.cert); err != nil {
		return nil, err
	}
	return ca, nil
}

func (d Dir) issue(ca *authority, names Names, now time.Time) (*tls.Certificate, error) {
	if ca.key == nil {
		return nil, fmt.Errorf("%s must be issued again and %s does not exist; restore it, or remove %s to have a new CA made",
			d.Cert(), d.CAKey(), d)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(certLifetime)
	if notAfter.After(ca.cert.NotAfter) {
		notAfter = ca.cert.NotAfter
	}
	cert, err := ca.sign(&x509.Certificate{
		SerialNumber: serialNumber(),
		Subject:      pkix.Name{CommonName: "berth-apiserver"},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     names.dns,
		IPAddresses:  names.netIPs(),
	}, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	// A crash between the two leaves a pair that does not match, which the next start
	// replaces.
	if err := writePair(d.Key(), key, d.Cert(), cert); err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

func (ca *authority) sign(template *x509.Certificate, public *ecdsa.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// stillGood reports whether a serving certificate can be kept. One that expires together with
// its CA is kept until then: a new one would expire no later.
func stillGood(cert, ca *x509.Certificate, names Names, now time.Time) bool {
	if now.Add(renewBefore).After(cert.NotAfter) && cert.NotAfter.Before(ca.NotAfter) {
		return false
	}
	if !names.coveredBy(cert) {
		return false
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now})
	return err == nil
}

func writePair(keyPath string, key *ecdsa.PrivateKey, certPath string, cert *x509.Certificate) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := files.Write(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	return files.Write(certPath, encode(cert), 0o644)
}

// serialNumber returns a random positive number of 127 bits. (RFC 5280, 4.1.2.2: positive,
// unique for the CA, at most 20 bytes.)
func serialNumber() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails, by its documentation
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}
