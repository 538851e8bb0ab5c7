package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/cmd/apiserver/internal/commands"
)

func newCommand(hangups <-chan os.Signal, stdout, stderr io.Writer) *cobra.Command {
	c := defaultConfig()
	groups := c.flagGroups()
	cmd := &cobra.Command{
		Use:   "apiserver",
		Short: "Serve the Kubernetes API for Endpoints and leases from etcd",
		Long: `Berth serves the Kubernetes API for Endpoints, EndpointSlices and Services from etcd. Without flags
it runs an embedded etcd, keeps everything in ./berth.data and listens on https://127.0.0.1:6443.`,
		Version:       binaryVersion(),
		Args:          cli.NoCommand,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.UnknownVariables = cli.UnknownVariables(cmd.Flags(), os.Environ())
			return cli.WithEnvironment(cmd.Flags(), func() error { return run(cmd.Context(), c, hangups, stdout, stderr) })
		},
	}
	for _, group := range groups {
		cmd.Flags().AddFlagSet(group.Flags)
	}
	cmd.Flags().SortFlags = false
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetVersionTemplate(versionLine())
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { cli.PrintHelp(cmd, groups) })
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	cmd.AddCommand(commands.NewReady(), commands.NewLimits(stdout), commands.NewSnapshot(stdout), commands.NewToken(stdout, stderr), commands.NewCertificate(stdout), commands.NewCluster(stdout), commands.NewIAM(), newVersionCommand())
	return cmd
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
