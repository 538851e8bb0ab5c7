package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/berth-project/berth/cmd/loadtest/internal/report"
)

const compareHelp = `Prints two JSON reports side by side, and how much B differs from A.

Usage:
  loadtest compare A.json B.json
`

func newCompareCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:  "compare A.json B.json",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, paths []string) error {
			var reports [2]*report.Report
			for i, path := range paths {
				var err error
				if reports[i], err = readReport(path); err != nil {
					return err
				}
			}
			c := report.Compare(reports[0], reports[1], [2]string(paths), false)
			fmt.Fprint(cmd.OutOrStdout(), c.Text())
			return nil
		},
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { fmt.Fprint(cmd.OutOrStdout(), compareHelp) })
	return cmd
}

// readReport reads a report that was written with --output=json=path.
func readReport(path string) (*report.Report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rep report.Report
	if err := json.Unmarshal(data, &rep); err != nil {
		return nil, fmt.Errorf("%s is not a JSON report: %w", path, err)
	}
	if rep.Tool == "" {
		return nil, fmt.Errorf("%s is not a JSON report of loadtest", path)
	}
	return &rep, nil
}
