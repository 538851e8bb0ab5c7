package commands

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/pkg/auth/iam"
)

// maxPasswordBytes is more than what any password has.
const maxPasswordBytes = 4 << 10

// NewIAM returns the commands that prepare the file of the token service.
func NewIAM() *cobra.Command {
	password := &cobra.Command{
		Use:   "password",
		Short: "Print a hash of a password",
		Long: `Reads a password from the terminal, where it is not shown, or else the first line of the standard
input, and prints its bcrypt hash for a user of the file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return hashPassword(cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	return cli.NewGroup("iam", "Prepare the file of --iam-config", "Prepares what the file of --iam-config needs.", password)
}

func hashPassword(in io.Reader, out, prompt io.Writer) error {
	password, err := readPassword(in, prompt)
	if err != nil {
		return fmt.Errorf("cannot read the password: %w", err)
	}
	hash, err := iam.HashPassword(password)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, hash)
	return err
}

func readPassword(in io.Reader, prompt io.Writer) (string, error) {
	if file, ok := in.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		fmt.Fprint(prompt, "Password: ")
		password, err := term.ReadPassword(int(file.Fd()))
		fmt.Fprintln(prompt)
		return string(password), err
	}
	line, err := bufio.NewReader(io.LimitReader(in, maxPasswordBytes)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}
