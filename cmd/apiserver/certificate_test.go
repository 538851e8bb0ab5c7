package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/test/harness"
)

// certified returns a client that presents a certificate, whatever CAs the server names.
func certified(t *testing.T, caFile string, pair *tls.Certificate, http2 bool) *http.Client {
	t.Helper()
	client := caller(t, caFile)
	transport := client.Transport.(*http.Transport)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetHTTP2(http2)
	transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	client.Timeout = 0
	return client
}

// whoami returns the code of a request, and for whom the server takes the client.
func whoami(t *testing.T, client *http.Client, url, token string) (code int, user string) {
	t.Helper()
	code, body := call(t, client, "POST", url+"/apis/authentication.k8s.io/v1/selfsubjectreviews", token, `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)
	var review authenticationv1.SelfSubjectReview
	if code != http.StatusCreated || json.Unmarshal([]byte(body), &review) != nil {
		return code, body
	}
	return code, review.Status.UserInfo.Username + " " + strings.Join(review.Status.UserInfo.Groups, " ")
}

func TestRunClientCertificates(t *testing.T) {
	ca, other := harness.NewAuthority(t, "ca"), harness.NewAuthority(t, "other")
	dir := t.TempDir()
	harness.WriteFile(t, dir+"/ca.crt", string(ca.PEM()))
	harness.WriteFile(t, dir+"/tokens.csv", "token,bob,1,system:masters\n")
	harness.WriteFile(t, dir+"/limits.yaml", "apiVersion: berth/v1alpha1\nkind: RateLimitConfiguration\nanonymous: {qps: 1000, burst: 1000}\n")
	s := runServer(t, func(c *config) {
		c.ClientCAFile, c.TokenAuthFile, c.RateLimitConfig = dir+"/ca.crt", dir+"/tokens.csv", dir+"/limits.yaml"
	})
	ann := pkix.Name{CommonName: "ann", Organization: []string{"system:masters"}}
	between := ca.Intermediate(t, "between")
	deep := between.Client(t, "ann")
	deep.Certificate = append(deep.Certificate, between.DER())
	const bob = "bob system:masters system:authenticated"
	for name, test := range map[string]struct {
		pair  *tls.Certificate
		token string
		code  int
		user  string // or what the answer has
	}{
		"a certificate":             {pair: ca.Client(t, "ann", "system:masters"), code: 201, user: "ann system:masters system:authenticated"},
		"of an intermediate":        {pair: deep, code: 201, user: "ann system:authenticated"},
		"with a token":              {pair: ca.Client(t, "ann", "system:masters"), token: "token", code: 201, user: "ann system:masters system:authenticated"},
		"with a wrong token":        {pair: ca.Client(t, "ann", "system:masters"), token: "wrong", code: 201, user: "ann system:masters system:authenticated"},
		"expired":                   {pair: harness.Sign(t, ca, &x509.Certificate{Subject: ann, NotAfter: time.Now().Add(-time.Hour)}), code: 401, user: "the client certificate is not valid: x509: certificate has expired"},
		"expired, and a token":      {pair: harness.Sign(t, ca, &x509.Certificate{Subject: ann, NotAfter: time.Now().Add(-time.Hour)}), token: "token", code: 201, user: bob},
		"not valid yet":             {pair: harness.Sign(t, ca, &x509.Certificate{Subject: ann, NotBefore: time.Now().Add(time.Hour)}), code: 401, user: "not yet valid"},
		"for servers":               {pair: harness.Sign(t, ca, &x509.Certificate{Subject: ann, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}), code: 401, user: "incompatible key usage"},
		"of another CA":             {pair: other.Client(t, "ann", "system:masters"), code: 401, user: "unknown authority"},
		"of another CA and a token": {pair: other.Client(t, "ann", "system:masters"), token: "token", code: 201, user: bob},
		"both wrong":                {pair: other.Client(t, "ann", "system:masters"), token: "wrong", code: 401, user: `"message":"Unauthorized"`},
		"of nobody":                 {pair: harness.Sign(t, ca, &x509.Certificate{Subject: pkix.Name{Organization: []string{"system:masters"}}}), code: 403, user: `User \"system:anonymous\"`},
		"of nobody, and a token":    {pair: harness.Sign(t, ca, &x509.Certificate{Subject: pkix.Name{Organization: []string{"x"}}}), token: "token", code: 201, user: bob},
	} {
		t.Run(name, func(t *testing.T) {
			for _, http2 := range []bool{false, true} {
				client := certified(t, s.DataDir.PKI().CACert(), test.pair, http2)
				for range 2 {
					if code, user := whoami(t, client, s.url, test.token); code != test.code || !strings.Contains(user, test.user) {
						t.Errorf("http2 %v: got %d, %q, want %d, %q", http2, code, user, test.code, test.user)
					}
				}
			}
		})
	}
	s.stderr.Await(t, `("certificate":"x509: certificate )`, s.ended)
	// It is the server's own memory that a client's certificates take.
	large := harness.Sign(t, ca, &x509.Certificate{Subject: ann, DNSNames: []string{strings.Repeat("x", 20_000)}})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/version", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := certified(t, s.DataDir.PKI().CACert(), large, false).Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("20 KB of certificates got %d", resp.StatusCode)
	}
}

// A watch ends when its certificate expires and when its CA is taken away, and goes on over
// other reloads. A file that is refused changes nothing.
func TestRunEndsWatchesOfCertificates(t *testing.T) {
	ca, other := harness.NewAuthority(t, "ca"), harness.NewAuthority(t, "other")
	path := filepath.Join(t.TempDir(), "ca.crt")
	harness.WriteFile(t, path, string(ca.PEM())+string(other.PEM()))
	s := runServer(t, func(c *config) { c.ClientCAFile = path })
	serverCA := s.DataDir.PKI().CACert()
	kept, revoked := certified(t, serverCA, ca.Client(t, "ann", "system:masters"), true), certified(t, serverCA, other.Client(t, "bob", "system:masters"), true)
	brief := certified(t, serverCA, harness.Sign(t, ca, &x509.Certificate{
		Subject: pkix.Name{CommonName: "cid", Organization: []string{"system:masters"}}, NotAfter: time.Now().Add(3 * time.Second),
	}), true)
	if code, body := call(t, kept, "POST", s.url+endpointsPath, "", `{"metadata":{"name":"first"}}`); code != http.StatusCreated {
		t.Fatalf("got %d: %s", code, body)
	}
	open := func(client *http.Client) watching {
		return watch(t, client, s.url, "", "application/json", "identity")
	}
	goesOn, expires, ends := open(kept), open(brief), open(revoked)

	expectUnauthorized := func(client *http.Client, w watching) {
		t.Helper()
		if event, err := w.next(); err != nil || event.Type != "ERROR" || !strings.Contains(string(event.Object.Raw), `"code":401`) {
			t.Errorf("got %v, %v", event, err)
		}
		if _, err := w.next(); !errors.Is(err, io.EOF) {
			t.Errorf("after the error: %v", err)
		}
		if code, body := call(t, client, "GET", s.url+endpointsPath, "", ""); code != http.StatusUnauthorized {
			t.Errorf("got %d: %s", code, body)
		}
	}
	expectUnauthorized(brief, expires)
	replace(t, path, "nothing")
	s.stderr.Await(t, `("error":"[^"]*ca.crt: it has no certificate in PEM form")`, s.ended)
	if code, _ := call(t, revoked, "GET", s.url+endpointsPath, "", ""); code != http.StatusOK {
		t.Errorf("after a refused file: %d", code)
	}
	replace(t, path, string(ca.PEM()))
	expectUnauthorized(revoked, ends)
	if code, body := call(t, kept, "POST", s.url+endpointsPath, "", `{"metadata":{"name":"second"}}`); code != http.StatusCreated {
		t.Fatalf("got %d: %s", code, body)
	}
	if event, err := goesOn.next(); err != nil || event.Type != "ADDED" {
		t.Errorf("the other watch got %v, %v", event, err)
	}
}

func TestCertificateCreate(t *testing.T) {
	s := runServer(t, nil)
	dir := t.TempDir()
	create := func(args ...string) string {
		stdout, stderr := runCommand(t, append([]string{"certificate", "create", "--data-dir=" + string(s.DataDir)}, args...)...)
		if stderr != "" {
			t.Errorf("stderr %q", stderr)
		}
		return stdout
	}
	if out := create("--user=ann", "--group=dev,system:masters", "--uid=7", "--kubeconfig="+dir+"/ann", "--ttl=1h"); !strings.HasPrefix(out, "wrote "+dir+`/ann: user "ann", groups ["dev" "system:masters"], valid until 20`) {
		t.Errorf("it says %q", out)
	}
	create("--user=bob", "--out="+dir+"/bob")
	for _, file := range []string{"ann", "bob/client.crt", "bob/client.key", "bob/ca.crt"} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, want mode 0600", file, err)
		}
	}
	rest, err := clientcmd.BuildConfigFromFlags("", dir+"/ann")
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Endpoints("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	pair, err := tls.LoadX509KeyPair(dir+"/bob/client.crt", dir+"/bob/client.key")
	if err != nil {
		t.Fatal(err)
	}
	if code, user := whoami(t, certified(t, dir+"/bob/ca.crt", &pair, true), s.url, ""); user != "bob system:authenticated" {
		t.Errorf("got %d, %q", code, user)
	}
	create("--user=cid", "--kubeconfig="+dir+"/cid", "--server=https://registry.example.com:6443")
	if a, err := datadir.ReadKubeconfig(dir + "/cid"); err != nil || a.Server != "https://registry.example.com:6443" || a.User != "cid" || a.Token != "" {
		t.Errorf("the kubeconfig has %v, %v", a, err)
	}

	// Another CA of the data directory knows none of them.
	s.stop()
	<-s.ended
	for _, path := range []string{s.DataDir.PKI().ClientCACert(), s.DataDir.PKI().ClientCAKey()} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	again := runServer(t, func(c *config) { c.DataDir = s.DataDir })
	if code, text := whoami(t, certified(t, dir+"/bob/ca.crt", &pair, true), again.url, ""); code != http.StatusUnauthorized || !strings.Contains(text, "unknown authority") {
		t.Errorf("with another CA: %d, %q", code, text)
	}
}

func TestCertificateCreateRefusals(t *testing.T) {
	ca := harness.NewAuthority(t, "ca")
	dir := t.TempDir()
	harness.WriteFile(t, dir+"/ca.crt", string(ca.PEM()))
	s := runServer(t, func(c *config) { c.ClientCAFile = dir + "/ca.crt" })
	data := "--data-dir=" + string(s.DataDir)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no user":              {[]string{data, "--out=x"}, "--user: must not be empty"},
		"an empty group":       {[]string{data, "--user=a", "--out=x", "--group=,"}, "--group: must not be empty"},
		"no life":              {[]string{data, "--user=a", "--out=x", "--ttl=0s"}, "--ttl: 0s is not positive"},
		"no place":             {[]string{data, "--user=a"}, "--kubeconfig: must be set, or --out, and not both"},
		"two places":           {[]string{data, "--user=a", "--out=x", "--kubeconfig=y"}, "and not both"},
		"a server for files":   {[]string{data, "--user=a", "--out=x", "--server=https://a"}, "--server: requires --kubeconfig"},
		"a server without TLS": {[]string{data, "--user=a", "--kubeconfig=x", "--server=http://a"}, `--server: "http://a" is not a URL with https`},
		"a kubeconfig in use":  {[]string{data, "--user=a", "--kubeconfig=" + dir + "/ca.crt"}, "ca.crt exists already, and would be replaced"},
		"no server":            {[]string{"--data-dir=" + dir + "/none", "--user=a", "--out=x"}, "--data-dir must be the data directory of a server that has started"},
		"no CA":                {[]string{data, "--user=a", "--out=x"}, "a server makes it when it starts without --client-ca-file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			var stdout, stderr bytes.Buffer
			if status := execute(append([]string{"certificate", "create"}, test.args...), &stdout, &stderr); status != 1 || stdout.Len() > 0 || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("status %d, %q, want %q", status, &stderr, test.want)
			}
			if entries, err := os.ReadDir("."); err != nil || len(entries) > 0 {
				t.Errorf("it wrote %v, %v", entries, err)
			}
		})
	}
}
