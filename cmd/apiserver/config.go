package main

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/berth-project/berth/pkg/apiserver"
)

// config is everything that the flags say. defaultConfig has the defaults; the zero
// value is not a valid one.
type config struct {
	DataDir dataDir

	EtcdServers            []string // empty: an etcd inside the process
	EtcdCAFile             string
	EtcdCertFile           string
	EtcdKeyFile            string
	EtcdCompactionInterval time.Duration // 0: never
	QuotaBackendBytes      int64         // 0: the default of pkg/storage/embedded
	MaxObjectBytes         int

	BindAddress       string
	SecurePort        int // 0: any free one
	HTTPPort          int // 0: none
	TLSCertFile       string
	TLSPrivateKeyFile string
	ExternalHostname  string // a host name or an address; empty: none

	TokenAuthFile               string // empty: a token of the server's own making
	RateLimitConfig             string // empty: the default limits
	MaxRequestsInFlight         int    // 0: no limit
	MaxMutatingRequestsInFlight int    // 0: no limit
	RequestTimeout              time.Duration

	LogLevel  string
	LogFormat string
}

func defaultConfig() config {
	return config{
		DataDir:                     "./berth.data",
		EtcdCompactionInterval:      5 * time.Minute,
		MaxObjectBytes:              apiserver.DefaultMaxObjectBytes,
		BindAddress:                 "127.0.0.1",
		SecurePort:                  6443,
		MaxRequestsInFlight:         400,
		MaxMutatingRequestsInFlight: 200,
		RequestTimeout:              time.Minute,
		LogLevel:                    "info",
		LogFormat:                   "auto",
	}
}

// flagError is a value that a flag may not have. source is what the value was given by:
// the flag, or the environment variable of the same meaning.
type flagError struct {
	flag   string // without dashes
	source string // empty: the flag
	err    error
}

func (e *flagError) Error() string {
	source := e.source
	if source == "" {
		source = "--" + e.flag
	}
	return fmt.Sprintf("%s: %v", source, e.err)
}

func (e *flagError) Unwrap() error { return e.err }

// validate returns the first fault of c as a *flagError. It reads no file.
func (c *config) validate() error {
	for _, check := range []struct {
		flag string
		err  error
	}{
		{"data-dir", validateSet(string(c.DataDir))},
		{"etcd-servers", validateEtcdServers(c.EtcdServers)},
		{"etcd-cafile", c.onlyWithEtcdServers(c.EtcdCAFile != "")},
		{"etcd-certfile", c.onlyWithEtcdServers(c.EtcdCertFile != "")},
		{"etcd-keyfile", c.onlyWithEtcdServers(c.EtcdKeyFile != "")},
		{"etcd-keyfile", validatePair(c.EtcdCertFile, c.EtcdKeyFile, "--etcd-certfile")},
		{"etcd-certfile", validatePair(c.EtcdKeyFile, c.EtcdCertFile, "--etcd-keyfile")},
		{"etcd-compaction-interval", validateNotNegative(c.EtcdCompactionInterval)},
		{"quota-backend-bytes", validateNotNegative(c.QuotaBackendBytes)},
		{"quota-backend-bytes", c.onlyWithoutEtcdServers(c.QuotaBackendBytes != 0)},
		{"max-object-bytes", validateObjectBytes(c.MaxObjectBytes)},
		{"bind-address", validateAddress(c.BindAddress)},
		{"secure-port", validatePort(c.SecurePort)},
		{"http-port", validatePort(c.HTTPPort)},
		{"http-port", c.validateHTTPPort()},
		{"tls-private-key-file", validatePair(c.TLSCertFile, c.TLSPrivateKeyFile, "--tls-cert-file")},
		{"tls-cert-file", validatePair(c.TLSPrivateKeyFile, c.TLSCertFile, "--tls-private-key-file")},
		{"external-hostname", validateHost(c.ExternalHostname)},
		{"max-requests-inflight", validateNotNegative(c.MaxRequestsInFlight)},
		{"max-mutating-requests-inflight", validateNotNegative(c.MaxMutatingRequestsInFlight)},
		{"request-timeout", validatePositive(c.RequestTimeout)},
		{"log-level", validateLogLevel(c.LogLevel)},
		{"log-format", validateLogFormat(c.LogFormat)},
	} {
		if check.err != nil {
			return &flagError{flag: check.flag, err: check.err}
		}
	}
	return nil
}

func validateSet(s string) error {
	if s == "" {
		return errors.New("must not be empty")
	}
	return nil
}

func validateEtcdServers(servers []string) error {
	for _, server := range servers {
		u, err := url.Parse(server)
		if err != nil || u.Hostname() == "" || u.Port() == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("%q is no etcd address: it must look like http://127.0.0.1:2379 or https://etcd-1:2379", server)
		}
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
			return fmt.Errorf("%q is no etcd address: scheme, host and port are all it may have", u.Redacted())
		}
	}
	return nil
}

func (c *config) onlyWithEtcdServers(set bool) error {
	if set && len(c.EtcdServers) == 0 {
		return errors.New("has no meaning without --etcd-servers")
	}
	return nil
}

func (c *config) onlyWithoutEtcdServers(set bool) error {
	if set && len(c.EtcdServers) > 0 {
		return errors.New("is for the etcd inside the process and has no meaning with --etcd-servers")
	}
	return nil
}

// validatePair wants the second file of a pair where the first one is given.
func validatePair(first, second, firstFlag string) error {
	if first != "" && second == "" {
		return fmt.Errorf("must be given together with %s", firstFlag)
	}
	return nil
}

func validateNotNegative[N int | int64 | time.Duration](n N) error {
	if n < 0 {
		return fmt.Errorf("%v is less than 0", n)
	}
	return nil
}

func validatePositive(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%v is not more than 0", d)
	}
	return nil
}

// validateObjectBytes wants room for what every object has, and no more than can be read.
func validateObjectBytes(n int) error {
	const least = 64 << 10
	if n < least || n > apiserver.MaxReadableBytes {
		return fmt.Errorf("%d is not between %d and %d", n, least, apiserver.MaxReadableBytes)
	}
	return nil
}

func validateAddress(s string) error {
	if _, err := netip.ParseAddr(s); err != nil {
		return fmt.Errorf("%q is no IP address", s)
	}
	return nil
}

func validatePort(port int) error {
	if port < 0 || port > 65535 {
		return fmt.Errorf("%d is not between 0 and 65535", port)
	}
	return nil
}

func (c *config) validateHTTPPort() error {
	if c.HTTPPort != 0 && c.HTTPPort == c.SecurePort {
		return errors.New("must differ from --secure-port")
	}
	return nil
}

// validateHost accepts a DNS name, an IP address and nothing at all.
func validateHost(host string) error {
	if host == "" {
		return nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if len(validation.IsDNS1123Subdomain(host)) > 0 {
		return fmt.Errorf("%q is neither a host name nor an IP address", host)
	}
	return nil
}
