package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// servingCert is what TLS handshakes use now, with what clients need to trust it.
type servingCert struct {
	pair *tls.Certificate
	// caPEM is the certificates that a client trusts the pair by.
	caPEM []byte
	// caFile is where they can be read.
	caFile string
}

// certHolder holds the current servingCert, never nil once the server listens.
type certHolder struct{ current atomic.Pointer[servingCert] }

func (h *certHolder) getCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return h.current.Load().pair, nil
}

// load takes the certificate of --tls-cert-file with its key. After an error the one
// before stays.
//
// A client trusts the file's certificates themselves: the CA may be among them or not,
// and one that is known to everybody is not asked for by kubectl once there is CA data.
func (h *certHolder) load(certFile, keyFile string) error {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return err
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", certFile, keyFile, err)
	}
	certs, err := parseCertificates(certPEM)
	if err != nil {
		return fmt.Errorf("%s: %w", certFile, err)
	}
	h.current.Store(&servingCert{pair: &pair, caPEM: encodeCertificates(certs...), caFile: certFile})
	return nil
}

// serverName returns the name that cert must be verified by when a client connects to
// host: empty where cert is good for host itself or has no name at all.
func serverName(cert *x509.Certificate, host string) string {
	switch {
	case cert.VerifyHostname(host) == nil:
		return ""
	case len(cert.DNSNames) > 0:
		// Any name under a wildcard does.
		return strings.Replace(cert.DNSNames[0], "*", "berth", 1)
	case len(cert.IPAddresses) > 0:
		return cert.IPAddresses[0].String()
	default:
		return ""
	}
}
