package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/pkg/serving"
)

// minObjectBytes leaves room for the metadata that every object has.
const minObjectBytes = 64 << 10

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
	MaxStoredBytes         int64 // 0 is no limit

	BindAddress       string
	SecurePort        int // 0 means any free port
	HTTPPort          int // 0 disables it
	TLSCertFile       string
	TLSPrivateKeyFile string
	TLSCAFile         string // may be empty
	ExternalHostname  string // a host name or an IP address; may be empty
	TrustedProxies    []string
	ProxyProtocol     bool // requires TrustedProxies
	TLSMinVersion     string
	TLSCipherSuites   []string // empty means the default of pkg/serving

	TokenAuthFile               string // empty means the token in the data directory
	RateLimitConfig             string // empty means the default limits
	MaxRequestsInFlight         int    // 0 means no limit
	MaxMutatingRequestsInFlight int    // 0 means no limit
	MaxWatches                  int    // 0 means no limit
	MaxWatchesPerUser           int    // 0 means no limit
	RequestTimeout              time.Duration
	HSTSDirectives              []string // empty means no header

	LogLevel  string
	LogFormat string

	UnknownVariables []string // of the environment, which are ignored
}

func defaultConfig() config {
	return config{
		DataDir:                     "./berth.data",
		EtcdCompactionInterval:      5 * time.Minute,
		MaxObjectBytes:              apiserver.DefaultMaxObjectBytes,
		MaxStoredBytes:              1 << 30,
		BindAddress:                 "127.0.0.1",
		SecurePort:                  6443,
		TLSMinVersion:               "VersionTLS12",
		MaxRequestsInFlight:         400,
		MaxMutatingRequestsInFlight: 200,
		MaxWatches:                  20_000,
		MaxWatchesPerUser:           1_000,
		RequestTimeout:              time.Minute,
		LogLevel:                    "info",
		LogFormat:                   "auto",
	}
}

// flagError is an error in the value of a flag.
type flagError struct {
	flag     string // without dashes
	variable string // the environment variable that the value came from, if it did
	err      error
}

func (e *flagError) Error() string {
	return fmt.Sprintf("%s: %v", cmp.Or(e.variable, "--"+e.flag), e.err)
}

func (e *flagError) Unwrap() error { return e.err }

// validate returns the first error in c as a *flagError. It does not read any files.
func (c *config) validate() error {
	embedded := len(c.EtcdServers) == 0
	_, addressErr := netip.ParseAddr(c.BindAddress)
	_, proxiesErr := parseProxies(c.TrustedProxies)
	_, versionErr := serving.TLSVersion(c.TLSMinVersion)
	_, _, suitesErr := serving.CipherSuites(c.TLSCipherSuites)
	for _, check := range []struct {
		flag string
		err  error
	}{
		{"data-dir", require(c.DataDir != "", "must not be empty")},
		{"etcd-servers", validateEtcdServers(c.EtcdServers)},
		{"etcd-cafile", require(c.EtcdCAFile == "" || !embedded, "requires --etcd-servers")},
		{"etcd-certfile", require(c.EtcdCertFile == "" || !embedded, "requires --etcd-servers")},
		{"etcd-keyfile", require(c.EtcdKeyFile == "" || !embedded, "requires --etcd-servers")},
		{"etcd-keyfile", require(c.EtcdCertFile == "" || c.EtcdKeyFile != "", "must be set together with --etcd-certfile")},
		{"etcd-certfile", require(c.EtcdKeyFile == "" || c.EtcdCertFile != "", "must be set together with --etcd-keyfile")},
		{"etcd-compaction-interval", require(c.EtcdCompactionInterval >= 0, "%v is negative", c.EtcdCompactionInterval)},
		{"quota-backend-bytes", require(c.QuotaBackendBytes >= 0, "%v is negative", c.QuotaBackendBytes)},
		{"quota-backend-bytes", require(c.QuotaBackendBytes == 0 || embedded, "is for the embedded etcd and cannot be used with --etcd-servers")},
		{"max-object-bytes", validateBetween(c.MaxObjectBytes, minObjectBytes, apiserver.MaxReadableBytes)},
		{"max-stored-bytes", require(c.MaxStoredBytes >= 0, "%v is negative", c.MaxStoredBytes)},
		{"bind-address", require(addressErr == nil, "%q is not an IP address", c.BindAddress)},
		{"secure-port", validateBetween(c.SecurePort, 0, 65535)},
		{"http-port", validateBetween(c.HTTPPort, 0, 65535)},
		{"http-port", require(c.HTTPPort == 0 || c.HTTPPort != c.SecurePort, "must differ from --secure-port")},
		{"tls-private-key-file", require(c.TLSCertFile == "" || c.TLSPrivateKeyFile != "", "must be set together with --tls-cert-file")},
		{"tls-cert-file", require(c.TLSPrivateKeyFile == "" || c.TLSCertFile != "", "must be set together with --tls-private-key-file")},
		{"tls-ca-file", require(c.TLSCAFile == "" || c.TLSCertFile != "", "requires --tls-cert-file")},
		{"tls-min-version", versionErr},
		{"tls-cipher-suites", suitesErr},
		{"external-hostname", validateHost(c.ExternalHostname)},
		{"trusted-proxies", proxiesErr},
		{"proxy-protocol", require(!c.ProxyProtocol || len(c.TrustedProxies) > 0, "requires --trusted-proxies")},
		{"max-requests-inflight", require(c.MaxRequestsInFlight >= 0, "%v is negative", c.MaxRequestsInFlight)},
		{"max-mutating-requests-inflight", require(c.MaxMutatingRequestsInFlight >= 0, "%v is negative", c.MaxMutatingRequestsInFlight)},
		{"max-watches", require(c.MaxWatches >= 0, "%v is negative", c.MaxWatches)},
		{"max-watches-per-user", require(c.MaxWatchesPerUser >= 0, "%v is negative", c.MaxWatchesPerUser)},
		{"request-timeout", require(c.RequestTimeout > 0, "%v is not positive", c.RequestTimeout)},
		{"strict-transport-security-directives", validateHSTSDirectives(c.HSTSDirectives)},
		{"log-level", validateOneOf(c.LogLevel, logLevels)},
		{"log-format", validateOneOf(c.LogFormat, logFormats)},
	} {
		if check.err != nil {
			return &flagError{flag: check.flag, err: check.err}
		}
	}
	return nil
}

// secretFiles returns the paths of the files with secrets that the server reads, which need
// not exist.
func (c *config) secretFiles() []string {
	paths := []string{cmp.Or(c.TokenAuthFile, c.DataDir.token())}
	if c.TLSCertFile == "" {
		paths = append(paths, c.DataDir.pki().CAKey(), c.DataDir.pki().Key())
	} else {
		paths = append(paths, c.TLSPrivateKeyFile)
	}
	if c.EtcdKeyFile != "" {
		paths = append(paths, c.EtcdKeyFile)
	}
	return paths
}

// require returns an error with the given text unless ok.
func require(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func validateBetween(n, least, most int) error {
	return require(n >= least && n <= most, "%d is not between %d and %d", n, least, most)
}

func validateOneOf(s string, allowed []string) error {
	return require(slices.Contains(allowed, s), "%q is not one of %s", s, strings.Join(allowed, ", "))
}

// validateHSTSDirectives accepts max-age=SECONDS, which RFC 6797 requires, includeSubDomains and
// preload, each once.
func validateHSTSDirectives(directives []string) error {
	var names []string
	for _, directive := range directives {
		name := directive
		if seconds, ok := strings.CutPrefix(directive, "max-age="); ok {
			if _, err := strconv.ParseUint(seconds, 10, 63); err == nil {
				name = "max-age="
			}
		}
		switch {
		case !slices.Contains([]string{"max-age=", "includeSubDomains", "preload"}, name):
			return fmt.Errorf("%q is not one of max-age=SECONDS, includeSubDomains, preload", directive)
		case slices.Contains(names, name):
			return fmt.Errorf("%s is given twice", strings.TrimSuffix(name, "="))
		}
		names = append(names, name)
	}
	return require(len(names) == 0 || slices.Contains(names, "max-age="), "max-age=SECONDS is missing")
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

func parseProxies(networks []string) ([]netip.Prefix, error) {
	prefixes := make([]netip.Prefix, len(networks))
	for i, text := range networks {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil || prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is not a network, such as 10.0.0.0/8 or 2001:db8::/64", text)
		}
		prefixes[i] = prefix
	}
	return prefixes, nil
}

// validateHost accepts a DNS name, an IP address, and the empty string.
func validateHost(host string) error {
	_, err := netip.ParseAddr(host)
	ok := host == "" || err == nil || len(validation.IsDNS1123Subdomain(host)) == 0
	return require(ok, "%q is neither a host name nor an IP address", host)
}
