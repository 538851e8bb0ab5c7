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
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/auth"
)

// NewToken returns the command that makes tokens.
func NewToken(stdout, stderr io.Writer) *cobra.Command {
	return cli.NewGroup("token", "Create tokens",
		"Creates tokens for the file of --token-auth-file, which then has only their hashes.",
		newTokenCreate(stdout, stderr))
}

// tokenRequest is the flags of token create.
type tokenRequest struct {
	user       auth.User
	ttl        time.Duration // 0: without end
	file       string        // a token file; "": the line is printed
	kubeconfig newKubeconfig // without a path the token is printed
}

func newTokenCreate(stdout, stderr io.Writer) *cobra.Command {
	var r tokenRequest
	cmd := &cobra.Command{
		Use:   "create --user NAME [--file FILE] [--kubeconfig FILE]",
		Short: "Create a token and its line for the token file",
		Long: `Creates a token of 256 random bits and prints it on stdout, or puts it into the new kubeconfig
that --kubeconfig names. The line for the file of --token-auth-file, which has the token's hash in
place of the token, is appended to the file that --file names, which a running server then loads,
or else printed on stderr.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cli.WithEnvironment(cmd.Flags(), func() error { return r.create(stdout, stderr) })
		},
	}
	addUserFlags(cmd.Flags(), &r.user)
	cmd.Flags().DurationVar(&r.ttl, "ttl", r.ttl, "Time until the token expires, such as 720h; 0 means never")
	r.kubeconfig.addFlags(cmd.Flags(), "New kubeconfig to write, with the token, and how to reach the server; if empty, the token is printed")
	cmd.Flags().StringVar(&r.file, "file", r.file, "Token file to append the line to, created if it does not exist; if empty, the line is printed on stderr")
	return cmd
}

// addUserFlags adds the flags that say whom something is made for.
func addUserFlags(flags *pflag.FlagSet, u *auth.User) {
	flags.StringVar(&u.Name, "user", u.Name, "Name of the user")
	flags.StringSliceVar(&u.Groups, "group", u.Groups, "Group of the user, such as system:masters, which may do everything; give it again, or with commas, for several")
	flags.StringVar(&u.UID, "uid", u.UID, "UID of the user, which may be empty")
}

func (r *tokenRequest) create(stdout, stderr io.Writer) error {
	if r.user.Name == "" {
		return &cli.FlagError{Flag: "user", Err: errors.New("must not be empty")}
	}
	if r.ttl < 0 {
		return &cli.FlagError{Flag: "ttl", Err: fmt.Errorf("%v is negative", r.ttl)}
	}
	if err := r.kubeconfig.validate(); err != nil {
		return err
	}
	expires := time.Time{}
	if r.ttl > 0 {
		expires = time.Now().Add(r.ttl).Truncate(time.Second)
	}
	token := auth.GenerateToken()
	line, err := auth.TokenLine(token, r.user, expires)
	if err != nil {
		return &cli.FlagError{Flag: "group", Err: err}
	}
	if r.kubeconfig.path == "" {
		if err := r.register(line, stderr); err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, token)
		return err
	}
	server, err := datadir.ReadKubeconfig(r.kubeconfig.dir.Kubeconfig())
	if err != nil {
		return noServer(err)
	}
	if err := r.kubeconfig.write(server, datadir.Access{User: r.user.Name, Token: token}); err != nil {
		return err
	}
	if err := r.register(line, stderr); err != nil {
		return errors.Join(err, os.Remove(r.kubeconfig.path)) // its token is good for nothing
	}
	_, err = fmt.Fprintf(stdout, "wrote %s: user %q, groups %q, %s\n", r.kubeconfig.path, r.user.Name, r.user.Groups, validity(expires))
	return err
}

// validity says how long something is valid; zero: without end.
func validity(expires time.Time) string {
	if expires.IsZero() {
		return "never expires"
	}
	return "valid until " + expires.UTC().Format(time.RFC3339)
}

// register puts the line of a token where the user wants it.
func (r *tokenRequest) register(line string, stderr io.Writer) error {
	if r.file == "" {
		_, err := fmt.Fprintf(stderr, "Append this line to the file of --token-auth-file; it has only the hash of the token:\n%s", line)
		return err
	}
	if err := appendToken(r.file, line); err != nil {
		return &cli.FlagError{Flag: "file", Err: err}
	}
	return nil
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
