package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/apiserver"
)

// readyTimeout is shorter than usual time-outs of health checks, so that they get the reason
// of a failure.
const readyTimeout = 4 * time.Second

// checkReady returns nil if the server of a data directory answers /readyz with ok.
func checkReady(ctx context.Context, dir dataDir, server string) error {
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
func ask(ctx context.Context, dir dataDir, server, path string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	token := ""
	if !strings.HasPrefix(server, "http://") {
		known, err := readKubeconfig(dir.kubeconfig())
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil, fmt.Errorf("%w: --data-dir must be the data directory of a server that has started", err)
		}
		if err != nil {
			return 0, nil, err
		}
		if server == "" {
			server = known.server
		}
		if transport.TLSClientConfig, err = known.tlsConfig(); err != nil {
			return 0, nil, fmt.Errorf("%s: %w", dir.kubeconfig(), err)
		}
		token = known.token
	}
	if !strings.HasPrefix(server, "http://") && !strings.HasPrefix(server, "https://") {
		return 0, nil, &flagError{flag: "server", err: fmt.Errorf("%q is not a URL, such as https://127.0.0.1:6443", server)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(server, "/")+path, nil)
	if err != nil {
		return 0, nil, &flagError{flag: "server", err: err}
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

// printLimits prints the limits of a user of the server of a data directory, and what is left of
// them.
func printLimits(ctx context.Context, dir dataDir, server, user string, w io.Writer) error {
	status, body, err := ask(ctx, dir, server, apiserver.LimitsPath+"?user="+url.QueryEscape(user))
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		var refusal metav1.Status
		if json.Unmarshal(body, &refusal) != nil || refusal.Message == "" {
			refusal.Message = fmt.Sprintf("%d %s", status, http.StatusText(status))
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
