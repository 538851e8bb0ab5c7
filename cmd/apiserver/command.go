package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	envPrefix = "BERTH_"
	// helpWidth wraps the help text so that it is readable in a usual terminal.
	helpWidth = 100
)

// flagGroup is flags that --help shows together.
type flagGroup struct {
	title string
	flags *pflag.FlagSet
}

func newCommand(stdout, stderr io.Writer) *cobra.Command {
	c := defaultConfig()
	groups := flagGroups(&c)
	cmd := &cobra.Command{
		Use:   "apiserver",
		Short: "Serve the Kubernetes API for Endpoints from etcd",
		Long: `Berth serves the Kubernetes API for Endpoints from etcd. Without flags it keeps everything,
an etcd of its own included, in ./berth.data and listens on https://127.0.0.1:6443.`,
		Version:       binaryVersion(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := applyEnvironment(cmd.Flags(), os.LookupEnv); err != nil {
				return err
			}
			return nameSource(run(cmd.Context(), c, stdout, stderr), cmd.Flags(), os.LookupEnv)
		},
	}
	for _, group := range groups {
		cmd.Flags().AddFlagSet(group.flags)
	}
	cmd.Flags().SortFlags = false
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetVersionTemplate("apiserver {{.Version}} (Kubernetes API v" + kubernetesVersion + ")\n")
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { printHelp(cmd, groups) })
	cmd.CompletionOptions.HiddenDefaultCmd = true
	cmd.AddCommand(newReadyCommand())
	return cmd
}

func newReadyCommand() *cobra.Command {
	dir, server := defaultConfig().DataDir, ""
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Exit with status 0 if the server is ready, with 1 if it is not",
		Long: `Asks /readyz of a running server, without a token, and exits with status 0 if the answer is ok.
Otherwise it prints the reason in one line and exits with status 1. For health checks of containers.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := applyEnvironment(cmd.Flags(), os.LookupEnv); err != nil {
				return err
			}
			return checkReady(cmd.Context(), dir, server)
		},
	}
	flags := cmd.Flags()
	flags.StringVar((*string)(&dir), "data-dir", string(dir), "Data directory of the server; its kubeconfig tells where the server is and which CA to trust")
	flags.StringVar(&server, "server", server, "URL of the server, where it is not the one in the kubeconfig, such as https://127.0.0.1:6443")
	return cmd
}

func flagGroups(c *config) []flagGroup {
	return []flagGroup{
		{"Storage", storageFlags(c)},
		{"Serving", servingFlags(c)},
		{"Authentication and limits", accessFlags(c)},
		{"Logs", logFlags(c)},
	}
}

func storageFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringVar((*string)(&c.DataDir), "data-dir", string(c.DataDir), "Directory of the database, the token, the certificates and the kubeconfig; made where it does not exist, and held by one server at a time")
	flags.StringSliceVar(&c.EtcdServers, "etcd-servers", c.EtcdServers, "Addresses of an etcd to use (scheme://host:port, comma separated); without them one runs inside the process, in the data directory")
	flags.StringVar(&c.EtcdCAFile, "etcd-cafile", c.EtcdCAFile, "File of the CA that signed the certificates of --etcd-servers; without it the system's CAs count")
	flags.StringVar(&c.EtcdCertFile, "etcd-certfile", c.EtcdCertFile, "File of the client certificate for --etcd-servers")
	flags.StringVar(&c.EtcdKeyFile, "etcd-keyfile", c.EtcdKeyFile, "File of the key of --etcd-certfile")
	flags.DurationVar(&c.EtcdCompactionInterval, "etcd-compaction-interval", c.EtcdCompactionInterval, "How often old versions are removed from etcd, and how long they are kept at least; 0 is never")
	flags.Int64Var(&c.QuotaBackendBytes, "quota-backend-bytes", c.QuotaBackendBytes, "Bytes that the database of the etcd inside may grow to; 0 is 2 GiB")
	flags.IntVar(&c.MaxObjectBytes, "max-object-bytes", c.MaxObjectBytes, "Bytes that an object may have as JSON, before it is compressed for etcd, whose own limit of a request counts, too")
	return flags
}

func servingFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringVar(&c.BindAddress, "bind-address", c.BindAddress, "IP address to listen on with TLS; 0.0.0.0 or :: is every address")
	flags.IntVar(&c.SecurePort, "secure-port", c.SecurePort, "Port to listen on with TLS; 0 is any free one")
	flags.IntVar(&c.HTTPPort, "http-port", c.HTTPPort, "Port to listen on without TLS, on 127.0.0.1 whatever --bind-address says, for a proxy on the same host; 0 is none")
	flags.StringVar(&c.TLSCertFile, "tls-cert-file", c.TLSCertFile, "File of the serving certificate and its intermediates, read again when it changes; without it one is made, with a CA, in the data directory")
	flags.StringVar(&c.TLSPrivateKeyFile, "tls-private-key-file", c.TLSPrivateKeyFile, "File of the key of --tls-cert-file")
	flags.StringVar(&c.ExternalHostname, "external-hostname", c.ExternalHostname, "Further host name or IP address of the certificate that is made, and the one that the kubeconfig uses")
	flags.DurationVar(&c.RequestTimeout, "request-timeout", c.RequestTimeout, "How long a request may take, watches excepted")
	return flags
}

func accessFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringVar(&c.TokenAuthFile, "token-auth-file", c.TokenAuthFile, "CSV file of tokens (token,user,uid,\"group1,group2\"), read again when it changes; without it a token for the user admin is made in the data directory")
	flags.StringVar(&c.RateLimitConfig, "rate-limit-config", c.RateLimitConfig, "YAML file of the rate limits of tokens and users, read again when it changes; without it the defaults count")
	flags.IntVar(&c.MaxRequestsInFlight, "max-requests-inflight", c.MaxRequestsInFlight, "Reading requests under way at once, watches excepted; beyond it they get a 429; 0 is no limit")
	flags.IntVar(&c.MaxMutatingRequestsInFlight, "max-mutating-requests-inflight", c.MaxMutatingRequestsInFlight, "Writing requests under way at once; beyond it they get a 429; 0 is no limit")
	return flags
}

func logFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringVar(&c.LogLevel, "log-level", c.LogLevel, "Least level that is logged to stderr: "+strings.Join(logLevels, ", "))
	flags.StringVar(&c.LogFormat, "log-format", c.LogFormat, "Form of the log: "+strings.Join(logFormats, ", ")+"; auto is console on a terminal and json elsewhere")
	return flags
}

func newFlagSet() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SortFlags = false
	return flags
}

// printHelp writes the flags of the root command by their groups, and those of any other
// command in one.
func printHelp(cmd *cobra.Command, groups []flagGroup) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s\n\nUsage:\n  %s [flags]\n", cmd.Long, cmd.CommandPath())
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			fmt.Fprintf(out, "  %s [flags]   %s\n", sub.CommandPath(), sub.Short)
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
	fmt.Fprintf(out, "\nEach flag can also be given as an environment variable, --data-dir as %s.\nA flag wins over its variable; an empty variable counts as none.\n", envName("data-dir"))
}

// envName is the environment variable that means the same as a flag.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

type lookupFunc func(name string) (value string, ok bool)

// applyEnvironment sets every flag that is not given on the command line from its
// environment variable, where that is not empty.
func applyEnvironment(flags *pflag.FlagSet, lookup lookupFunc) error {
	var failed error
	flags.VisitAll(func(flag *pflag.Flag) {
		value := fromEnvironment(flag, lookup)
		if value == "" || failed != nil {
			return
		}
		if err := flag.Value.Set(value); err != nil {
			failed = &flagError{flag: flag.Name, source: envName(flag.Name), err: fmt.Errorf("invalid value %q: %w", value, err)}
		}
	})
	return failed
}

// fromEnvironment is what the environment says for a flag, "" where it has no say.
func fromEnvironment(flag *pflag.Flag, lookup lookupFunc) string {
	if flag.Changed || flag.Name == "help" || flag.Name == "version" {
		return ""
	}
	value, _ := lookup(envName(flag.Name))
	return value
}

// nameSource makes a *flagError name the environment variable where the value came from
// one. Any other error it returns as it is.
func nameSource(err error, flags *pflag.FlagSet, lookup lookupFunc) error {
	bad, ok := errors.AsType[*flagError](err)
	if !ok {
		return err
	}
	if flag := flags.Lookup(bad.flag); flag != nil && fromEnvironment(flag, lookup) != "" {
		bad.source = envName(bad.flag)
	}
	return err
}
