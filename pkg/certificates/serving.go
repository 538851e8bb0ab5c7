package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	certutil "k8s.io/client-go/util/cert"
)

// Serving is a serving certificate with the certificates by which clients trust it.
type Serving struct {
	Pair   *tls.Certificate // with its Leaf
	CAPEM  []byte           // the CA by which clients trust Pair; nil: one that they may know already
	CAFile string           // the path of a file that contains CAPEM; "" if that is nil
	// Unknown says that CAPEM is nil since the CA was not found, not even on this system.
	Unknown bool
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
// intermediates and the CA, and its key. After an error the previous one stays. Clients trust
// the certificates in caFile; if that is "", see findCA.
func (h *Holder) Load(certFile, keyFile, caFile string) error {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", certFile, keyFile, err)
	}
	chain, err := x509.ParseCertificates(slices.Concat(pair.Certificate...))
	if err != nil {
		return fmt.Errorf("%s: %w", certFile, err)
	}
	serving := &Serving{Pair: &pair}
	if caFile == "" {
		serving.findCA(chain, certFile)
	} else if err := serving.useCA(chain, caFile); err != nil {
		return err
	}
	h.Set(serving)
	return nil
}

// useCA has clients trust the certificates in caFile, if these are the CA of chain.
func (s *Serving) useCA(chain []*x509.Certificate, caFile string) error {
	cas, err := certutil.CertsFromFile(caFile)
	if err != nil {
		return err
	}
	if err := verifyBy(chain, cas); err != nil {
		return fmt.Errorf("the CA in %s did not sign the certificate: %w", caFile, err)
	}
	s.CAPEM, s.CAFile = encodeAll(cas), caFile
	return nil
}

// findCA finds out by what clients trust chain, which is in certFile: by the system's CAs, by
// a CA that follows the certificate in the file, or by the certificate itself if it has signed
// itself. A certificate that somebody else signed is never it, since it is replaced soon.
func (s *Serving) findCA(chain []*x509.Certificate, certFile string) {
	cas := chain[1:]
	if leaf := chain[0]; leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil {
		cas = chain[:1]
	}
	switch {
	case verifyBy(chain, nil) == nil:
	case verifyBy(chain, cas) == nil:
		s.CAPEM, s.CAFile = encodeAll(cas), certFile
	default:
		s.Unknown = true
	}
}

// verifyBy returns why a client that trusts cas, or the system's CAs if that is nil, does not
// trust chain. Expiry is not what it is about.
func verifyBy(chain, cas []*x509.Certificate) error {
	opts := x509.VerifyOptions{Intermediates: x509.NewCertPool(), CurrentTime: time.Now()}
	if leaf := chain[0]; opts.CurrentTime.After(leaf.NotAfter) {
		opts.CurrentTime = leaf.NotAfter
	}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if cas != nil {
		opts.Roots = x509.NewCertPool()
		for _, ca := range cas {
			opts.Roots.AddCert(ca)
		}
	}
	_, err := chain[0].Verify(opts)
	return err
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

// notBefore returns when the certificate and its CA, as far as it is known, have become valid.
func (s *Serving) notBefore() time.Time {
	from := s.Pair.Leaf.NotBefore
	cas, _ := certutil.ParseCertsPEM(s.CAPEM) // none if the CA is not known
	for _, ca := range cas {
		if ca.NotBefore.After(from) {
			from = ca.NotBefore
		}
	}
	return from
}

func encodeAll(certs []*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, encode(cert.Raw)...)
	}
	return out
}

// encode returns a certificate in DER form as PEM.
func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
