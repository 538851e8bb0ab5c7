package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berth-project/berth/cmd/apiserver/internal/commands"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/test/harness"
)

const day = 24 * time.Hour

// given is a certificate that the user provides, signed by a CA that is not in its file.
type given struct {
	pki      certificates.Dir
	crt, key string
}

func newGiven(t *testing.T, made time.Time) given {
	t.Helper()
	dir := t.TempDir()
	g := given{pki: certificates.Dir(t.TempDir()), crt: filepath.Join(dir, "crt"), key: filepath.Join(dir, "key")}
	g.sign(t, made)
	return g
}

// sign has the CA sign another certificate.
func (g given) sign(t *testing.T, made time.Time) {
	t.Helper()
	_, err := g.pki.Ensure([]string{"127.0.0.1", fmt.Sprintf("n%d.example.com", time.Now().UnixNano())}, made)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, g.key, harness.ReadFile(t, g.pki.Key()))
	replace(t, g.crt, harness.ReadFile(t, g.pki.Cert()))
}

func (g given) use(c *config) { c.TLSCertFile, c.TLSPrivateKeyFile = g.crt, g.key }

// served returns the expiry of the certificate that a server presents.
func (s *runningServer) served(t *testing.T) time.Time {
	t.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].NotAfter
}

// The kubeconfig has the CA, which stays when the certificate is replaced.
func TestRunWithAGivenCA(t *testing.T) {
	g := newGiven(t, time.Now().Add(-100*day))
	s := runServer(t, func(c *config) {
		g.use(c)
		c.TLSCAFile = g.pki.CACert()
	})
	before := harness.ReadFile(t, s.DataDir.Kubeconfig())
	if a, err := datadir.ReadKubeconfig(s.DataDir.Kubeconfig()); err != nil || string(a.CAPEM) != harness.ReadFile(t, g.pki.CACert()) {
		t.Errorf("%v; the kubeconfig has %s", err, a.CAPEM)
	}
	if !strings.Contains(s.stdout.String(), "curl --cacert "+g.pki.CACert()) {
		t.Errorf("it printed %s", s.stdout)
	}
	old := s.served(t)
	harness.WriteFile(t, g.key, harness.ReadFile(t, newGiven(t, time.Now()).key))
	s.stderr.Await(t, `"error":"[^"]*private key does not match public key","files":"tls-cert-file",.*the new version is refused, the old one stays in use`, s.ended)
	if got := s.served(t); !got.Equal(old) {
		t.Errorf("the certificate ends at %v, want %v", got, old)
	}
	g.sign(t, time.Now())
	eventually(t, func() error {
		if got := s.served(t); got.Equal(old) {
			return errors.New("the old certificate is still served")
		}
		return commands.CheckReady(t.Context(), s.DataDir, "")
	})
	if got := harness.ReadFile(t, s.DataDir.Kubeconfig()); got != before {
		t.Errorf("the kubeconfig has changed to %s", got)
	}
	// Another CA's certificate.
	other := newGiven(t, time.Now())
	replace(t, g.key, harness.ReadFile(t, other.key))
	replace(t, g.crt, harness.ReadFile(t, other.crt))
	s.stderr.Await(t, `the CA in `+g.pki.CACert()+` did not sign the certificate`, s.ended)
}

func TestRunWithoutTheCA(t *testing.T) {
	g := newGiven(t, time.Now())
	s := runServer(t, g.use)
	s.stderr.Await(t, `"file":"`+g.crt+`",.*name its file with --tls-ca-file`, s.ended)
	if a, err := datadir.ReadKubeconfig(s.DataDir.Kubeconfig()); err != nil || a.CAPEM != nil {
		t.Errorf("%v; the kubeconfig has %s", err, a.CAPEM)
	}
	if err := commands.CheckReady(t.Context(), s.DataDir, ""); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("ready: %v", err)
	}
}

// A CA of the system's is not repeated in the kubeconfig, and clients trust it.
func TestProcessWithACAOfTheSystem(t *testing.T) {
	g := newGiven(t, time.Now())
	t.Setenv("SSL_CERT_FILE", g.pki.CACert())
	p := startProcess(t, filepath.Join(t.TempDir(), "data"), "--tls-cert-file="+g.crt, "--tls-private-key-file="+g.key)
	p.awaitReady(t)
	if a, err := datadir.ReadKubeconfig(p.dir.Kubeconfig()); err != nil || a.CAPEM != nil || strings.Contains(p.stderr.String(), "--tls-ca-file") {
		t.Errorf("%v; the kubeconfig has %s", err, a.CAPEM)
	}
	if strings.Contains(p.stdout.String(), "--cacert") {
		t.Errorf("it printed %s", p.stdout)
	}
	ready := startCommand(t, string(p.dir), selfCommand(t, "ready", "--data-dir="+string(p.dir)))
	if <-ready.ended; ready.status != 0 {
		t.Errorf("ready: %s", ready.stderr)
	}
}

func TestRunWarnsOfExpiry(t *testing.T) {
	for name, test := range map[string]struct {
		age  time.Duration
		want string // "" is no warning
	}{
		"new":          {0, ""},
		"20 days left": {345 * day, `"level":"warn","file":"FILE","expires":"[^"]*",.*expires soon; replace the files of --tls-cert-file`},
		"expired":      {400 * day, `"level":"error","file":"FILE","expires":"[^"]*",.*has expired; replace the files of --tls-cert-file`},
	} {
		t.Run(name, func(t *testing.T) {
			made := time.Now().Add(-test.age)
			g := newGiven(t, made)
			s := runServer(t, func(c *config) {
				g.use(c)
				c.TLSCAFile = g.pki.CACert()
				c.HTTPPort = freePort(t)
			})
			if test.want != "" {
				s.stderr.Await(t, strings.ReplaceAll(test.want, "FILE", g.crt), s.ended)
			}
			token := strings.TrimSpace(harness.ReadFile(t, s.DataDir.Token()))
			code, metrics := call(t, http.DefaultClient, "GET", fmt.Sprintf("http://127.0.0.1:%d/metrics", s.HTTPPort), token, "")
			found := regexp.MustCompile(`(?m)^berth_serving_certificate_expiration_timestamp_seconds (\S+)$`).FindStringSubmatch(metrics)
			if code != http.StatusOK || found == nil {
				t.Fatalf("got %d and no metric", code)
			}
			if got, err := strconv.ParseFloat(found[1], 64); err != nil || int64(got) != made.Add(365*day).Unix() {
				t.Errorf("the metric is %s, want %d", found[1], made.Add(365*day).Unix())
			}
			if test.want == "" && strings.Contains(s.stderr.String(), "the serving certificate") {
				t.Errorf("it logged %s", s.stderr)
			}
			http.DefaultClient.CloseIdleConnections()
		})
	}
}

// The certificate that the server makes is renewed while it runs.
func TestRunRenewsItsCertificate(t *testing.T) {
	const margin = 3 * time.Second // from here to the first handshake; if that is late, it is renewed at the start
	s := runServer(t, func(c *config) {
		names, err := certificates.ServingNames(c.BindAddress, c.ExternalHostname)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.DataDir.PKI().Ensure(names, time.Now().Add(-335*day+margin)); err != nil {
			t.Fatal(err)
		}
	})
	renewed := func() error {
		if end := s.served(t); time.Until(end) < 300*day {
			return fmt.Errorf("it ends at %v", end)
		}
		return nil
	}
	atStart := renewed() == nil
	eventually(t, renewed)
	if !atStart {
		s.stderr.Await(t, "the serving certificate was renewed", s.ended)
	}
	if err := commands.CheckReady(t.Context(), s.DataDir, ""); err != nil {
		t.Error(err)
	}
}

func TestAdminToken(t *testing.T) {
	for name, test := range map[string]struct{ file, want string }{
		"the first of system:masters": {"a,ann,1\nb,bob,2,\"x,system:masters\"\nc,cid,3,system:masters\n", "b"},
		"else the first":              {"\na,ann,1\nb,bob,2,x\n", "a"},
		"quoted":                      {`"a,""1""",ann,1` + "\n", `a,"1"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tokens.csv")
			harness.WriteFile(t, path, test.file)
			tokens := auth.NewTokens()
			if err := tokens.Load(path); err != nil {
				t.Fatal(err)
			}
			if got, err := adminToken(path, tokens); err != nil || got != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
	// What is in the file by now and not loaded yet is no use to anybody.
	path := filepath.Join(t.TempDir(), "tokens.csv")
	harness.WriteFile(t, path, "new,ann,1,system:masters\n")
	if got, err := adminToken(path, auth.NewTokens()); err == nil {
		t.Errorf("got %q, which is not valid yet", got)
	}
}
