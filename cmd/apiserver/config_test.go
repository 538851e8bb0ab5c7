package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
)

func TestDefaultConfigIsValid(t *testing.T) {
	c := defaultConfig()
	if err := c.validate(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*config)
		want   string // empty: valid
	}{
		"no data directory":           {func(c *config) { c.DataDir = "" }, "--data-dir: must not be empty"},
		"etcd servers":                {func(c *config) { c.EtcdServers = []string{"http://a:2379", "https://[::1]:2379/"} }, ""},
		"an etcd without scheme":      {func(c *config) { c.EtcdServers = []string{"a:2379"} }, `--etcd-servers: "a:2379" is not an etcd address`},
		"an etcd without a port":      {func(c *config) { c.EtcdServers = []string{"http://a"} }, `--etcd-servers: "http://a" is not an etcd address`},
		"an etcd without host":        {func(c *config) { c.EtcdServers = []string{"http:///x"} }, "--etcd-servers: "},
		"an etcd with a password":     {func(c *config) { c.EtcdServers = []string{"http://u:secret@a:2379"} }, `--etcd-servers: "http://u:xxxxx@a:2379"`},
		"an etcd with a path":         {func(c *config) { c.EtcdServers = []string{"http://a:2379/x"} }, "--etcd-servers: "},
		"etcd files without servers":  {func(c *config) { c.EtcdCAFile = "ca" }, "--etcd-cafile: requires --etcd-servers"},
		"an etcd certificate alone":   {func(c *config) { c.EtcdServers, c.EtcdCertFile = []string{"https://a:2379"}, "crt" }, "--etcd-keyfile: must be set together with --etcd-certfile"},
		"an etcd key alone":           {func(c *config) { c.EtcdServers, c.EtcdKeyFile = []string{"https://a:2379"}, "key" }, "--etcd-certfile: must be set together with --etcd-keyfile"},
		"no compaction":               {func(c *config) { c.EtcdCompactionInterval = 0 }, ""},
		"a negative interval":         {func(c *config) { c.EtcdCompactionInterval = -time.Second }, "--etcd-compaction-interval: -1s is negative"},
		"a negative quota":            {func(c *config) { c.QuotaBackendBytes = -1 }, "--quota-backend-bytes: -1 is negative"},
		"a quota of somebody's etcd":  {func(c *config) { c.EtcdServers, c.QuotaBackendBytes = []string{"http://a:2379"}, 1 }, "--quota-backend-bytes: is for the embedded etcd"},
		"events that do not live":     {func(c *config) { c.EventTTL = 0 }, "--event-ttl: 0s is less than a second"},
		"stored bytes below zero":     {func(c *config) { c.MaxStoredBytes = -1 }, "--max-stored-bytes: -1 is negative"},
		"hardly an object":            {func(c *config) { c.MaxObjectBytes = 1000 }, "--max-object-bytes: 1000 is not between 65536 and 268435456"},
		"objects beyond what is read": {func(c *config) { c.MaxObjectBytes = 1 << 30 }, "--max-object-bytes: 1073741824 is not between"},
		"every address":               {func(c *config) { c.BindAddress = "::" }, ""},
		"a name for an address":       {func(c *config) { c.BindAddress = "localhost" }, `--bind-address: "localhost" is not an IP address`},
		"any port":                    {func(c *config) { c.SecurePort = 0 }, ""},
		"a port too high":             {func(c *config) { c.SecurePort = 65536 }, "--secure-port: 65536 is not between"},
		"a negative http port":        {func(c *config) { c.HTTPPort = -1 }, "--http-port: -1 is not between"},
		"the same port twice":         {func(c *config) { c.HTTPPort = c.SecurePort }, "--http-port: must differ"},
		"a certificate alone":         {func(c *config) { c.TLSCertFile = "crt" }, "--tls-private-key-file: must be set together with --tls-cert-file"},
		"a key alone":                 {func(c *config) { c.TLSPrivateKeyFile = "key" }, "--tls-cert-file: must be set together with --tls-private-key-file"},
		"only TLS 1.3":                {func(c *config) { c.TLSMinVersion = "VersionTLS13" }, ""},
		"old TLS":                     {func(c *config) { c.TLSMinVersion = "VersionTLS11" }, `--tls-min-version: "VersionTLS11" is not one of VersionTLS12, VersionTLS13`},
		"an unknown cipher suite":     {func(c *config) { c.TLSCipherSuites = []string{"ECDHE-RSA-AES128-SHA"} }, `--tls-cipher-suites: there is no cipher suite "ECDHE-RSA-AES128-SHA"; there are TLS_AES_128_GCM_SHA256, `},
		"a name outside":              {func(c *config) { c.ExternalHostname = "berth.example.com" }, ""},
		"an address outside":          {func(c *config) { c.ExternalHostname = "2001:db8::1" }, ""},
		"a name with a port":          {func(c *config) { c.ExternalHostname = "berth:6443" }, `--external-hostname: "berth:6443" is neither`},
		"proxies":                     {func(c *config) { c.TrustedProxies, c.ProxyProtocol = []string{"10.0.0.0/8", " 2001:db8::/64"}, true }, ""},
		"a proxy without a length":    {func(c *config) { c.TrustedProxies = []string{"10.0.0.1"} }, `--trusted-proxies: "10.0.0.1" is not a network, such as`},
		"a proxy by name":             {func(c *config) { c.TrustedProxies = []string{"10.0.0.0/8", "lb"} }, `--trusted-proxies: "lb" is not a network`},
		"a network of mapped IPv4":    {func(c *config) { c.TrustedProxies = []string{"::ffff:10.0.0.0/104"} }, `--trusted-proxies: "::ffff:10.0.0.0/104" is not`},
		"the PROXY protocol of all":   {func(c *config) { c.ProxyProtocol = true }, "--proxy-protocol: requires --trusted-proxies"},
		"no limits of requests":       {func(c *config) { c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight = 0, 0 }, ""},
		"a negative limit":            {func(c *config) { c.MaxRequestsInFlight = -1 }, "--max-requests-inflight: -1 is negative"},
		"a negative limit of writing": {func(c *config) { c.MaxMutatingRequestsInFlight = -1 }, "--max-mutating-requests-inflight: -1 is negative"},
		"no time for requests":        {func(c *config) { c.RequestTimeout = 0 }, "--request-timeout: 0s is not positive"},
		"HSTS":                        {func(c *config) { c.HSTSDirectives = []string{"max-age=0", "preload", "includeSubDomains"} }, ""},
		"HSTS without an age":         {func(c *config) { c.HSTSDirectives = []string{"preload"} }, "--strict-transport-security-directives: max-age=SECONDS is missing"},
		"HSTS of no age":              {func(c *config) { c.HSTSDirectives = []string{"max-age"} }, `--strict-transport-security-directives: "max-age" is not one of`},
		"HSTS of a wrong age":         {func(c *config) { c.HSTSDirectives = []string{"max-age=1y"} }, `--strict-transport-security-directives: "max-age=1y" is not one of`},
		"HSTS of a negative age":      {func(c *config) { c.HSTSDirectives = []string{"max-age=-1"} }, `--strict-transport-security-directives: "max-age=-1" is not one of`},
		"HSTS with something else":    {func(c *config) { c.HSTSDirectives = []string{"max-age=1", "x\r\ny"} }, "--strict-transport-security-directives: \"x\\r\\ny\" is not one of"},
		"HSTS twice":                  {func(c *config) { c.HSTSDirectives = []string{"max-age=1", "max-age=2"} }, "--strict-transport-security-directives: max-age is given twice"},
		"an unknown mode":             {func(c *config) { c.AuthorizationMode = "Node,RBAC" }, `--authorization-mode: "Node,RBAC" is not one of RBAC, AlwaysAllow`},
		"an audit log":                {func(c *config) { c.Audit.Path, c.Audit.Policy = "a", "metadata" }, ""},
		"an audit log without policy": {func(c *config) { c.Audit.Path = "a" }, "--audit-log-path: requires --audit-policy or --audit-policy-file"},
		"an audit policy without log": {func(c *config) { c.Audit.Policy = "full" }, "--audit-policy: requires --audit-log-path"},
		"an audit file without log":   {func(c *config) { c.Audit.PolicyFile = "p" }, "--audit-policy-file: requires --audit-log-path"},
		"two audit policies":          {func(c *config) { c.Audit.Path, c.Audit.Policy, c.Audit.PolicyFile = "a", "full", "p" }, "--audit-policy-file: cannot be used with --audit-policy"},
		"an unknown audit policy":     {func(c *config) { c.Audit.Path, c.Audit.Policy = "a", "all" }, `--audit-policy: "all" is not one of metadata, minimal, full`},
		"an audit log that waits":     {func(c *config) { c.Audit.Mode = "blocking" }, `--audit-log-mode: "blocking" is not batch: requests do not wait for the log`},
		"an unknown audit format":     {func(c *config) { c.Audit.Format = "legacy" }, `--audit-log-format: "legacy" is not json`},
		"a negative audit size":       {func(c *config) { c.Audit.MaxSize = -1 }, "--audit-log-maxsize: -1 is negative"},
		"no audit queue":              {func(c *config) { c.Audit.BufferSize = 0 }, "--audit-log-batch-buffer-size: 0 is not positive"},
		"an unknown scope":            {func(c *config) { c.RateLimitScope = "node" }, `--rate-limit-scope: "node" is not one of process, cluster`},
		"an unknown level":            {func(c *config) { c.LogLevel = "loud" }, `--log-level: "loud" is not one of debug`},
		"an unknown format":           {func(c *config) { c.LogFormat = "xml" }, `--log-format: "xml" is not one of auto`},
	} {
		t.Run(name, func(t *testing.T) {
			c := defaultConfig()
			test.change(&c)
			err := c.validate()
			switch {
			case test.want == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)):
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	env := map[string]string{
		"BERTH_DATA_DIR":              "from-env",
		"BERTH_BIND_ADDRESS":          "",
		"BERTH_ETCD_SERVERS":          "http://a:2379,http://b:2379",
		"BERTH_REQUEST_TIMEOUT":       "5s",
		"BERTH_MAX_REQUESTS_INFLIGHT": "7",
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	got := defaultConfig()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, group := range got.flagGroups() {
		flags.AddFlagSet(group.Flags)
	}
	if err := flags.Parse([]string{"--data-dir=from-flag"}); err != nil {
		t.Fatal(err)
	}
	if err := cli.WithEnvironment(flags, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	want := defaultConfig()
	want.DataDir = "from-flag"
	want.EtcdServers = []string{"http://a:2379", "http://b:2379"}
	want.RequestTimeout = 5 * time.Second
	want.MaxRequestsInFlight = 7
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
