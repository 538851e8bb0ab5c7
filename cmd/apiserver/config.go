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

// config is the values of all flags. Its zero value is invalid; see defaultConfig.
type config struct {
	DataDir dataDir

	EtcdServers            []string // empty means an embedded etcd
	EtcdCAFile             string
	EtcdCertFile           string
	EtcdKeyFile            string
	EtcdCompactionInterval time.Duration // 0 disables compaction
	QuotaBackendBytes      int64         // 0 means the default of pkg/storage/embedded
	MaxObjectBytes         int

	BindAddress       string
	SecurePort        int // 0 means any free port
	HTTPPort          int // 0 disables it
	TLSCertFile       string
	TLSPrivateKeyFile string
	ExternalHostname  string // a host name or an IP address; may be empty

	TokenAuthFile               string // empty means the token in the data directory
	RateLimitConfig             string // empty means the default limits
	MaxRequestsInFlight         int    // 0 means no limit
	MaxMutatingRequestsInFlight int    // 0 means no limit
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

// flagError is an error in the value of a flag. source is where the value came from: the
// flag or its environment variable.
type flagError struct {
	flag   string // without dashes
	source string // empty means the flag
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

// validate returns the first error in c as a *flagError. It does not read any files.
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
			return fmt.Errorf("%q is not an etcd address, such as http://127.0.0.1:2379 or https://etcd-1:2379", server)
		}
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
			return fmt.Errorf("%q is not an etcd address: only scheme, host and port are allowed", u.Redacted())
		}
	}
	return nil
}

func (c *config) onlyWithEtcdServers(set bool) error {
	if set && len(c.EtcdServers) == 0 {
		return errors.New("requires --etcd-servers")
	}
	return nil
}

func (c *config) onlyWithoutEtcdServers(set bool) error {
	if set && len(c.EtcdServers) > 0 {
		return errors.New("is for the embedded etcd and cannot be used with --etcd-servers")
	}
	return nil
}

// validatePair requires the second file of a pair if the first one is set.
func validatePair(first, second, firstFlag string) error {
	if first != "" && second == "" {
		return fmt.Errorf("must be set together with %s", firstFlag)
	}
	return nil
}

func validateNotNegative[N int | int64 | time.Duration](n N) error {
	if n < 0 {
		return fmt.Errorf("%v is negative", n)
	}
	return nil
}

func validatePositive(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%v is not positive", d)
	}
	return nil
}

// validateObjectBytes requires room for what every object has, and no more than can be read.
func validateObjectBytes(n int) error {
	const least = 64 << 10
	if n < least || n > apiserver.MaxReadableBytes {
		return fmt.Errorf("%d is not between %d and %d", n, least, apiserver.MaxReadableBytes)
	}
	return nil
}

func validateAddress(s string) error {
	if _, err := netip.ParseAddr(s); err != nil {
		return fmt.Errorf("%q is not an IP address", s)
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

// validateHost accepts a DNS name, an IP address, and the empty string.
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
