package main

import (
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-project/berth/cmd/loadtest/internal/load"
	"github.com/berth-project/berth/cmd/loadtest/internal/report"
)

// helpWidth is where the help text is wrapped, in columns.
const helpWidth = 100

const longHelp = `Sends requests for Endpoints to a Kubernetes-style API server at a rate that does not depend on
how fast the server answers (open loop), and reports what clients would have seen. Latency counts
from when a request was due, so a server that stalls cannot hide it.`

const examples = `  # 500 requests per second for a minute, with an HTML report
  loadtest --kubeconfig=berth.data/kubeconfig --rate=500 --duration=1m --output=text,html=report.html

  # reads only, rising from 0 to 2000 per second within 30 s, and then as many for a minute
  loadtest --kubeconfig=$KUBECONFIG --mix=get=1 --phase=30s@0-2000 --phase=1m@2000

  # how long 500 watchers wait for the events of 50 updates per second
  loadtest --kubeconfig=$KUBECONFIG --mix=update=1 --rate=50 --watchers=500

  # in CI: exit with status 2 if creates or events take too long, or more than 0.1 % fail
  loadtest --kubeconfig=$KUBECONFIG --watchers=20 \
    --fail-if='create.p99>50ms' --fail-if='watch.p99>200ms' --fail-if='errors>0.1%'

  # many clients, each within its rate limit
  loadtest --server=https://127.0.0.1:6443 --ca-file=ca.crt --token-file=tokens.csv --rate=100 --honor-retry-after

  # the highest rate at which 99 % of all requests are answered within 20 ms
  loadtest --kubeconfig=$KUBECONFIG --find-capacity --p99=20ms

  # which of two servers is faster, in ten rounds; and two reports side by side
  loadtest --kubeconfig=a.kubeconfig --versus-kubeconfig=b.kubeconfig --duration=1m
  loadtest compare before.json after.json`

const exitHelp = `  0    the run succeeded, or was ended early by a signal
  1    the run could not be made or reported, or no request got an answer
  2    the run was reported, but a --fail-if condition holds, or --find-capacity found no rate
       that holds
  130  a second signal ended the process at once
`

// version of the binary, set by the linker (-X main.version=v1.2.3). If empty, it is the
// version of the module, or "devel" if that is not known either.
var version string

func binaryVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

// userAgent is how the tool identifies itself to the server.
var userAgent = "berth-loadtest/" + binaryVersion()

// flagGroup is a set of flags that --help shows together.
type flagGroup struct {
	title string
	flags *pflag.FlagSet
}

// newCommand returns the command that runs args.
func newCommand(args []string, stdout, stderr io.Writer, undone *undone) *cobra.Command {
	c := defaultConfig()
	groups := flagGroups(&c)
	cmd := &cobra.Command{
		Use:           "loadtest",
		Short:         "Generate load on a Kubernetes-style API server, and report how it coped",
		Long:          longHelp,
		Version:       binaryVersion(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.validate(cmd.Flags()); err != nil {
				return err
			}
			return run(cmd.Context(), &c, args, stdout, stderr, undone)
		},
	}
	for _, group := range groups {
		cmd.Flags().AddFlagSet(group.flags)
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { printHelp(cmd, groups) })
	cmd.AddCommand(newCompareCommand())
	cmd.Flags().SortFlags = false
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetVersionTemplate("loadtest {{.Version}}\n")
	cmd.CompletionOptions.DisableDefaultCmd = true
	return cmd
}

func flagGroups(c *config) []flagGroup {
	return []flagGroup{
		{"Server", serverFlags(c)},
		{"Load", loadFlags(c)},
		{"Client", clientFlags(c)},
		{"Watches", watchFlags(c)},
		{"Capacity", capacityFlags(c)},
		{"Comparison", versusFlags(c)},
		{"Report", reportFlags(c)},
	}
}

func serverFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringVar(&c.Client.Server, "server", c.Client.Server, "URL of the server; default: the one in --kubeconfig")
	flags.StringVar(&c.Client.Kubeconfig, "kubeconfig", c.Client.Kubeconfig, "File with the server, its CA, and a token or client certificate, such as berth.data/kubeconfig")
	flags.StringArrayVar(&c.Client.Tokens, "token", c.Client.Tokens, "Bearer token instead of the kubeconfig's user; may be repeated: requests use the tokens in turn")
	flags.StringArrayVar(&c.Client.TokenFiles, "token-file", c.Client.TokenFiles, "File with one token per line, or a token CSV file as for kube-apiserver; may be repeated")
	flags.StringVar(&c.Client.CAFile, "ca-file", c.Client.CAFile, "File of the CA that signed the server's certificate; default: the kubeconfig's, or the system's")
	flags.BoolVar(&c.Client.InsecureSkipTLSVerify, "insecure-skip-tls-verify", c.Client.InsecureSkipTLSVerify, "Accept any certificate of the server")
	flags.StringVar(&c.Load.Namespace, "namespace", c.Load.Namespace, "Namespace to work in; created if it does not exist, and then deleted afterwards")
	flags.IntVar(&c.Load.Namespaces, "namespaces", c.Load.Namespaces, "How many namespaces to work in; several are called as --namespace with -1, -2 and so on after it")
	flags.BoolVar(&c.Keep, "keep", c.Keep, "Do not delete the namespaces and objects of the run")
	flags.IntVar(&c.PID, "pid", c.PID, "Process of the server on this machine, whose CPU time and memory go into the report")
	return flags
}

func loadFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.Float64Var(&c.Rate, "rate", c.Rate, "Requests per second")
	flags.DurationVar(&c.Duration, "duration", c.Duration, "How long to send requests; with --versus to each server, all rounds together")
	flags.StringArrayVar(&c.Phases, "phase", c.Phases, "Instead of --rate and --duration: how long to send requests at which rate, as in 30s@100, or 30s@0-100 for a rate that changes in a straight line; may be repeated for phases one after the other")
	flags.Var(&c.Load.Mix, "mix", "How often to send each verb, relative to the others: "+strings.Join(load.Verbs, ", "))
	flags.IntVar(&c.Load.Objects, "objects", c.Load.Objects, "Objects to create beforehand, which get, update, patch and apply work on")
	flags.IntVar(&c.Load.Addresses, "addresses", c.Load.Addresses, "Addresses per object: 10 are about 1.8 kB of JSON")
	flags.Uint64Var(&c.Load.Seed, "seed", c.Load.Seed, "Seed of the random choice of verbs and objects")
	flags.BoolVar(&c.Load.HonorRetryAfter, "honor-retry-after", c.Load.HonorRetryAfter, "Do not use a token that got a 429 until its Retry-After has passed; requests that are due for it meanwhile count as held back")
	return flags
}

func clientFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.IntVar(&c.Load.Connections, "connections", c.Load.Connections, "Connections that requests share; 0 means as with client-go: one for each token, and more while the server allows no more requests on it, or 256 with HTTP/1.1")
	flags.IntVar(&c.Load.MaxWorkers, "max-workers", c.Load.MaxWorkers, "Requests in flight at once; others wait, which counts as latency")
	flags.BoolVar(&c.Client.HTTP2, "http2", c.Client.HTTP2, "Use HTTP/2 where there is TLS, as client-go does; if false, HTTP/1.1")
	flags.BoolVar(&c.Load.Protobuf, "protobuf", c.Load.Protobuf, "Use protobuf instead of JSON, except for the bodies of patch and apply")
	flags.DurationVar(&c.Load.Timeout, "timeout", c.Load.Timeout, "How long a request may take once a worker is free for it")
	return flags
}

func watchFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.IntVar(&c.Load.Watchers, "watchers", c.Load.Watchers, "Watches of the namespace to keep open, which measure how long after a write was sent its event arrives")
	flags.BoolVar(&c.Load.WatchGzip, "watch-gzip", c.Load.WatchGzip, "Ask for compressed watches")
	return flags
}

func capacityFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.BoolVar(&c.FindCapacity, "find-capacity", c.FindCapacity, "Look for the highest rate that holds: --p99 and --max-error-share are kept")
	flags.DurationVar(&c.P99, "p99", c.P99, "Response time that 99 % of the requests must not exceed")
	flags.Float64Var(&c.MinRate, "min-rate", c.MinRate, "Requests per second to start with")
	flags.Float64Var(&c.MaxRate, "max-rate", c.MaxRate, "Highest requests per second to try")
	flags.DurationVar(&c.StepDuration, "step-duration", c.StepDuration, "How long to try each rate")
	flags.Float64Var(&c.MaxErrorShare, "max-error-share", c.MaxErrorShare, "Share of the due requests that may not succeed, from 0 to 1; a 429 is no success")
	return flags
}

func versusFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringVar(&c.Versus.Server, "versus", c.Versus.Server, "URL of another server that takes turns with the first one; default: the one in --versus-kubeconfig")
	flags.StringVar(&c.Versus.Kubeconfig, "versus-kubeconfig", c.Versus.Kubeconfig, "File with the other server, its CA, and a token or client certificate")
	flags.IntVar(&c.VersusPID, "versus-pid", c.VersusPID, "As --pid, of the other server")
	flags.IntVar(&c.Rounds, "rounds", c.Rounds, "How many turns each server has")
	return flags
}

func reportFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringSliceVar(&c.Output, "output", c.Output, "Reports to write: "+strings.Join(report.Kinds, ", ")+", each to standard output or to a file, as in text,json=run.json,html=run.html")
	flags.StringArrayVar(&c.FailIf, "fail-if", c.FailIf, "Condition under which the exit status is 2, such as p99>50ms, create.p99>50ms, watch.p99>200ms or errors>0.1%; may be repeated; replaces the default")
	return flags
}

func newFlagSet() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SortFlags = false
	return flags
}

func printHelp(cmd *cobra.Command, groups []flagGroup) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s\n\nUsage:\n  loadtest [flags]\n  loadtest compare A.json B.json\n\nExamples:\n%s\n", longHelp, examples)
	for _, group := range groups {
		fmt.Fprintf(out, "\n%s:\n%s", group.title, group.flags.FlagUsagesWrapped(helpWidth))
	}
	fmt.Fprintf(out, "\nOther:\n  -h, --help      Print this text\n  -v, --version   Print the version\n\nExit status:\n%s", exitHelp)
}
