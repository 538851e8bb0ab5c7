package commands

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/pkg/auth"
)

// NewLimits returns the command that shows the limits of a user.
func NewLimits(stdout io.Writer) *cobra.Command {
	dir, server, user := datadir.Default, "", ""
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "Show the limits of a user, and what is left of them",
		Long: `Asks a running server, as its administrator, for the limits of a user: the token buckets of its
tokens, and what it has of what users share, such as requests in progress, watches and memory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cli.WithEnvironment(cmd.Flags(), func() error { return PrintLimits(cmd.Context(), dir, server, user, stdout) })
		},
	}
	addServerFlags(cmd.Flags(), &dir, &server)
	cmd.Flags().StringVar(&user, "user", user, "Name of the user; if empty, the administrator")
	return cmd
}

// PrintLimits prints the limits of a user of the server of a data directory, and what is left of
// them.
func PrintLimits(ctx context.Context, dir datadir.Dir, server, user string, w io.Writer) error {
	status, body, err := ask(ctx, dir, server, apiserver.LimitsPath+"?user="+url.QueryEscape(user))
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		var refusal metav1.Status
		if json.Unmarshal(body, &refusal) != nil || refusal.Message == "" {
			refusal.Message = fmt.Sprintf("%d %s", status, http.StatusText(status))
		}
		if status == http.StatusUnauthorized || strings.Contains(refusal.Message, strconv.Quote(auth.Anonymous)) {
			refusal.Message += "; the kubeconfig in the data directory has no valid token, as when all in --token-auth-file are hashed"
		}
		return fmt.Errorf("the server refuses to tell: %s", refusal.Message)
	}
	var limits apiserver.Limits
	if err := json.Unmarshal(body, &limits); err != nil {
		return fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LIMIT\tTOKEN\tPER SECOND\tBURST\tLEFT")
	for _, rate := range limits.Rates {
		token := rate.Token
		if token == "" {
			token = "all"
		}
		fmt.Fprintf(table, "%s\t%s\t%v\t%d\t%.1f\n", rate.Limit, token, rate.QPS, rate.Burst, rate.Left)
	}
	if len(limits.Rates) == 0 {
		fmt.Fprintln(table, "none")
	}
	fmt.Fprintln(table, "\nLIMIT\tUSED\tPER USER\tUSED BY ALL\tTOTAL")
	for _, share := range limits.Shares {
		fmt.Fprintf(table, "%s\t%d\t%s\t%d\t%s\n", share.Limit, share.Used, bound(share.PerUser), share.AllUsed, bound(share.Total))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if limits.Exempt {
		fmt.Fprintln(w, "\nThe user's requests and watches in progress are not limited, and not counted above.")
	}
	if limits.More > 0 {
		fmt.Fprintf(w, "\n%d more tokens are not shown.\n", limits.More)
	}
	return nil
}

// bound is a limit in words.
func bound(n int64) string {
	if n == 0 {
		return "no limit"
	}
	return strconv.FormatInt(n, 10)
}
