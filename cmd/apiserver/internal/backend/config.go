package backend

import (
	"cmp"
	"fmt"
	"net/url"

	"github.com/spf13/pflag"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
)

// Config says which etcd to use.
type Config struct {
	DataDir datadir.Dir

	EtcdServers       []string // empty means an embedded etcd
	EtcdCAFile        string
	EtcdCertFile      string
	EtcdKeyFile       string
	QuotaBackendBytes int64 // 0 means the default of pkg/storage/embedded
}

// AddEtcdFlags adds the flags of the connection to an external etcd.
func (c *Config) AddEtcdFlags(flags *pflag.FlagSet) {
	flags.StringSliceVar(&c.EtcdServers, "etcd-servers", c.EtcdServers, "Comma-separated addresses (scheme://host:port) of the etcd to use; if empty, an embedded etcd runs in the data directory")
	flags.StringVar(&c.EtcdCAFile, "etcd-cafile", c.EtcdCAFile, "CA file to verify the certificates of --etcd-servers; if empty, the system's CAs are used")
	flags.StringVar(&c.EtcdCertFile, "etcd-certfile", c.EtcdCertFile, "Client certificate file for --etcd-servers")
	flags.StringVar(&c.EtcdKeyFile, "etcd-keyfile", c.EtcdKeyFile, "Private key file of --etcd-certfile")
}

// Validate returns the first error in c as a *cli.FlagError. It does not read any files.
func (c *Config) Validate() error {
	embedded := len(c.EtcdServers) == 0
	return cmp.Or(
		cli.Fault("data-dir", cli.Require(c.DataDir != "", "must not be empty")),
		cli.Fault("etcd-servers", validateEtcdServers(c.EtcdServers)),
		cli.Fault("etcd-cafile", cli.Require(c.EtcdCAFile == "" || !embedded, "requires --etcd-servers")),
		cli.Fault("etcd-certfile", cli.Require(c.EtcdCertFile == "" || !embedded, "requires --etcd-servers")),
		cli.Fault("etcd-keyfile", cli.Require(c.EtcdKeyFile == "" || !embedded, "requires --etcd-servers")),
		cli.Fault("etcd-keyfile", cli.Require(c.EtcdCertFile == "" || c.EtcdKeyFile != "", "must be set together with --etcd-certfile")),
		cli.Fault("etcd-certfile", cli.Require(c.EtcdKeyFile == "" || c.EtcdCertFile != "", "must be set together with --etcd-keyfile")),
		cli.Fault("quota-backend-bytes", cli.Require(c.QuotaBackendBytes >= 0, "%v is negative", c.QuotaBackendBytes)),
		cli.Fault("quota-backend-bytes", cli.Require(c.QuotaBackendBytes == 0 || embedded, "is for the embedded etcd and cannot be used with --etcd-servers")),
	)
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
