package serving

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/berth-project/berth/test/harness"
)

// serveTLS serves with a certificate for every suite, until the test ends.
func serveTLS(t *testing.T, cfg Config) (address string) {
	t.Helper()
	cfg.Handler, cfg.Logger = http.NotFoundHandler(), zerolog.Nop()
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	certificates := []*tls.Certificate{selfSigned(t), selfSignedBy(t, key)}
	l := listen(t)
	server.ServeTLS(l, func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		for _, certificate := range certificates {
			if hello.SupportsCertificate(certificate) == nil {
				return certificate, nil
			}
		}
		return certificates[0], nil
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.Stop(ctx, func() {}); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// handshake returns what a client that knows one suite and one version comes to.
func handshake(t *testing.T, address string, version, suite uint16) (tls.ConnectionState, error) {
	t.Helper()
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: &tls.Config{
		InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, CipherSuites: []uint16{suite},
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState(), nil
}

// The default has neither CBC nor an exchange of keys by RSA. That these handshakes succeed
// with a server that has every suite shows that the default is why they fail.
func TestCipherSuitesOfTLS12(t *testing.T) {
	var names []string
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		names = append(names, suite.Name)
	}
	all, _, err := CipherSuites(names)
	if err != nil {
		t.Fatal(err)
	}
	byDefault, withAll := serveTLS(t, Config{}), serveTLS(t, Config{TLSCipherSuites: all})
	var accepted []string
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if !slices.Contains(suite.SupportedVersions, tls.VersionTLS12) {
			continue
		}
		if got, err := handshake(t, withAll, tls.VersionTLS12, suite.ID); err != nil || got.CipherSuite != suite.ID {
			t.Errorf("%s, of a server that has it: %v", suite.Name, err)
		}
		if got, err := handshake(t, byDefault, tls.VersionTLS12, suite.ID); err == nil && got.CipherSuite == suite.ID {
			accepted = append(accepted, suite.Name)
		}
	}
	slices.Sort(accepted)
	want := []string{
		"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
		"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
		"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
		"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
		"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
		"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
	}
	if diff := cmp.Diff(want, accepted); diff != "" {
		t.Errorf("accepted by default (-want +got):\n%s", diff)
	}
}

// Clients are told of the CAs of the time, and may have a certificate all the same.
func TestClientCAs(t *testing.T) {
	var current atomic.Pointer[x509.CertPool]
	address := serveTLS(t, Config{ClientCAs: current.Load})
	ask := func(pair *tls.Certificate) (told []string) {
		t.Helper()
		asked := false
		dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: &tls.Config{
			InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"},
			GetClientCertificate: func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				for _, der := range request.AcceptableCAs {
					var name pkix.RDNSequence
					if _, err := asn1.Unmarshal(der, &name); err != nil {
						return nil, err
					}
					told = append(told, name.String())
				}
				return pair, nil
			},
		}}
		conn, err := dialer.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if !asked {
			t.Error("it was not asked for a certificate")
		}
		return told
	}
	first, second := harness.NewAuthority(t, "first"), harness.NewAuthority(t, "second")
	if told := ask(&tls.Certificate{}); len(told) > 0 {
		t.Errorf("without CAs: %q", told)
	}
	for name, ca := range map[string]*harness.Authority{"CN=first": first, "CN=second": second} {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca.PEM())
		current.Store(pool)
		for _, pair := range []*tls.Certificate{{}, first.Client(t, "ann"), second.Client(t, "ann")} {
			if told := ask(pair); !slices.Equal(told, []string{name}) {
				t.Errorf("got %q, want %s", told, name)
			}
		}
	}
}

func TestMinimumVersion(t *testing.T) {
	for name, accepted := range map[string][]uint16{
		"":             {tls.VersionTLS12, tls.VersionTLS13},
		"VersionTLS12": {tls.VersionTLS12, tls.VersionTLS13},
		"VersionTLS13": {tls.VersionTLS13},
	} {
		version, err := TLSVersion(name)
		if err != nil {
			t.Fatal(err)
		}
		address := serveTLS(t, Config{TLSMinVersion: version})
		for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
			_, err := handshake(t, address, version, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
			if want := slices.Contains(accepted, version); (err == nil) != want {
				t.Errorf("%q, a client of %s: %v", name, tls.VersionName(version), err)
			}
		}
	}
}

func TestCipherSuites(t *testing.T) {
	const needed = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
	for name, test := range map[string]struct {
		names []string
		weak  []string
		fault string
	}{
		"none":                     {},
		"of the default":           {names: []string{needed, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"}},
		"by an old name":           {names: []string{needed, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"}},
		"of TLS 1.3":               {names: []string{needed, "TLS_AES_128_GCM_SHA256"}},
		"CBC":                      {names: []string{needed, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"}, weak: []string{"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"}},
		"RSA and RC4":              {names: []string{"TLS_RSA_WITH_AES_128_GCM_SHA256", needed, "TLS_ECDHE_RSA_WITH_RC4_128_SHA"}, weak: []string{"TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_RC4_128_SHA"}},
		"unknown":                  {names: []string{needed, "TLS_NONE"}, fault: `there is no cipher suite "TLS_NONE"; there are TLS_AES_128_GCM_SHA256, `},
		"by OpenSSL's name":        {names: []string{"ECDHE-RSA-AES128-GCM-SHA256"}, fault: "there is no cipher suite"},
		"empty":                    {names: []string{""}, fault: `there is no cipher suite ""`},
		"none that HTTP/2 accepts": {names: []string{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"}, fault: "HTTP/2 needs "},
	} {
		t.Run(name, func(t *testing.T) {
			suites, weak, err := CipherSuites(test.names)
			if test.fault != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.fault) {
					t.Errorf("got %v, want %s", err, test.fault)
				}
				return
			}
			if err != nil || len(suites) != len(test.names) {
				t.Errorf("got %v, %v", suites, err)
			}
			if diff := cmp.Diff(test.weak, weak); diff != "" {
				t.Errorf("weak (-want +got):\n%s", diff)
			}
		})
	}
}
