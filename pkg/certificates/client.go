package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	certutil "k8s.io/client-go/util/cert"
)

// userUID is the type of the attribute of a subject that kube-apiserver takes a user's UID from.
var userUID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}

// ClientCACert returns the path of the certificate of the CA that signs client certificates.
func (d Dir) ClientCACert() string { return filepath.Join(string(d), "client-ca.crt") }

// ClientCAKey returns the path of the key of the CA that signs client certificates.
func (d Dir) ClientCAKey() string { return filepath.Join(string(d), "client-ca.key") }

// EnsureClientCA creates the CA that signs client certificates, and the directory, if they do not
// exist. It replaces a CA that has expired: so has all that it signed. It is not the CA of the
// serving certificate, so that who replaces one of them keeps the other. A damaged one is an error.
func (d Dir) EnsureClientCA(now time.Time) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("cannot make the directory of the certificates: %w", err)
	}
	certs, err := certutil.CertsFromFile(d.ClientCACert())
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && now.After(certs[0].NotAfter):
		_, err = makePair(caTemplate("berth-client-ca", now), nil, d.ClientCACert(), d.ClientCAKey())
	case err != nil:
		err = fmt.Errorf("%w; restore it, or remove it to have a new CA made, whose certificates clients must then get", err)
	}
	return err
}

// Client says whom a client certificate is for.
type Client struct {
	User   string
	Groups []string
	UID    string // may be empty
}

// IssueClient returns a new client certificate, signed by the CA of EnsureClientCA, and its key, both
// as PEM. It expires at a time, or with its CA if that is earlier.
func (d Dir) IssueClient(c Client, now, expires time.Time) (certPEM, keyPEM []byte, leaf *x509.Certificate, err error) {
	ca, err := tls.LoadX509KeyPair(d.ClientCACert(), d.ClientCAKey())
	if err != nil {
		return nil, nil, nil, err
	}
	if ca.Leaf.NotAfter.Before(expires) {
		expires = ca.Leaf.NotAfter
	}
	subject := pkix.Name{CommonName: c.User, Organization: c.Groups}
	if c.UID != "" {
		subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: userUID, Value: c.UID}}
	}
	pair, keyPEM, err := sign(&x509.Certificate{
		Subject:     subject,
		NotBefore:   now.Add(-clockSkew),
		NotAfter:    expires,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, &ca)
	if err != nil {
		return nil, nil, nil, err
	}
	return encode(pair.Leaf.Raw), keyPEM, pair.Leaf, nil
}
