package main

import (
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth wraps the help text so that it is readable in a usual terminal.
const helpWidth = 100

const longHelp = `Sends requests for Endpoints to a Kubernetes-style API server at a rate that does not depend on
how fast the server answers (open loop), and reports what clients would have seen. Latency counts
from the moment that a request was due, so that a server which stalls cannot hide it.`

const examples = `  # 500 requests a second for a minute, with a page to look at
  loadtest --kubeconfig=berth.data/kubeconfig --rate=500 --duration=1m --output=text,html=report.html

  # reads alone, rising from 0 to 2000 a second within 30 s
  loadtest --kubeconfig=$KUBECONFIG --mix=get=1 --rate=2000 --ramp=30s --duration=1m

  # how long 500 watchers wait for the events of 50 updates a second
  loadtest --kubeconfig=$KUBECONFIG --mix=update=1 --rate=50 --watchers=500

  # many clients, each within its limit
  loadtest --server=https://127.0.0.1:6443 --ca-file=ca.crt --token-file=tokens.csv --rate=100 --honor-retry-after

  # the highest rate at which 99 % of all requests are answered within 20 ms
  loadtest --kubeconfig=$KUBECONFIG --find-capacity --p99=20ms`

const exitHelp = `  0   the run was made and is as asked for, or was ended early by a signal
  1   it could not be made, or no request got an answer
  2   it was made, but more requests failed than --max-error-share allows, or --find-capacity
      found no rate that holds
`

// version of the binary, set by the linker (-X main.version=v1.2.3). Left empty, the
// version of the module counts, and "devel" where that is not known either.
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

// userAgent is what the server knows the tool by.
var userAgent = "berth-loadtest/" + binaryVersion()

// flagGroup is flags that --help shows together.
type flagGroup struct {
	title string
	flags *pflag.FlagSet
}

// newCommand makes the command. args are the ones that it will be called with, for the
// report.
func newCommand(args []string, stdout, stderr io.Writer) *cobra.Command {
	c := defaultConfig()
	groups := flagGroups(&c)
	cmd := &cobra.Command{
		Use:           "loadtest",
		Short:         "Make load on a Kubernetes-style API server, and report what it did",
		Long:          longHelp,
		Version:       binaryVersion(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.validate(cmd.Flags()); err != nil {
				return err
			}
			return run(cmd.Context(), &c, args, stdout, stderr)
		},
	}
	for _, group := range groups {
		cmd.Flags().AddFlagSet(group.flags)
	}
	cmd.Flags().SortFlags = false
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetVersionTemplate("loadtest {{.Version}}\n")
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { printHelp(cmd, groups) })
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
		{"Report", reportFlags(c)},
	}
}

func serverFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringVar(&c.Server, "server", c.Server, "URL of the server; without it the one of --kubeconfig counts")
	flags.StringVar(&c.Kubeconfig, "kubeconfig", c.Kubeconfig, "File that names server, CA, and a token or client certificate, such as berth.data/kubeconfig")
	flags.StringArrayVar(&c.Tokens, "token", c.Tokens, "Bearer token instead of the kubeconfig's user; may be given many times: requests take the tokens in turn")
	flags.StringArrayVar(&c.TokenFiles, "token-file", c.TokenFiles, "File with a token on each line, or the CSV file that kube-apiserver reads tokens from; may be given many times")
	flags.StringVar(&c.CAFile, "ca-file", c.CAFile, "File of the CA that signed the server's certificate; without it the one of the kubeconfig counts, or the system's")
	flags.BoolVar(&c.InsecureSkipTLSVerify, "insecure-skip-tls-verify", c.InsecureSkipTLSVerify, "Take any certificate of the server for good")
	flags.StringVar(&c.Namespace, "namespace", c.Namespace, "Namespace to work in; it is created if it is not there, and removed afterwards if it was created")
	flags.BoolVar(&c.Keep, "keep", c.Keep, "Leave behind what the run has made")
	return flags
}

func loadFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.Float64Var(&c.Rate, "rate", c.Rate, "Requests a second")
	flags.DurationVar(&c.Duration, "duration", c.Duration, "How long requests are sent, --ramp included")
	flags.DurationVar(&c.Ramp, "ramp", c.Ramp, "How long the rate rises from --start-rate to --rate, in a straight line")
	flags.Float64Var(&c.StartRate, "start-rate", c.StartRate, "Requests a second at the begin of --ramp")
	flags.Var(&c.Mix, "mix", "How often each verb is sent, in relation to the others: "+strings.Join(verbNames[:], ", "))
	flags.IntVar(&c.Objects, "objects", c.Objects, "Objects that are made beforehand, and that get, update, patch and apply work on")
	flags.IntVar(&c.Addresses, "addresses", c.Addresses, "Addresses of each object: 10 are about 1.8 kB of JSON")
	flags.Uint64Var(&c.Seed, "seed", c.Seed, "The same seed chooses the same verbs and objects")
	flags.BoolVar(&c.HonorRetryAfter, "honor-retry-after", c.HonorRetryAfter, "Do not use a token that got a 429 before its Retry-After has passed; the requests that are due for it are counted as held back")
	return flags
}

func clientFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.IntVar(&c.Connections, "connections", c.Connections, "Connections that requests share; with --http2 each carries many at once")
	flags.IntVar(&c.MaxWorkers, "max-workers", c.MaxWorkers, "Requests under way at once; beyond it they wait, and that counts as latency")
	flags.BoolVar(&c.HTTP2, "http2", c.HTTP2, "HTTP/2 instead of HTTP/1.1")
	flags.DurationVar(&c.Timeout, "timeout", c.Timeout, "How long one request may take once there is a worker for it")
	return flags
}

func watchFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.IntVar(&c.Watchers, "watchers", c.Watchers, "Watches of the namespace that stay open, and measure how long after a write was sent its event arrives")
	flags.BoolVar(&c.WatchGzip, "watch-gzip", c.WatchGzip, "Ask for compressed watches")
	return flags
}

func capacityFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.BoolVar(&c.FindCapacity, "find-capacity", c.FindCapacity, "Look for the highest rate that holds: --p99 is kept, and no more than --max-error-share of what is due does not succeed")
	flags.DurationVar(&c.P99, "p99", c.P99, "Response time that 99 % of the requests must keep")
	flags.Float64Var(&c.MinRate, "min-rate", c.MinRate, "Requests a second to begin with")
	flags.Float64Var(&c.MaxRate, "max-rate", c.MaxRate, "Requests a second to end with at the latest")
	flags.DurationVar(&c.StepDuration, "step-duration", c.StepDuration, "How long each rate is tried")
	return flags
}

func reportFlags(c *config) *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringSliceVar(&c.Output, "output", c.Output, "Reports to write: "+strings.Join(outputKinds, ", ")+", each to standard output or to a file, as in text,json=run.json,html=run.html")
	flags.Float64Var(&c.MaxErrorShare, "max-error-share", c.MaxErrorShare, "Share of the sent requests that may fail, from 0 to 1, before the exit status is 2; a 429 is no failure but for --find-capacity")
	return flags
}

func newFlagSet() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SortFlags = false
	return flags
}

func printHelp(cmd *cobra.Command, groups []flagGroup) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s\n\nUsage:\n  loadtest [flags]\n\nExamples:\n%s\n", longHelp, examples)
	for _, group := range groups {
		fmt.Fprintf(out, "\n%s:\n%s", group.title, group.flags.FlagUsagesWrapped(helpWidth))
	}
	fmt.Fprintf(out, "\nOther:\n  -h, --help      Print this text\n  -v, --version   Print the version\n\nExit status:\n%s", exitHelp)
}

// quoted is args as a POSIX shell reads them, each with a blank before it.
func quoted(args []string) string {
	const special = "\"'`$\\ \t\n*?[]{}()<>|&;#~!^"
	var all strings.Builder
	for _, arg := range args {
		if arg == "" || strings.ContainsAny(arg, special) {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		all.WriteString(" " + arg)
	}
	return all.String()
}
