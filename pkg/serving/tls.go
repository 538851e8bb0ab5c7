package serving

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// defaultCipherSuites are those of TLS 1.2 with forward secrecy and authenticated encryption:
// neither CBC, which padding oracles attack, nor an exchange of keys by RSA.
var defaultCipherSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// tlsVersions are the versions by the names that kube-apiserver's --tls-min-version has for
// them, without those that nothing should speak any more.
var tlsVersions = map[string]uint16{"VersionTLS12": tls.VersionTLS12, "VersionTLS13": tls.VersionTLS13}

// maxClientCertificateBytes bounds what a connection keeps of its client's certificates: several
// times what one with a large key needs, with intermediates.
const maxClientCertificateBytes = 16 << 10

// boundClientCertificates implements VerifyPeerCertificate in tls.Config.
func boundClientCertificates(certificates [][]byte, _ [][]*x509.Certificate) error {
	size := 0
	for _, certificate := range certificates {
		size += len(certificate)
	}
	if size > maxClientCertificateBytes {
		return fmt.Errorf("the client's certificates have %d bytes, and %d are the most", size, maxClientCertificateBytes)
	}
	return nil
}

// clientCAs tells clients of the CAs of the time, so that those with certificates of others send
// none, and browsers do not ask their users for one.
type clientCAs struct {
	current func() *x509.CertPool
	config  *tls.Config
	// last is config with the CAs of the last handshake.
	last atomic.Pointer[tls.Config]
}

// configForClient implements GetConfigForClient in tls.Config.
func (c *clientCAs) configForClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	pool, config := c.current(), c.last.Load()
	if config == nil || config.ClientCAs != pool {
		config = c.config.Clone()
		config.ClientCAs = pool
		c.last.Store(config)
	}
	return config, nil
}

// TLSVersion returns the version of a name as kube-apiserver's --tls-min-version takes it;
// without a name, 0.
func TLSVersion(name string) (uint16, error) {
	if name == "" {
		return 0, nil
	}
	version, ok := tlsVersions[name]
	if !ok {
		return 0, fmt.Errorf("%q is not one of %s", name, strings.Join(slices.Sorted(maps.Keys(tlsVersions)), ", "))
	}
	return version, nil
}

// CipherSuites returns the cipher suites of names as kube-apiserver's --tls-cipher-suites
// takes them, which are Go's, and those of the names that are weaker than the default. No
// names are nil, the default. It fails for a name that Go does not have, and for a list
// without the suites of which HTTP/2 needs one with TLS 1.2.
func CipherSuites(names []string) (suites []uint16, weak []string, err error) {
	known := map[string]*tls.CipherSuite{}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		known[suite.Name] = suite
	}
	// As upstream, whose names these were before Go completed them.
	for _, name := range []string{"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"} {
		known[name] = known[name+"_SHA256"]
	}
	for _, name := range names {
		suite, ok := known[name]
		if !ok {
			return nil, nil, fmt.Errorf("there is no cipher suite %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		suites = append(suites, suite.ID)
		if slices.Contains(suite.SupportedVersions, tls.VersionTLS12) && !slices.Contains(defaultCipherSuites, suite.ID) {
			weak = append(weak, name)
		}
	}
	if len(names) > 0 && !slices.Contains(suites, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) && !slices.Contains(suites, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) {
		return nil, nil, errors.New("HTTP/2 needs TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 or TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
	}
	return suites, weak, nil
}
