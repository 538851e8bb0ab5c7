// Package cli is what the server and the other commands have in common: flags that can be
// given as environment variables, errors that name a flag, and the help text.
package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	envPrefix = "BERTH_"
	// HelpWidth is where the help text wraps, in characters.
	HelpWidth = 100
)

// FlagError is an error in the value of a flag.
type FlagError struct {
	Flag     string // without dashes
	Variable string // the environment variable that the value came from, if it did
	Err      error
}

func (e *FlagError) Error() string {
	return fmt.Sprintf("%s: %v", cmp.Or(e.Variable, "--"+e.Flag), e.Err)
}

func (e *FlagError) Unwrap() error { return e.Err }

// Fault returns an error in the value of a flag, or nil if err is nil.
func Fault(flag string, err error) error {
	if err == nil {
		return nil
	}
	return &FlagError{Flag: flag, Err: err}
}

// Require returns an error with the given text unless ok.
func Require(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// FlagGroup is the flags under one heading of --help.
type FlagGroup struct {
	Title string
	Flags *pflag.FlagSet
}

// NewFlagSet returns a set whose flags stay in the order in which they are added.
func NewFlagSet() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SortFlags = false
	return flags
}

// NoCommand refuses what stands where a command would.
func NoCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown command %q; see %s --help", args[0], cmd.CommandPath())
	}
	return nil
}

// NewGroup returns a command that only has others below it: by itself it prints its help.
func NewGroup(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: NoCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

// PrintHelp writes the flags of the root command in their groups, and those of any other
// command in one group.
func PrintHelp(cmd *cobra.Command, groups []FlagGroup) {
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
		groups = []FlagGroup{{"Flags", cmd.LocalFlags()}}
	}
	for _, group := range groups {
		fmt.Fprintf(out, "\n%s:\n%s", group.Title, group.Flags.FlagUsagesWrapped(HelpWidth))
	}
	if !cmd.HasParent() {
		fmt.Fprint(out, "\nOther:\n  -h, --help      Print this text\n  -v, --version   Print the version\n")
	}
	fmt.Fprintf(out, "\nEach flag can also be given as an environment variable, --data-dir as %s.\nA flag takes precedence over its variable; an empty variable is ignored.\n", EnvName("data-dir"))
}

// EnvName returns the environment variable of a flag.
func EnvName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// UnknownVariables returns the names in environ, of NAME=VALUE, that look like those of flags
// and belong to none, sorted: most are misspelt. The tests' own are no mistakes.
func UnknownVariables(flags *pflag.FlagSet, environ []string) (unknown []string) {
	known := map[string]bool{}
	flags.VisitAll(func(flag *pflag.Flag) { known[EnvName(flag.Name)] = true })
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, envPrefix) && !strings.HasPrefix(name, envPrefix+"TEST_") && !known[name] {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// WithEnvironment sets every flag that is not on the command line from its environment
// variable, unless that is empty, and then calls act. If a variable is to blame for an error,
// the error names it.
func WithEnvironment(flags *pflag.FlagSet, act func() error) error {
	fromEnvironment := map[string]bool{}
	var err error
	flags.VisitAll(func(flag *pflag.Flag) {
		value := os.Getenv(EnvName(flag.Name))
		if value == "" || flag.Changed || flag.Name == "help" || flag.Name == "version" || err != nil {
			return
		}
		fromEnvironment[flag.Name] = true
		if setErr := flag.Value.Set(value); setErr != nil {
			err = &FlagError{Flag: flag.Name, Err: fmt.Errorf("invalid value %q: %w", value, setErr)}
		}
	})
	if err == nil {
		err = act()
	}
	if bad, ok := errors.AsType[*FlagError](err); ok && fromEnvironment[bad.Flag] {
		bad.Variable = EnvName(bad.Flag)
	}
	return err
}

// unquoted matches words that mean themselves in a shell.
var unquoted = regexp.MustCompile(`^[a-zA-Z0-9/._:=@%+,-]+$`)

// ShellQuote returns s as one word of a POSIX shell.
func ShellQuote(s string) string {
	if unquoted.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
