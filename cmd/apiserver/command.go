package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	envPrefix = "BERTH_"
	// helpWidth is where the help text wraps, in characters.
	helpWidth = 100
)

// flagGroup is the flags under one heading of --help.
type flagGroup struct {
	title string
	flags *pflag.FlagSet
}

func newCommand(hangups <-chan os.Signal, stdout, stderr io.Writer) *cobra.Command {
	c := defaultConfig()
	groups := flagGroups(&c)
	cmd := &cobra.Command{
		Use:   "apiserver",
		Short: "Serve the Kubernetes API for Endpoints and leases from etcd",
		Long: `Berth serves the Kubernetes API for Endpoints, leases and namespaces from etcd. Without flags
it runs an embedded etcd, keeps everything in ./berth.data and listens on https://127.0.0.1:6443.`,
		Version:       binaryVersion(),
		Args:          noCommand,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.UnknownVariables = unknownVariables(cmd.Flags(), os.Environ())
			return withEnvironment(cmd.Flags(), func() error { return run(cmd.Context(), c, hangups, stdout, stderr) })
		},
	}
	for _, group := range groups {
		cmd.Flags().AddFlagSet(group.flags)
	}
	cmd.Flags().SortFlags = false
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetVersionTemplate(versionLine())
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { printHelp(cmd, groups) })
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	cmd.AddCommand(newReadyCommand(), newLimitsCommand(stdout), newSnapshotCommand(stdout), newVersionCommand())
	return cmd
}

// noCommand refuses what stands where a command would.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown command %q; see %s --help", args[0], cmd.CommandPath())
	}
	return nil
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long:  "Prints the version of the binary and of the Kubernetes API that it serves, as --version does.",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprint(cmd.OutOrStdout(), versionLine())
		},
	}
}

func newReadyCommand() *cobra.Command {
	dir, server := defaultConfig().DataDir, ""
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Exit with status 0 if the server is ready, else with 1",
		Long: `Requests /readyz from a running server and exits with status 0 if the answer is ok. Otherwise it
prints the reason in one line and exits with status 1. For container health checks.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withEnvironment(cmd.Flags(), func() error { return checkReady(cmd.Context(), dir, server) })
		},
	}
	addServerFlags(cmd.Flags(), &dir, &server)
	return cmd
}

// addServerFlags adds the flags that name a running server.
func addServerFlags(flags *pflag.FlagSet, dir *dataDir, server *string) {
	flags.StringVar((*string)(dir), "data-dir", string(*dir), "Data directory of the server, whose kubeconfig has the server's address, CA and token")
	flags.StringVar(server, "server", *server, "URL of the server, such as https://127.0.0.1:6443, if not the one in the kubeconfig")
}

func newLimitsCommand(stdout io.Writer) *cobra.Command {
	dir, server, user := defaultConfig().DataDir, "", ""
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "Show the limits of a user, and what is left of them",
		Long: `Asks a running server, as its administrator, for the limits of a user: the token buckets of its
tokens, and what it has of what users share, such as requests in progress, watches and memory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withEnvironment(cmd.Flags(), func() error { return printLimits(cmd.Context(), dir, server, user, stdout) })
		},
	}
	addServerFlags(cmd.Flags(), &dir, &server)
	cmd.Flags().StringVar(&user, "user", user, "Name of the user; if empty, the administrator")
	return cmd
}

func flagGroups(c *config) []flagGroup {
	storage := newFlagSet()
	storage.StringVar((*string)(&c.DataDir), "data-dir", string(c.DataDir), "Directory for the database, the token, the certificates and the kubeconfig; created if it does not exist, and locked by one server at a time")
	addEtcdFlags(storage, c)
	storage.DurationVar(&c.EtcdCompactionInterval, "etcd-compaction-interval", c.EtcdCompactionInterval, "Interval at which old revisions are compacted in etcd, which is also how long they are kept at least; 0 disables compaction")
	storage.Int64Var(&c.QuotaBackendBytes, "quota-backend-bytes", c.QuotaBackendBytes, "Maximum size of the embedded etcd's database, in bytes; 0 means 2 GiB")
	storage.IntVar(&c.MaxObjectBytes, "max-object-bytes", c.MaxObjectBytes, "Maximum size of an object as JSON, in bytes, before it is compressed for etcd, whose own request limit also applies")
	storage.Int64Var(&c.MaxStoredBytes, "max-stored-bytes", c.MaxStoredBytes, "Maximum size of all objects together, as JSON in memory, in bytes; beyond it nothing is created or made larger; 0 means no limit")
	serving := newFlagSet()
	serving.StringVar(&c.BindAddress, "bind-address", c.BindAddress, "IP address to listen on with TLS; 0.0.0.0 or :: means all addresses")
	serving.IntVar(&c.SecurePort, "secure-port", c.SecurePort, "Port to listen on with TLS; 0 means any free port")
	serving.IntVar(&c.HTTPPort, "http-port", c.HTTPPort, "Port to listen on without TLS, always on 127.0.0.1, for a proxy on the same host; 0 disables it")
	serving.StringVar(&c.TLSCertFile, "tls-cert-file", c.TLSCertFile, "Serving certificate file, including intermediates, reloaded when it changes; if empty, a certificate and its CA are created in the data directory")
	serving.StringVar(&c.TLSPrivateKeyFile, "tls-private-key-file", c.TLSPrivateKeyFile, "Private key file of --tls-cert-file")
	serving.StringVar(&c.TLSCAFile, "tls-ca-file", c.TLSCAFile, "File of the CA of --tls-cert-file, for the kubeconfig, reloaded when it changes; if empty, the CA in --tls-cert-file or the system's CAs")
	serving.StringVar(&c.TLSMinVersion, "tls-min-version", c.TLSMinVersion, "Minimum version of TLS: VersionTLS12, VersionTLS13")
	serving.StringSliceVar(&c.TLSCipherSuites, "tls-cipher-suites", c.TLSCipherSuites, "Comma-separated cipher suites for TLS 1.2, by Go's names; if empty, those with ECDHE and GCM or ChaCha20")
	serving.StringVar(&c.ExternalHostname, "external-hostname", c.ExternalHostname, "Host name or IP address to use in the kubeconfig and to add to the certificate that the server creates")
	serving.StringSliceVar(&c.TrustedProxies, "trusted-proxies", c.TrustedProxies, "Comma-separated networks (CIDRs) of proxies whose X-Forwarded-For says which address a client has; from all others the header is ignored")
	serving.BoolVar(&c.ProxyProtocol, "proxy-protocol", c.ProxyProtocol, "Require a header of the PROXY protocol, version 1 or 2, at the beginning of every connection from --trusted-proxies, on both ports")
	serving.DurationVar(&c.RequestTimeout, "request-timeout", c.RequestTimeout, "Maximum duration of a request, except watches")
	serving.StringSliceVar(&c.HSTSDirectives, "strict-transport-security-directives", c.HSTSDirectives, "Comma-separated directives of the header Strict-Transport-Security of answers over TLS, such as max-age=31536000,includeSubDomains; if empty, there is none")
	access := newFlagSet()
	access.StringVar(&c.TokenAuthFile, "token-auth-file", c.TokenAuthFile, "CSV file of tokens (token,user,uid,\"group1,group2\"), reloaded when it changes; if empty, a token for the user admin is created in the data directory")
	access.StringVar(&c.RateLimitConfig, "rate-limit-config", c.RateLimitConfig, "YAML file of rate limits for tokens and users, reloaded when it changes; if empty, the defaults apply")
	access.IntVar(&c.MaxRequestsInFlight, "max-requests-inflight", c.MaxRequestsInFlight, "Maximum number of non-mutating requests in progress, except watches, of which one user may have a quarter; more are answered with 429; 0 means no limit")
	access.IntVar(&c.MaxMutatingRequestsInFlight, "max-mutating-requests-inflight", c.MaxMutatingRequestsInFlight, "Maximum number of mutating requests in progress, of which one user may have a quarter; more are answered with 429; 0 means no limit")
	access.IntVar(&c.MaxWatches, "max-watches", c.MaxWatches, "Maximum number of open watches; more are answered with 429; 0 means no limit")
	access.IntVar(&c.MaxWatchesPerUser, "max-watches-per-user", c.MaxWatchesPerUser, "Maximum number of open watches of one user; more are answered with 429; 0 means no limit")
	logs := newFlagSet()
	logs.StringVar(&c.LogLevel, "log-level", c.LogLevel, "Lowest level to log: "+strings.Join(logLevels, ", "))
	logs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "Log format: "+strings.Join(logFormats, ", ")+"; auto means console on a terminal and json elsewhere")
	return []flagGroup{
		{"Storage", storage},
		{"Serving", serving},
		{"Authentication and limits", access},
		{"Logs", logs},
	}
}

// addEtcdFlags adds the flags of the connection to an external etcd.
func addEtcdFlags(flags *pflag.FlagSet, c *config) {
	flags.StringSliceVar(&c.EtcdServers, "etcd-servers", c.EtcdServers, "Comma-separated addresses (scheme://host:port) of the etcd to use; if empty, an embedded etcd runs in the data directory")
	flags.StringVar(&c.EtcdCAFile, "etcd-cafile", c.EtcdCAFile, "CA file to verify the certificates of --etcd-servers; if empty, the system's CAs are used")
	flags.StringVar(&c.EtcdCertFile, "etcd-certfile", c.EtcdCertFile, "Client certificate file for --etcd-servers")
	flags.StringVar(&c.EtcdKeyFile, "etcd-keyfile", c.EtcdKeyFile, "Private key file of --etcd-certfile")
}

func newFlagSet() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SortFlags = false
	return flags
}

// printHelp writes the flags of the root command in their groups, and those of any other
// command in one group.
func printHelp(cmd *cobra.Command, groups []flagGroup) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s\n\nUsage:\n", cmd.Long)
	if !cmd.HasParent() || !cmd.HasSubCommands() {
		fmt.Fprintf(out, "  %s\n", cmd.UseLine())
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			fmt.Fprintf(out, "  %s   %s\n", sub.UseLine(), sub.Short)
		}
	}
	if cmd.HasParent() {
		groups = []flagGroup{{"Flags", cmd.LocalFlags()}}
	}
	for _, group := range groups {
		fmt.Fprintf(out, "\n%s:\n%s", group.title, group.flags.FlagUsagesWrapped(helpWidth))
	}
	if !cmd.HasParent() {
		fmt.Fprint(out, "\nOther:\n  -h, --help      Print this text\n  -v, --version   Print the version\n")
	}
	fmt.Fprintf(out, "\nEach flag can also be given as an environment variable, --data-dir as %s.\nA flag takes precedence over its variable; an empty variable is ignored.\n", envName("data-dir"))
}

// envName returns the environment variable of a flag.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// unknownVariables returns the names in environ, of NAME=VALUE, that look like those of flags
// and belong to none, sorted: most are misspelt. The tests' own are no mistakes.
func unknownVariables(flags *pflag.FlagSet, environ []string) (unknown []string) {
	known := map[string]bool{}
	flags.VisitAll(func(flag *pflag.Flag) { known[envName(flag.Name)] = true })
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, envPrefix) && !strings.HasPrefix(name, envPrefix+"TEST_") && !known[name] {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// withEnvironment sets every flag that is not on the command line from its environment
// variable, unless that is empty, and then calls act. If a variable is to blame for an error,
// the error names it.
func withEnvironment(flags *pflag.FlagSet, act func() error) error {
	fromEnvironment := map[string]bool{}
	var err error
	flags.VisitAll(func(flag *pflag.Flag) {
		value := os.Getenv(envName(flag.Name))
		if value == "" || flag.Changed || flag.Name == "help" || flag.Name == "version" || err != nil {
			return
		}
		fromEnvironment[flag.Name] = true
		if setErr := flag.Value.Set(value); setErr != nil {
			err = &flagError{flag: flag.Name, err: fmt.Errorf("invalid value %q: %w", value, setErr)}
		}
	})
	if err == nil {
		err = act()
	}
	if bad, ok := errors.AsType[*flagError](err); ok && fromEnvironment[bad.flag] {
		bad.variable = envName(bad.flag)
	}
	return err
}
