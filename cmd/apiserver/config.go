package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/berth-project/berth/cmd/apiserver/internal/backend"
	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/pkg/serving"
)

// maxGoawayChance is kube-apiserver's: more would mean to open connections all the time.
const maxGoawayChance = 0.02

// minObjectBytes leaves room for the metadata that every object has.
const minObjectBytes = 64 << 10

// What --rate-limit-scope may be.
const (
	scopeProcess = "process"
	scopeCluster = "cluster"
)

var rateLimitScopes = []string{scopeProcess, scopeCluster}

// config is the values of all flags. Its zero value is invalid; see defaultConfig.
type config struct {
	backend.Config
	EtcdCompactionInterval time.Duration // 0 disables compaction
	MaxObjectBytes         int
	MaxStoredBytes         int64 // 0 is no limit
	EventTTL               time.Duration
	MirrorEndpoints        bool
	MirrorWithoutService   bool // needs MirrorEndpoints

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
	ClientCAFile                string // empty means the CA in the data directory
	AuthorizationMode           string // empty means that of the stored data
	IAMConfig                   string // empty means no token service
	RateLimitConfig             string // empty means the default limits
	RateLimitScope              string // one of rateLimitScopes
	MaxRequestsInFlight         int    // 0 means no limit
	MaxMutatingRequestsInFlight int    // 0 means no limit
	MaxWatches                  int    // 0 means no limit
	MaxWatchesPerUser           int    // 0 means no limit
	RequestTimeout              time.Duration
	HSTSDirectives              []string // empty means no header
	GoawayChance                float64
	ShutdownDelayDuration       time.Duration
	ShutdownWatchGracePeriod    time.Duration

	Audit auditConfig

	LogLevel  string
	LogFormat string

	UnknownVariables []string // of the environment, which are ignored
}

func defaultConfig() config {
	return config{
		Config:                      backend.Config{DataDir: datadir.Default},
		EtcdCompactionInterval:      5 * time.Minute,
		MaxObjectBytes:              apiserver.DefaultMaxObjectBytes,
		MaxStoredBytes:              1 << 30,
		EventTTL:                    time.Hour,
		MirrorEndpoints:             true,
		BindAddress:                 "127.0.0.1",
		SecurePort:                  6443,
		TLSMinVersion:               "VersionTLS12",
		RateLimitScope:              scopeProcess,
		MaxRequestsInFlight:         400,
		MaxMutatingRequestsInFlight: 200,
		MaxWatches:                  20_000,
		MaxWatchesPerUser:           1_000,
		RequestTimeout:              time.Minute,
		Audit:                       defaultAuditConfig(),
		LogLevel:                    "info",
		LogFormat:                   "auto",
	}
}

// mirroring is what the two flags say together.
func (c *config) mirroring() apiserver.Mirroring {
	switch {
	case c.MirrorWithoutService:
		return apiserver.MirrorAll
	case c.MirrorEndpoints:
		return apiserver.MirrorServices
	}
	return apiserver.NoMirroring
}

// validate returns the first error in c as a *cli.FlagError. It does not read any files.
func (c *config) validate() error {
	return cmp.Or(
		c.Config.Validate(),
		cli.Fault("etcd-compaction-interval", cli.Require(c.EtcdCompactionInterval >= 0, "%v is negative", c.EtcdCompactionInterval)),
		cli.Fault("max-object-bytes", validateBetween(c.MaxObjectBytes, minObjectBytes, apiserver.MaxReadableBytes)),
		cli.Fault("max-stored-bytes", cli.Require(c.MaxStoredBytes >= 0, "%v is negative", c.MaxStoredBytes)),
		cli.Fault("event-ttl", cli.Require(c.EventTTL >= time.Second, "%v is less than a second", c.EventTTL)),
		cli.Fault("mirror-endpoints-without-service", cli.Require(c.MirrorEndpoints || !c.MirrorWithoutService, "needs --mirror-endpoints")),
		c.validateServing(),
		cli.Fault("rate-limit-scope", validateOneOf(c.RateLimitScope, rateLimitScopes)),
		cli.Fault("max-requests-inflight", cli.Require(c.MaxRequestsInFlight >= 0, "%v is negative", c.MaxRequestsInFlight)),
		cli.Fault("max-mutating-requests-inflight", cli.Require(c.MaxMutatingRequestsInFlight >= 0, "%v is negative", c.MaxMutatingRequestsInFlight)),
		cli.Fault("max-watches", cli.Require(c.MaxWatches >= 0, "%v is negative", c.MaxWatches)),
		cli.Fault("max-watches-per-user", cli.Require(c.MaxWatchesPerUser >= 0, "%v is negative", c.MaxWatchesPerUser)),
		c.Audit.validate(),
		cli.Fault("log-level", validateOneOf(c.LogLevel, logLevels)),
		cli.Fault("log-format", validateOneOf(c.LogFormat, logFormats)),
	)
}

func (c *config) validateServing() error {
	_, addressErr := netip.ParseAddr(c.BindAddress)
	_, proxiesErr := parseProxies(c.TrustedProxies)
	_, versionErr := serving.TLSVersion(c.TLSMinVersion)
	_, _, suitesErr := serving.CipherSuites(c.TLSCipherSuites)
	return cmp.Or(
		cli.Fault("bind-address", cli.Require(addressErr == nil, "%q is not an IP address", c.BindAddress)),
		cli.Fault("secure-port", validateBetween(c.SecurePort, 0, 65535)),
		cli.Fault("http-port", validateBetween(c.HTTPPort, 0, 65535)),
		cli.Fault("http-port", cli.Require(c.HTTPPort == 0 || c.HTTPPort != c.SecurePort, "must differ from --secure-port")),
		cli.Fault("tls-private-key-file", cli.Require(c.TLSCertFile == "" || c.TLSPrivateKeyFile != "", "must be set together with --tls-cert-file")),
		cli.Fault("tls-cert-file", cli.Require(c.TLSPrivateKeyFile == "" || c.TLSCertFile != "", "must be set together with --tls-private-key-file")),
		cli.Fault("tls-ca-file", cli.Require(c.TLSCAFile == "" || c.TLSCertFile != "", "requires --tls-cert-file")),
		cli.Fault("tls-min-version", versionErr),
		cli.Fault("tls-cipher-suites", suitesErr),
		cli.Fault("external-hostname", validateHost(c.ExternalHostname)),
		cli.Fault("trusted-proxies", proxiesErr),
		cli.Fault("proxy-protocol", cli.Require(!c.ProxyProtocol || len(c.TrustedProxies) > 0, "requires --trusted-proxies")),
		cli.Fault("authorization-mode", validateMode(c.AuthorizationMode)),
		cli.Fault("request-timeout", cli.Require(c.RequestTimeout > 0, "%v is not positive", c.RequestTimeout)),
		cli.Fault("strict-transport-security-directives", validateHSTSDirectives(c.HSTSDirectives)),
		cli.Fault("goaway-chance", cli.Require(c.GoawayChance >= 0 && c.GoawayChance <= maxGoawayChance, "%v is not between 0 and %v", c.GoawayChance, maxGoawayChance)),
		cli.Fault("shutdown-delay-duration", cli.Require(c.ShutdownDelayDuration >= 0, "%v is negative", c.ShutdownDelayDuration)),
		cli.Fault("shutdown-watch-termination-grace-period", cli.Require(c.ShutdownWatchGracePeriod >= 0, "%v is negative", c.ShutdownWatchGracePeriod)),
	)
}

// secretFiles returns the paths of the files with secrets that the server reads, which need
// not exist.
func (c *config) secretFiles() []string {
	paths := []string{cmp.Or(c.TokenAuthFile, c.DataDir.Token())}
	if c.TLSCertFile == "" {
		paths = append(paths, c.DataDir.PKI().CAKey(), c.DataDir.PKI().Key())
	} else {
		paths = append(paths, c.TLSPrivateKeyFile)
	}
	if c.ClientCAFile == "" {
		paths = append(paths, c.DataDir.PKI().ClientCAKey())
	}
	if c.IAMConfig != "" {
		paths = append(paths, c.IAMConfig)
	}
	if c.EtcdKeyFile != "" {
		paths = append(paths, c.EtcdKeyFile)
	}
	return paths
}

func validateBetween(n, least, most int) error {
	return cli.Require(n >= least && n <= most, "%d is not between %d and %d", n, least, most)
}

// validateMode accepts no mode, too.
func validateMode(mode string) error {
	if mode == "" {
		return nil
	}
	return validateOneOf(mode, []string{apiserver.ModeRBAC, apiserver.ModeAlwaysAllow})
}

func validateOneOf(s string, allowed []string) error {
	return cli.Require(slices.Contains(allowed, s), "%q is not one of %s", s, strings.Join(allowed, ", "))
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
	return cli.Require(len(names) == 0 || slices.Contains(names, "max-age="), "max-age=SECONDS is missing")
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
	return cli.Require(ok, "%q is neither a host name nor an IP address", host)
}
