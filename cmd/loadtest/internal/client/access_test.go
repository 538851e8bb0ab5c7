package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// kubeconfig has one context with these lines in its cluster and its user.
func kubeconfig(cluster, user string) string {
	indent := func(lines string) string { return strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\n    ") }
	return `apiVersion: v1
kind: Config
current-context: here
contexts:
- name: there
  context: {cluster: other, user: other}
- name: here
  context: {cluster: ours, user: us}
clusters:
- name: other
  cluster: {server: "https://other"}
- name: ours
  cluster:
    ` + indent(cluster) + `
users:
- name: other
  user: {token: wrong}
- name: us
  user:
    ` + indent(user) + "\n"
}

// keyPair is a certificate of its own and its key, in PEM.
func keyPair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "us"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func TestAccess(t *testing.T) {
	dir := t.TempDir()
	cert, key := keyPair(t)
	write(t, filepath.Join(dir, "ca.crt"), cert)
	write(t, filepath.Join(dir, "us.key"), key)
	write(t, filepath.Join(dir, "us.token"), "from-file\n")
	path := filepath.Join(dir, "kubeconfig")
	data := base64.StdEncoding.EncodeToString([]byte(cert))

	type want struct {
		Server, Name string
		Tokens       []string
		CA, Insecure bool
		Cert         bool
	}
	for name, test := range map[string]struct {
		cluster, user string // the kubeconfig's; none without a cluster
		config        Config
		want          want
	}{
		"a kubeconfig":            {"server: https://h:6443/\ncertificate-authority-data: " + data, "token: t", Config{}, want{Server: "https://h:6443", Tokens: []string{"t"}, CA: true}},
		"files of a kubeconfig":   {"server: https://h\ncertificate-authority: ca.crt\ntls-server-name: name.example", "tokenFile: us.token", Config{}, want{Server: "https://h", Name: "name.example", Tokens: []string{"from-file"}, CA: true}},
		"a client's certificate":  {"server: https://h\ninsecure-skip-tls-verify: true", "client-certificate: ca.crt\nclient-key: " + filepath.Join(dir, "us.key"), Config{}, want{Server: "https://h", Insecure: true, Cert: true}},
		"tokens before the user":  {"server: https://h", "client-certificate: ca.crt\nclient-key: us.key", Config{Tokens: []string{"a", "b"}}, want{Server: "https://h", Tokens: []string{"a", "b"}}},
		"a server before its own": {"server: https://h", "token: t", Config{Server: "http://other:1/base/"}, want{Server: "http://other:1/base", Tokens: []string{"t"}}},
		"flags alone":             {"", "", Config{Server: "https://h", CAFile: filepath.Join(dir, "ca.crt"), TokenFiles: []string{filepath.Join(dir, "us.token")}}, want{Server: "https://h", Tokens: []string{"from-file"}, CA: true}},
		"no token at all":         {"", "", Config{Server: "https://h", InsecureSkipTLSVerify: true}, want{Server: "https://h", Insecure: true}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.cluster != "" {
				write(t, path, kubeconfig(test.cluster, test.user))
				test.config.Kubeconfig = path
			}
			a, err := test.config.access()
			if err != nil {
				t.Fatal(err)
			}
			var values []string
			for _, token := range a.tokens {
				values = append(values, token.Value)
			}
			got := want{a.server, a.tls.ServerName, values, a.tls.RootCAs != nil, a.tls.InsecureSkipVerify, len(a.tls.Certificates) > 0}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestAccessFaults(t *testing.T) {
	dir := t.TempDir()
	cert, key := keyPair(t)
	_, other := keyPair(t)
	for file, text := range map[string]string{"crt": cert, "key": key, "other": other, "empty": ""} {
		write(t, filepath.Join(dir, file), text)
	}
	good := kubeconfig("server: https://h", "token: secret")
	for name, test := range map[string]struct {
		kubeconfig string
		config     Config
		want       string
	}{
		"no server":           {"", Config{}, "--server: missing"},
		"a wrong server":      {"", Config{Server: "h:6443"}, "--server: must look like"},
		"a password":          {"", Config{Server: "https://u:secret@h"}, "--server: must look like"},
		"no such CA":          {good, Config{CAFile: dir + "/none"}, "--ca-file: open"},
		"an empty CA":         {good, Config{CAFile: dir + "/empty"}, "--ca-file: contains no certificate"},
		"no tokens":           {good, Config{TokenFiles: []string{dir + "/empty"}}, "--token-file: "},
		"no such kubeconfig":  {"", Config{Kubeconfig: dir + "/none"}, "--kubeconfig: open"},
		"no YAML":             {"token: secret\n\t", Config{}, "is not a kubeconfig"},
		"no context":          {strings.ReplaceAll(good, "name: here", "name: gone"), Config{}, `no context "here"`},
		"no current context":  {"kind: Config\n", Config{}, "no current-context"},
		"no cluster":          {strings.ReplaceAll(good, "name: ours", "name: gone"), Config{}, `no cluster "ours"`},
		"a wrong CA":          {kubeconfig("server: https://h\ncertificate-authority: empty\ncertificate-authority-data: eA==", "token: secret"), Config{}, "certificate authority: "},
		"a key of another":    {kubeconfig("server: https://h", "client-certificate: crt\nclient-key: other"), Config{}, "client certificate: "},
		"no such key":         {kubeconfig("server: https://h", "client-certificate: crt\nclient-key: none"), Config{}, "no such file"},
		"no such token file":  {kubeconfig("server: https://h", "tokenFile: none"), Config{}, "no such file"},
		"no such certificate": {kubeconfig("server: https://h", "client-certificate: none"), Config{}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.kubeconfig != "" {
				test.config.Kubeconfig = filepath.Join(dir, "kubeconfig")
				write(t, test.config.Kubeconfig, test.kubeconfig)
			}
			_, err := test.config.access()
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
