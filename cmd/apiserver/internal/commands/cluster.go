package commands

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/pkg/files"
)

// NewCluster returns the command that makes what several servers have in common.
func NewCluster(stdout io.Writer) *cobra.Command {
	return cli.NewGroup("cluster", "Create what servers on one etcd have in common",
		"Creates what several servers on one etcd, and the members of that etcd, have in common.",
		newClusterCreate(stdout))
}

// clusterRequest is the flags of cluster create.
type clusterRequest struct {
	out     datadir.Dir
	names   []string // in the serving certificate; the first is in the kubeconfig
	members []string // host names
}

func newClusterCreate(stdout io.Writer) *cobra.Command {
	var r clusterRequest
	cmd := &cobra.Command{
		Use:   "create --out DIR --hostname NAME [--etcd-member NAME]...",
		Short: "Create the certificates, the CAs and the token file of several servers and their etcd",
		Long: `Creates in a directory what several servers on one etcd have in common, for copies on their
machines, each with its key beside it:

  pki/apiserver.crt    --tls-cert-file: the serving certificate, of pki/ca.crt (--tls-ca-file)
  pki/client-ca.crt    --client-ca-file, by which apiserver certificate create --data-dir=DIR signs
  tokens.csv           --token-auth-file: the administrator's token, which is in the file token
  kubeconfig           the administrator's
  etcd/ca.crt          --etcd-cafile, and each member's --trusted-ca-file and --peer-trusted-ca-file
  etcd/client.crt      --etcd-certfile
  etcd/NAME.crt        a member's --cert-file and --peer-cert-file

What exists is kept. Certificates are valid for a year; those that expire within 30 days, or are
not valid for all names, are replaced when the command is run again. CAs are valid for ten years.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cli.WithEnvironment(cmd.Flags(), func() error { return r.create(stdout) })
		},
	}
	cmd.Flags().StringVar((*string)(&r.out), "out", string(r.out), "Directory to write to, created if it does not exist")
	cmd.Flags().StringSliceVar(&r.names, "hostname", r.names, "Host name or IP address by which clients reach the servers, which the kubeconfig has with port 6443; give it again, or with commas, for more names in the certificate")
	cmd.Flags().StringSliceVar(&r.members, "etcd-member", r.members, "Host name of a member of etcd; give it again, or with commas, for several; without it there are no certificates for etcd")
	return cmd
}

func (r *clusterRequest) validate() error {
	if r.out == "" {
		return &cli.FlagError{Flag: "out", Err: errors.New("must not be empty")}
	}
	if len(r.names) == 0 {
		return &cli.FlagError{Flag: "hostname", Err: errors.New("must not be empty")}
	}
	for _, name := range r.names {
		if net.ParseIP(name) == nil && len(validation.IsDNS1123Subdomain(name)) > 0 {
			return &cli.FlagError{Flag: "hostname", Err: fmt.Errorf("%q is neither a host name nor an IP address", name)}
		}
	}
	for _, member := range r.members {
		// The names of the other files in the directory.
		if len(validation.IsDNS1123Subdomain(member)) > 0 || member == "ca" || member == "client" {
			return &cli.FlagError{Flag: "etcd-member", Err: fmt.Errorf("%q cannot be the host name of a member", member)}
		}
	}
	return nil
}

func (r *clusterRequest) create(stdout io.Writer) error {
	if err := r.validate(); err != nil {
		return err
	}
	lock, err := r.out.Lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	now := time.Now()
	serving, err := r.out.PKI().Ensure(append(r.names, "localhost", "127.0.0.1", "::1"), now)
	if err != nil {
		return err
	}
	if err := r.out.PKI().EnsureClientCA(now); err != nil {
		return err
	}
	if len(r.members) > 0 {
		if err := certificates.Dir(r.out.Etcd()).EnsureEtcd(r.members, now); err != nil {
			return err
		}
	}
	token, err := r.ensureTokens()
	if err != nil {
		return err
	}
	access := datadir.Access{Server: "https://" + net.JoinHostPort(r.names[0], "6443"), CAPEM: serving.CAPEM, User: "admin", Token: token}
	if err := datadir.WriteKubeconfig(r.out.Kubeconfig(), access); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s is complete; the serving certificate is valid until %s\n", r.out, serving.Pair.Leaf.NotAfter.Format(time.RFC3339))
	return err
}

// ensureTokens returns the administrator's token, and creates it and the token file if neither exists.
func (r *clusterRequest) ensureTokens() (string, error) {
	path := filepath.Join(string(r.out), "tokens.csv")
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	fileExists := err == nil
	if _, err := os.Stat(r.out.Token()); fileExists && errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s exists, and the administrator's token that it is for is not in %s: put it there, or remove %[1]s to have both made", path, r.out.Token())
	}
	token, err := r.out.EnsureToken()
	if err != nil || fileExists {
		return token, err
	}
	line, err := auth.TokenLine(token, auth.User{Name: "admin", Groups: []string{"system:masters"}}, time.Time{})
	if err != nil {
		return "", err
	}
	return token, files.Write(path, []byte(line), 0o600)
}
