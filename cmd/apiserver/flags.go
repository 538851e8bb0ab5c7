package main

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
)

// flagGroups returns the flags of the server in the order of --help.
func (c *config) flagGroups() []cli.FlagGroup {
	return []cli.FlagGroup{
		{Title: "Storage", Flags: c.storageFlags()},
		{Title: "Serving", Flags: c.servingFlags()},
		{Title: "Authentication and limits", Flags: c.accessFlags()},
		{Title: "Audit", Flags: c.Audit.flags()},
		{Title: "Logs", Flags: c.logFlags()},
	}
}

func (c *config) storageFlags() *pflag.FlagSet {
	flags := cli.NewFlagSet()
	flags.StringVar((*string)(&c.DataDir), "data-dir", string(c.DataDir), "Directory for the database, the token, the certificates and the kubeconfig; created if it does not exist, and locked by one server at a time")
	c.AddEtcdFlags(flags)
	flags.DurationVar(&c.EtcdCompactionInterval, "etcd-compaction-interval", c.EtcdCompactionInterval, "Interval at which old revisions are compacted in etcd, which is also how long they are kept at least; 0 disables compaction")
	flags.Int64Var(&c.QuotaBackendBytes, "quota-backend-bytes", c.QuotaBackendBytes, "Maximum size of the embedded etcd's database, in bytes; 0 means 2 GiB")
	flags.IntVar(&c.MaxObjectBytes, "max-object-bytes", c.MaxObjectBytes, "Maximum size of an object as JSON, in bytes, before it is compressed for etcd, whose own request limit also applies")
	flags.Int64Var(&c.MaxStoredBytes, "max-stored-bytes", c.MaxStoredBytes, "Maximum size of all objects together, as JSON in memory, in bytes; beyond it nothing is created or made larger; 0 means no limit")
	flags.DurationVar(&c.EventTTL, "event-ttl", c.EventTTL, "How long an event is kept after it was last written; etcd deletes it within a minute after that")
	flags.BoolVar(&c.MirrorEndpoints, "mirror-endpoints", c.MirrorEndpoints, "Keep Endpoints and EndpointSlices of Services without a selector in step, in the transaction of each write; false leaves that to a controller")
	flags.BoolVar(&c.MirrorWithoutService, "mirror-endpoints-without-service", c.MirrorWithoutService, "Keep Endpoints and EndpointSlices without a Service in step, too")
	return flags
}

func (c *config) servingFlags() *pflag.FlagSet {
	flags := cli.NewFlagSet()
	flags.StringVar(&c.BindAddress, "bind-address", c.BindAddress, "IP address to listen on with TLS; 0.0.0.0 or :: means all addresses")
	flags.IntVar(&c.SecurePort, "secure-port", c.SecurePort, "Port to listen on with TLS; 0 means any free port")
	flags.IntVar(&c.HTTPPort, "http-port", c.HTTPPort, "Port to listen on without TLS, always on 127.0.0.1, for a proxy on the same host; 0 disables it")
	flags.StringVar(&c.TLSCertFile, "tls-cert-file", c.TLSCertFile, "Serving certificate file, including intermediates, reloaded when it changes; if empty, a certificate and its CA are created in the data directory")
	flags.StringVar(&c.TLSPrivateKeyFile, "tls-private-key-file", c.TLSPrivateKeyFile, "Private key file of --tls-cert-file")
	flags.StringVar(&c.TLSCAFile, "tls-ca-file", c.TLSCAFile, "File of the CA of --tls-cert-file, for the kubeconfig, reloaded when it changes; if empty, the CA in --tls-cert-file or the system's CAs")
	flags.StringVar(&c.TLSMinVersion, "tls-min-version", c.TLSMinVersion, "Minimum version of TLS: VersionTLS12, VersionTLS13")
	flags.StringSliceVar(&c.TLSCipherSuites, "tls-cipher-suites", c.TLSCipherSuites, "Comma-separated cipher suites for TLS 1.2, by Go's names; if empty, those with ECDHE and GCM or ChaCha20")
	flags.StringVar(&c.ExternalHostname, "external-hostname", c.ExternalHostname, "Host name or IP address to use in the kubeconfig and to add to the certificate that the server creates")
	flags.StringSliceVar(&c.TrustedProxies, "trusted-proxies", c.TrustedProxies, "Comma-separated networks (CIDRs) of proxies whose X-Forwarded-For says which address a client has; from all others the header is ignored")
	flags.BoolVar(&c.ProxyProtocol, "proxy-protocol", c.ProxyProtocol, "Require a header of the PROXY protocol, version 1 or 2, at the beginning of every connection from --trusted-proxies, on both ports")
	flags.DurationVar(&c.RequestTimeout, "request-timeout", c.RequestTimeout, "Maximum duration of a request, except watches")
	flags.StringSliceVar(&c.HSTSDirectives, "strict-transport-security-directives", c.HSTSDirectives, "Comma-separated directives of the header Strict-Transport-Security of answers over TLS, such as max-age=31536000,includeSubDomains; if empty, there is none")
	flags.Float64Var(&c.GoawayChance, "goaway-chance", c.GoawayChance, "Probability, from 0 to 0.02, that a request over HTTP/2 has its connection closed once the requests on it have ended, so that clients spread over the servers behind a proxy of connections; 0 disables it")
	flags.DurationVar(&c.ShutdownDelayDuration, "shutdown-delay-duration", c.ShutdownDelayDuration, "How long a server that was told to stop goes on serving, with /readyz failing, so that proxies send nothing more")
	flags.DurationVar(&c.ShutdownWatchGracePeriod, "shutdown-watch-termination-grace-period", c.ShutdownWatchGracePeriod, "Time after that delay over which the watches end, one after the other; 0 ends them at once")
	return flags
}

func (c *config) accessFlags() *pflag.FlagSet {
	flags := cli.NewFlagSet()
	flags.StringVar(&c.TokenAuthFile, "token-auth-file", c.TokenAuthFile, "CSV file of tokens (token,user,uid,\"group1,group2\",expiry), in which sha256:HASH may stand for a token, reloaded when it changes; if empty, a token for the user admin is created in the data directory")
	flags.StringVar(&c.ClientCAFile, "client-ca-file", c.ClientCAFile, "PEM file of CAs by whose client certificates users are known, with CN as the user and O as the groups, reloaded when it changes; if empty, a CA is created in the data directory, which apiserver certificate create signs with")
	flags.StringVar(&c.AuthorizationMode, "authorization-mode", c.AuthorizationMode, "Who may do what: RBAC, which decides by roles and bindings, or AlwaysAllow, by which every token may do everything; if empty, RBAC, except on data of a release without it")
	flags.StringVar(&c.IAMConfig, "iam-config", c.IAMConfig, "YAML file of users, projects and roles, reloaded when it changes, for which the token service at /v3 issues tokens; if empty, there is none")
	flags.StringVar(&c.RateLimitConfig, "rate-limit-config", c.RateLimitConfig, "YAML file of rate limits for tokens and users, reloaded when it changes; if empty, the defaults apply")
	flags.StringVar(&c.RateLimitScope, "rate-limit-scope", c.RateLimitScope, "Whose the limits of tokens and users are: process, by which each server admits as much, or cluster, by which all servers on the same etcd do together")
	flags.IntVar(&c.MaxRequestsInFlight, "max-requests-inflight", c.MaxRequestsInFlight, "Maximum number of non-mutating requests in progress, except watches, of which one user may have a quarter; more are answered with 429; 0 means no limit")
	flags.IntVar(&c.MaxMutatingRequestsInFlight, "max-mutating-requests-inflight", c.MaxMutatingRequestsInFlight, "Maximum number of mutating requests in progress, of which one user may have a quarter; more are answered with 429; 0 means no limit")
	flags.IntVar(&c.MaxWatches, "max-watches", c.MaxWatches, "Maximum number of open watches; more are answered with 429; 0 means no limit")
	flags.IntVar(&c.MaxWatchesPerUser, "max-watches-per-user", c.MaxWatchesPerUser, "Maximum number of open watches of one user; more are answered with 429; 0 means no limit")
	return flags
}

func (c *config) logFlags() *pflag.FlagSet {
	flags := cli.NewFlagSet()
	flags.StringVar(&c.LogLevel, "log-level", c.LogLevel, "Lowest level to log: "+strings.Join(logLevels, ", "))
	flags.StringVar(&c.LogFormat, "log-format", c.LogFormat, "Log format: "+strings.Join(logFormats, ", ")+"; auto means console on a terminal and json elsewhere")
	return flags
}
