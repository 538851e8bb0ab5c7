package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	clientcmdv1 "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"

	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// Config names a server and the user that requests come from, as the flags of the same
// names do.
type Config struct {
	Server                string
	Kubeconfig            string
	Tokens, TokenFiles    []string
	CAFile                string
	InsecureSkipTLSVerify bool
	HTTP2                 bool // over TLS; without TLS it is HTTP/1.1, as for client-go
}

// access is what requests need to reach a server and to be authenticated there.
type access struct {
	server string
	tls    *tls.Config
	tokens []Token // none: requests carry no token
}

// access combines the kubeconfig and the flags; a flag takes precedence.
func (c *Config) access() (*access, error) {
	a := &access{tls: &tls.Config{MinVersion: tls.VersionTLS12}}
	if c.Kubeconfig != "" {
		if err := a.readKubeconfig(c.Kubeconfig); err != nil {
			return nil, fmt.Errorf("--kubeconfig: %w", err)
		}
	}
	if c.Server != "" {
		a.server = c.Server
	}
	server, err := parseServer(a.server)
	if err != nil {
		return nil, fmt.Errorf("--server: %w", err)
	}
	a.server = server
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err == nil {
			err = a.trust(pem)
		}
		if err != nil {
			return nil, fmt.Errorf("--ca-file: %w", err)
		}
	}
	if c.InsecureSkipTLSVerify {
		a.tls.InsecureSkipVerify = true
	}
	tokens, err := readTokens(c.Tokens, c.TokenFiles)
	if err != nil {
		return nil, fmt.Errorf("--token-file: %w", err)
	}
	if len(tokens) > 0 {
		// They replace the kubeconfig's user.
		a.tokens, a.tls.Certificates = tokens, nil
	}
	return a, nil
}

// Kubectl returns the start of a kubectl command for the same server and user, in which a
// token is the shell's variable TOKEN.
func (c *Config) Kubectl() string {
	var args []string
	for _, flag := range []struct{ name, value string }{
		{"kubeconfig", c.Kubeconfig}, {"server", c.Server}, {"certificate-authority", c.CAFile},
	} {
		if flag.value != "" {
			args = append(args, "--"+flag.name+"="+flag.value)
		}
	}
	if c.InsecureSkipTLSVerify {
		args = append(args, "--insecure-skip-tls-verify")
	}
	command := text.Clean(text.Command("kubectl", args))
	if len(c.Tokens)+len(c.TokenFiles) > 0 {
		command += ` --token="$TOKEN"`
	}
	return command
}

// parseServer returns the URL without a trailing slash. It refuses users and passwords in
// the URL, which the report would show.
func parseServer(server string) (string, error) {
	if server == "" {
		return "", errors.New("missing, and there is no --kubeconfig that names one")
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("must look like https://127.0.0.1:6443")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// readTokens returns tokens and then those of the files, which have one token per line or
// are kube-apiserver's CSV files of tokens.
func readTokens(tokens, files []string) ([]Token, error) {
	var all []Token
	for i, token := range tokens {
		all = append(all, Token{token, fmt.Sprintf("--token, number %d", i+1)})
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		before, number := len(all), 0
		for line := range strings.Lines(string(data)) {
			number++
			fields := strings.Split(line, ",")
			for i := range fields {
				fields[i] = strings.Trim(strings.TrimSpace(fields[i]), `"`)
			}
			if fields[0] == "" {
				continue
			}
			source := fmt.Sprintf("line %d of %s", number, path)
			if len(fields) > 1 {
				source += ", user " + fields[1]
			}
			all = append(all, Token{fields[0], text.Clean(source)})
		}
		if len(all) == before {
			return nil, fmt.Errorf("%s: contains no token", path)
		}
	}
	for _, token := range all {
		if strings.ContainsFunc(token.Value, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("the token in %s has characters that are not allowed in a header", token.Source)
		}
	}
	return all, nil
}

// trust replaces the system's CAs by those of a PEM file.
func (a *access) trust(pem []byte) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return errors.New("contains no certificate")
	}
	a.tls.RootCAs = roots
	return nil
}

// readKubeconfig takes the cluster and the user of the current context.
func (a *access) readKubeconfig(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var file clientcmdv1.Config
	if err := yaml.Unmarshal(data, &file); err != nil {
		// The parser's error might quote the file, and with it a token.
		return fmt.Errorf("%s is not a kubeconfig", path)
	}
	cluster, user, err := current(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	dir := filepath.Dir(path)
	a.server, a.tls.ServerName = cluster.Server, cluster.TLSServerName
	a.tls.InsecureSkipVerify = cluster.InsecureSkipTLSVerify
	ca, err := dataOrFile(cluster.CertificateAuthorityData, cluster.CertificateAuthority, dir)
	if err == nil && len(ca) > 0 {
		err = a.trust(ca)
	}
	if err != nil {
		return fmt.Errorf("%s: certificate authority: %w", path, err)
	}
	if err := a.useCredentials(user, dir); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// current returns the cluster and the user of the current context. A user that is missing
// is empty.
func current(file clientcmdv1.Config) (cluster clientcmdv1.Cluster, user clientcmdv1.AuthInfo, err error) {
	if file.CurrentContext == "" {
		return cluster, user, errors.New("it has no current-context")
	}
	var context *clientcmdv1.Context
	for i := range file.Contexts {
		if file.Contexts[i].Name == file.CurrentContext {
			context = &file.Contexts[i].Context
		}
	}
	if context == nil {
		return cluster, user, fmt.Errorf("it has no context %q", file.CurrentContext)
	}
	found := false
	for _, c := range file.Clusters {
		if c.Name == context.Cluster {
			cluster, found = c.Cluster, true
		}
	}
	if !found {
		return cluster, user, fmt.Errorf("it has no cluster %q", context.Cluster)
	}
	for _, u := range file.AuthInfos {
		if u.Name == context.AuthInfo {
			user = u.AuthInfo
		}
	}
	return cluster, user, nil
}

// useCredentials takes a user's token, or the certificate if there is no token.
func (a *access) useCredentials(user clientcmdv1.AuthInfo, dir string) error {
	token := user.Token
	if token == "" && user.TokenFile != "" {
		data, err := os.ReadFile(fromDir(user.TokenFile, dir))
		if err != nil {
			return err
		}
		token = strings.TrimSpace(string(data))
	}
	if token != "" {
		a.tokens = []Token{{token, "the kubeconfig"}}
		return nil
	}
	cert, err := dataOrFile(user.ClientCertificateData, user.ClientCertificate, dir)
	if err != nil || len(cert) == 0 {
		return err
	}
	key, err := dataOrFile(user.ClientKeyData, user.ClientKey, dir)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	a.tls.Certificates = []tls.Certificate{pair}
	return nil
}

func dataOrFile(data []byte, path, dir string) ([]byte, error) {
	if len(data) > 0 || path == "" {
		return data, nil
	}
	return os.ReadFile(fromDir(path, dir))
}

// fromDir resolves a path in a kubeconfig, which is relative to the kubeconfig.
func fromDir(path, dir string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
