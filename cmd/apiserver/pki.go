package main

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
	"time"
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	certLifetime = 365 * 24 * time.Hour
	// renewBefore is how much of the serving certificate's life is left when a start
	// replaces it.
	renewBefore = 30 * 24 * time.Hour
	// clockSkew is how far behind ours the clock of a client may be on the first day.
	clockSkew = time.Hour
)

// certificateAuthority signs the serving certificate. key is nil where its file is
// not there, as when it is kept elsewhere: enough as long as nothing is to be signed.
type certificateAuthority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// ensurePKI returns a serving certificate that covers names and the PEM text of the CA
// that clients trust it by. Both are made where they do not exist; the certificate is
// also replaced when it expires within renewBefore, does not cover names or is no
// longer the CA's. A CA that exists is never replaced, since clients trust it: one that
// is damaged or expired is an error.
func ensurePKI(files dataFiles, names sanSet, now time.Time) (*tls.Certificate, []byte, error) {
	if err := os.MkdirAll(files.pki(), 0o700); err != nil {
		return nil, nil, fmt.Errorf("cannot make the directory of the certificates: %w", err)
	}
	ca, err := ensureCA(files, now)
	if err != nil {
		return nil, nil, err
	}
	caPEM := encodeCertificates(ca.cert)
	if cert, err := tls.LoadX509KeyPair(files.cert(), files.key()); err == nil && stillGood(cert.Leaf, ca.cert, names, now) {
		return &cert, caPEM, nil
	}
	cert, err := issueServing(files, ca, names, now)
	return cert, caPEM, err
}

func ensureCA(files dataFiles, now time.Time) (*certificateAuthority, error) {
	data, err := os.ReadFile(files.caCert())
	if errors.Is(err, fs.ErrNotExist) {
		return makeCA(files, now)
	}
	if err != nil {
		return nil, err
	}
	ca, err := loadCA(files, data)
	if err != nil {
		return nil, fmt.Errorf("%w; restore it, or remove %s to have a new CA made", err, files.pki())
	}
	if now.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("%s has expired on %s; remove %s to have a new CA made",
			files.caCert(), ca.cert.NotAfter.Format(time.DateOnly), files.pki())
	}
	return ca, nil
}

func loadCA(files dataFiles, data []byte) (*certificateAuthority, error) {
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files.caCert(), err)
	}
	ca := &certificateAuthority{cert: certs[0]}
	pair, err := tls.LoadX509KeyPair(files.caCert(), files.caKey())
	if errors.Is(err, fs.ErrNotExist) {
		return ca, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files.caKey(), err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: the key is no ECDSA key", files.caKey())
	}
	ca.key = key
	return ca, nil
}

func makeCA(files dataFiles, now time.Time) (*certificateAuthority, error) {
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
	ca := &certificateAuthority{cert: template, key: key}
	if ca.cert, err = ca.sign(template, &key.PublicKey); err != nil {
		return nil, err
	}
	// The certificate comes last: as long as it is not there, nobody trusts the key, and
	// both can be made anew.
	if err := writePair(files.caKey(), key, files.caCert(), ca.cert); err != nil {
		return nil, err
	}
	return ca, nil
}

func issueServing(files dataFiles, ca *certificateAuthority, names sanSet, now time.Time) (*tls.Certificate, error) {
	if ca.key == nil {
		return nil, fmt.Errorf("%s must be issued anew and %s is not there; restore it, or remove %s to have a new CA made",
			files.cert(), files.caKey(), files.pki())
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
	// A crash between the two files leaves a pair that does not fit, which the next start
	// replaces.
	if err := writePair(files.key(), key, files.cert(), cert); err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

func (ca *certificateAuthority) sign(template *x509.Certificate, public *ecdsa.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// stillGood reports whether a serving certificate can be kept. One that a CA near its
// own end has signed is kept for as long as that CA: a new one would end no later.
func stillGood(cert, ca *x509.Certificate, names sanSet, now time.Time) bool {
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
	if err := writeFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	return writeFile(certPath, encodeCertificates(cert), 0o644)
}

// serialNumber is a random positive number of 127 bits. (RFC 5280, 4.1.2.2: positive,
// unique for the CA, at most 20 bytes.)
func serialNumber() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails, by its documentation
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}
