package main

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
)

// readyTimeout is shorter than usual time-outs of health checks, so that they get the reason
// of a failure.
const readyTimeout = 4 * time.Second

// checkReady returns nil if the server of a data directory answers /readyz with ok. server is
// its base URL; empty: the one in the kubeconfig of the data directory. The certificate of
// an https server is verified by the CA and the name in the kubeconfig, whatever host is in
// the URL.
func checkReady(ctx context.Context, dir dataDir, server string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	token := ""
	if !strings.HasPrefix(server, "http://") {
		known, err := readKubeconfig(dir.kubeconfig())
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: --data-dir must be the data directory of a server that has started", err)
		}
		if err != nil {
			return err
		}
		if server == "" {
			server = known.server
		}
		if transport.TLSClientConfig, err = known.tlsConfig(); err != nil {
			return fmt.Errorf("%s: %w", dir.kubeconfig(), err)
		}
		token = known.token
	}
	if !strings.HasPrefix(server, "http://") && !strings.HasPrefix(server, "https://") {
		return &flagError{flag: "server", err: fmt.Errorf("%q is not a URL, such as https://127.0.0.1:6443", server)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(server, "/")+"/readyz", nil)
	if err != nil {
		return &flagError{flag: "server", err: err}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token) // others may exhaust the limit of this address
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	const maxBody = 1 << 10
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s: %s", resp.Status, body)
	}
	return nil
}

func (a access) tlsConfig() (*tls.Config, error) {
	u, err := url.Parse(a.server)
	if err != nil {
		return nil, err
	}
	var roots *x509.CertPool // the system's
	if len(a.caPEM) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(a.caPEM) {
			return nil, errors.New("it contains no CA certificate")
		}
	}
	name := a.serverName
	if name == "" {
		name = u.Hostname()
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: name}, nil
}
