// Package commands is the commands of the binary besides the server.
package commands

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
)

// NewReady returns the command that asks whether a server is ready.
func NewReady() *cobra.Command {
	dir, server := datadir.Default, ""
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Exit with status 0 if the server is ready, else with 1",
		Long: `Requests /readyz from a running server and exits with status 0 if the answer is ok. Otherwise it
prints the reason in one line and exits with status 1. For container health checks.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cli.WithEnvironment(cmd.Flags(), func() error { return CheckReady(cmd.Context(), dir, server) })
		},
	}
	addServerFlags(cmd.Flags(), &dir, &server)
	return cmd
}

// addServerFlags adds the flags that name a running server.
func addServerFlags(flags *pflag.FlagSet, dir *datadir.Dir, server *string) {
	flags.StringVar((*string)(dir), "data-dir", string(*dir), "Data directory of the server, whose kubeconfig has the server's address, CA and token")
	flags.StringVar(server, "server", *server, "URL of the server, such as https://127.0.0.1:6443, if not the one in the kubeconfig")
}

// readyTimeout is shorter than usual time-outs of health checks, so that they get the reason
// of a failure.
const readyTimeout = 4 * time.Second

// CheckReady returns nil if the server of a data directory answers /readyz with ok.
func CheckReady(ctx context.Context, dir datadir.Dir, server string) error {
	status, body, err := ask(ctx, dir, server, "/readyz")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("not ready: %d %s: %s", status, http.StatusText(status), body)
	}
	return err
}

// ask requests a path from the server of a data directory, as its administrator. server is
// its base URL; empty: the one in the kubeconfig of the data directory. The certificate of
// an https server is verified by the CA and the name in the kubeconfig, whatever host is in
// the URL. Without TLS no token is sent.
func ask(ctx context.Context, dir datadir.Dir, server, path string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	token := ""
	if !strings.HasPrefix(server, "http://") {
		known, err := datadir.ReadKubeconfig(dir.Kubeconfig())
		if err != nil {
			return 0, nil, noServer(err)
		}
		if server == "" {
			server = known.Server
		}
		if transport.TLSClientConfig, err = tlsConfig(known); err != nil {
			return 0, nil, fmt.Errorf("%s: %w", dir.Kubeconfig(), err)
		}
		token = known.Token
	}
	if !strings.HasPrefix(server, "http://") && !strings.HasPrefix(server, "https://") {
		return 0, nil, &cli.FlagError{Flag: "server", Err: fmt.Errorf("%q is not a URL, such as https://127.0.0.1:6443", server)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(server, "/")+path, nil)
	if err != nil {
		return 0, nil, &cli.FlagError{Flag: "server", Err: err}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token) // others may exhaust the limit of this address
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, nil, fmt.Errorf("%s does not answer: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	const maxBody = 64 << 10
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp.StatusCode, body, err
}

// noServer explains an error of reading the kubeconfig of a data directory.
func noServer(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: --data-dir must be the data directory of a server that has started", err)
	}
	return err
}

// tlsConfig returns how to verify the server.
func tlsConfig(a datadir.Access) (*tls.Config, error) {
	u, err := url.Parse(a.Server)
	if err != nil {
		return nil, err
	}
	var roots *x509.CertPool // the system's
	if len(a.CAPEM) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(a.CAPEM) {
			return nil, errors.New("it contains no CA certificate")
		}
	}
	name := a.ServerName
	if name == "" {
		name = u.Hostname()
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: name}, nil
}
