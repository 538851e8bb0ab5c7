package commands

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/pkg/auth"
)

// NewToken returns the command that makes tokens.
func NewToken(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Create tokens",
		Long:  "Creates tokens for the file of --token-auth-file, which then has only their hashes.",
		Args:  cli.NoCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenCreate(stdout, stderr))
	return cmd
}

func newTokenCreate(stdout, stderr io.Writer) *cobra.Command {
	var u auth.User
	var ttl time.Duration
	file := ""
	cmd := &cobra.Command{
		Use:   "create --user NAME",
		Short: "Create a token, and the line of it for the token file",
		Long: `Creates a token of 256 random bits and prints it on stdout. The line for the file of
--token-auth-file, which has the token's hash in place of the token, is appended to the file that
--file names, which a running server then loads, or else printed on stderr.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cli.WithEnvironment(cmd.Flags(), func() error { return createToken(u, ttl, file, stdout, stderr) })
		},
	}
	addUserFlags(cmd.Flags(), &u)
	cmd.Flags().DurationVar(&ttl, "ttl", ttl, "Time until the token expires, such as 720h; 0 means never")
	cmd.Flags().StringVar(&file, "file", file, "Token file to append the line to, created if it does not exist; if empty, the line is printed on stderr")
	return cmd
}

// addUserFlags adds the flags that say whom something is made for.
func addUserFlags(flags *pflag.FlagSet, u *auth.User) {
	flags.StringVar(&u.Name, "user", u.Name, "Name of the user")
	flags.StringSliceVar(&u.Groups, "group", u.Groups, "Group of the user, such as system:masters, which may do everything; give it again, or with commas, for several")
	flags.StringVar(&u.UID, "uid", u.UID, "UID of the user, which may be empty")
}

// createToken prints a new token, and puts its line where the user wants it.
func createToken(u auth.User, ttl time.Duration, file string, stdout, stderr io.Writer) error {
	if u.Name == "" {
		return &cli.FlagError{Flag: "user", Err: errors.New("must not be empty")}
	}
	if ttl < 0 {
		return &cli.FlagError{Flag: "ttl", Err: fmt.Errorf("%v is negative", ttl)}
	}
	expires := time.Time{}
	if ttl > 0 {
		expires = time.Now().Add(ttl).Truncate(time.Second)
	}
	token := auth.GenerateToken()
	line, err := auth.TokenLine(token, u, expires)
	if err != nil {
		return &cli.FlagError{Flag: "group", Err: err}
	}
	if file == "" {
		fmt.Fprintf(stderr, "Append this line to the file of --token-auth-file; the token is kept nowhere else:\n%s", line)
	} else if err := appendToken(file, line); err != nil {
		return &cli.FlagError{Flag: "file", Err: err}
	}
	_, err = fmt.Fprintln(stdout, token)
	return err
}

// appendToken appends a line to a token file by one write, so that a server that loads the file
// at the same time, and others who append to it, never see a part of the line. It leaves a file
// that is invalid as it is.
func appendToken(path, line string) (err error) {
	before, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(before) > 0 && !bytes.HasSuffix(before, []byte("\n")) {
		line = "\n" + line
	}
	if err := auth.CheckTokens(strings.NewReader(string(before) + line)); err != nil {
		return fmt.Errorf("%s is not a valid token file: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Sync(), f.Close())
}
