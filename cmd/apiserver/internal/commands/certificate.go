package commands

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/pkg/files"
)

// NewCertificate returns the command that makes client certificates.
func NewCertificate(stdout io.Writer) *cobra.Command {
	return cli.NewGroup("certificate", "Create client certificates",
		"Creates client certificates, which the CA in the data directory signs.",
		newCertificateCreate(stdout))
}

// certificateRequest is the flags of certificate create.
type certificateRequest struct {
	user       auth.User
	ttl        time.Duration
	out        string        // a directory; empty if kubeconfig is not
	kubeconfig newKubeconfig // not written if out is
}

func newCertificateCreate(stdout io.Writer) *cobra.Command {
	r := certificateRequest{ttl: 30 * 24 * time.Hour} // short, since a certificate cannot be revoked alone
	cmd := &cobra.Command{
		Use:   "create --user NAME (--kubeconfig FILE | --out DIR)",
		Short: "Create a client certificate, in a kubeconfig or in files",
		Long: `Creates a client certificate, with the user's name as its common name and the groups as its
organizations, signed by the client CA in the data directory of a server, which trusts it unless
--client-ca-file names others. It cannot be revoked alone: replacing the CA ends all of them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cli.WithEnvironment(cmd.Flags(), func() error { return r.create(stdout) })
		},
	}
	addUserFlags(cmd.Flags(), &r.user)
	cmd.Flags().DurationVar(&r.ttl, "ttl", r.ttl, "Time until the certificate expires, at the latest with its CA")
	r.kubeconfig.addFlags(cmd.Flags(), "New kubeconfig to write, with the certificate, its key, and how to reach the server")
	cmd.Flags().StringVar(&r.out, "out", r.out, "Directory to write client.crt, client.key and the server's ca.crt to, created if it does not exist; files of these names are replaced")
	return cmd
}

func (r *certificateRequest) create(stdout io.Writer) error {
	if err := r.validate(); err != nil {
		return err
	}
	known, err := datadir.ReadKubeconfig(r.kubeconfig.dir.Kubeconfig())
	if err != nil {
		return noServer(err)
	}
	client := certificates.Client{User: r.user.Name, Groups: r.user.Groups, UID: r.user.UID}
	now := time.Now()
	cert, key, leaf, err := r.kubeconfig.dir.PKI().IssueClient(client, now, now.Add(r.ttl))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: a server makes it when it starts without --client-ca-file; with that flag, sign with the key of a CA in that file", err)
	}
	if err != nil {
		return err
	}
	written := r.kubeconfig.path
	if r.out != "" {
		written, err = r.out, writeCertificate(r.out, cert, key, known.CAPEM)
	} else {
		err = r.kubeconfig.write(known, datadir.Access{User: r.user.Name, CertPEM: cert, KeyPEM: key})
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "wrote %s: user %q, groups %q, valid until %s\n", written, r.user.Name, r.user.Groups, leaf.NotAfter.Format(time.RFC3339))
	return err
}

func (r *certificateRequest) validate() error {
	fault := func(flag, text string, args ...any) error {
		return &cli.FlagError{Flag: flag, Err: fmt.Errorf(text, args...)}
	}
	switch {
	case r.user.Name == "":
		return fault("user", "must not be empty")
	case r.ttl <= 0:
		return fault("ttl", "%v is not positive", r.ttl)
	case (r.out == "") == (r.kubeconfig.path == ""):
		return fault("kubeconfig", "must be set, or --out, and not both")
	}
	for _, group := range r.user.Groups {
		if group == "" {
			return fault("group", "must not be empty")
		}
	}
	return r.kubeconfig.validate()
}

// writeCertificate writes a certificate and what belongs to it into a directory. The key comes
// first: a client that reads the two in between finds that they do not match, and tries again.
func writeCertificate(dir string, cert, key, serverCA []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		data []byte
	}{{"client.key", key}, {"client.crt", cert}, {"ca.crt", serverCA}} {
		if len(file.data) == 0 {
			continue // the server's CA may be one of the system's
		}
		if err := files.Write(filepath.Join(dir, file.name), file.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
