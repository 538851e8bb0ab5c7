package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// Serving is a serving certificate with the certificates by which clients trust it.
type Serving struct {
	Pair   *tls.Certificate // with its Leaf
	CAPEM  []byte           // the certificates by which clients trust Pair
	CAFile string           // the path of a file that contains CAPEM
}

// Holder holds the certificate for new TLS connections. Its zero value holds none; its
// methods are safe for concurrent use.
type Holder struct{ current atomic.Pointer[Serving] }

// Get returns the current certificate, or nil before the first Set or Load.
func (h *Holder) Get() *Serving { return h.current.Load() }

// Set replaces the certificate.
func (h *Holder) Set(s *Serving) { h.current.Store(s) }

// GetCertificate implements the function of that name in tls.Config.
func (h *Holder) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return h.current.Load().Pair, nil
}

// Load replaces the certificate with that of a PEM file, which may also contain
// intermediates, and its key. After an error the previous one stays.
//
// Clients trust the certificates in the file themselves: the CA may or may not be among
// them, and once a kubeconfig has CA data, kubectl ignores the system's CAs.
func (h *Holder) Load(certFile, keyFile string) error {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", certFile, keyFile, err)
	}
	if _, err := x509.ParseCertificates(slices.Concat(pair.Certificate...)); err != nil {
		return fmt.Errorf("%s: %w", certFile, err)
	}
	h.Set(&Serving{Pair: &pair, CAPEM: encode(pair.Certificate...), CAFile: certFile})
	return nil
}

// ServerName returns the name by which a client that connects to host must verify the
// certificate: "" if it is valid for host itself, or for no name at all.
func (s *Serving) ServerName(host string) string {
	switch cert := s.Pair.Leaf; {
	case cert.VerifyHostname(host) == nil:
		return ""
	case len(cert.DNSNames) > 0:
		// Any name that the wildcard matches will do.
		return strings.Replace(cert.DNSNames[0], "*", "berth", 1)
	case len(cert.IPAddresses) > 0:
		return cert.IPAddresses[0].String()
	default:
		return ""
	}
}

// encode returns certificates in DER form as PEM.
func encode(certs ...[]byte) []byte {
	var out []byte
	for _, der := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}
