package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/berth-project/berth/cmd/apiserver/internal/commands"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/pkg/registry/resources/namespaces"
	"github.com/berth-project/berth/test/harness"
)

func TestRunServesTheDocumentedCall(t *testing.T) {
	s := runServer(t, nil)
	client, token := caller(t, s.DataDir.PKI().CACert()), strings.TrimSpace(harness.ReadFile(t, s.DataDir.Token()))
	if code, body := call(t, client, "POST", s.url+endpointsPath, token, exampleBody); code != http.StatusCreated {
		t.Fatalf("got %d: %s", code, body)
	}
	if code, body := call(t, client, "POST", s.url+endpointsPath, token, exampleBody); code != http.StatusConflict {
		t.Errorf("the second time: got %d: %s", code, body)
	}
	if code, body := call(t, client, "POST", s.url+endpointsPath, "wrong", exampleBody); code != http.StatusUnauthorized {
		t.Errorf("with a wrong token: got %d: %s", code, body)
	}
	for _, namespace := range namespaces.Always {
		if code, body := call(t, client, "GET", s.url+"/api/v1/namespaces/"+namespace, token, ""); code != http.StatusOK {
			t.Errorf("namespace %s: got %d: %s", namespace, code, body)
		}
	}
	if code, body := call(t, client, "GET", s.url+"/readyz", "", ""); code != http.StatusOK || body != "ok" {
		t.Errorf("/readyz: got %d: %s", code, body)
	}
	if text := s.stdout.String() + s.stderr.String(); strings.Contains(text, token) || strings.Contains(s.stderr.String(), "nginx-686bccd6f") {
		t.Error("the token or a body is in the output")
	}
	if err := commands.CheckReady(t.Context(), s.DataDir, ""); err != nil {
		t.Errorf("apiserver ready: %v", err)
	}
	s.stop()
	<-s.ended
	if err := commands.CheckReady(t.Context(), s.DataDir, ""); err == nil {
		t.Error("apiserver ready, after the end: no error")
	}
}

// The printed commands work as they are, from the directory that the server was started
// in, whatever the names of the files.
func TestRunPrintsACommandThatWorks(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl on this machine")
	}
	t.Chdir(t.TempDir())
	harness.WriteFile(t, "it's tokens.csv", "0123,ann,1,system:masters\n")
	writeSelfSigned(t, "crt", "key", "berth.example.com")
	for name, change := range map[string]func(*config){
		"token of its own": func(c *config) { c.DataDir = "./it's $HOME" },
		"token file":       func(c *config) { c.TokenAuthFile = "it's tokens.csv" },
		"certificate given": func(c *config) {
			c.TLSCertFile, c.TLSPrivateKeyFile = "crt", "key"
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := runServer(t, change)
			command := s.stdout.Await(t, `\n(curl (?s:.*)\n}')\n`, s.ended)
			out, err := exec.CommandContext(t.Context(), "sh", "-c", command+" -sS -w '%{http_code}'").CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "201") {
				t.Errorf("%v, %s\nof %s", err, out, command)
			}
		})
	}
}

func TestRunKubeconfigWorksWithClientGo(t *testing.T) {
	dir := t.TempDir()
	writeSelfSigned(t, filepath.Join(dir, "crt"), filepath.Join(dir, "key"), "berth.example.com")
	tokens := filepath.Join(dir, "tokens.csv")
	harness.WriteFile(t, tokens, "a,ann,1\nb,bob,2,system:masters\n")
	for name, change := range map[string]func(*config){
		"by default":        nil,
		"on every address":  func(c *config) { c.BindAddress = "0.0.0.0" },
		"by another name":   func(c *config) { c.ExternalHostname = "localhost" },
		"with a token file": func(c *config) { c.TokenAuthFile = tokens },
		"with a certificate of ours": func(c *config) {
			c.TLSCertFile, c.TLSPrivateKeyFile = filepath.Join(dir, "crt"), filepath.Join(dir, "key")
		},
		"with JSON logs and no limit": func(c *config) { c.LogFormat, c.MaxRequestsInFlight = "json", 0 },
	} {
		t.Run(name, func(t *testing.T) {
			s := runServer(t, change)
			restConfig, err := clientcmd.BuildConfigFromFlags("", s.DataDir.Kubeconfig())
			if err != nil {
				t.Fatal(err)
			}
			httpClient, err := rest.HTTPClientFor(restConfig)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(httpClient.CloseIdleConnections)
			client, err := kubernetes.NewForConfigAndClient(restConfig, httpClient)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.CoreV1().Endpoints("default").Create(t.Context(), &corev1.Endpoints{
				ObjectMeta: metav1.ObjectMeta{Name: "by-client-go"},
			}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if info, err := client.Discovery().ServerVersion(); err != nil || info.GitVersion != servedVersion().GitVersion {
				t.Errorf("the version is %v (%v)", info, err)
			}
		})
	}
}

func TestRunReloadsTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.csv")
	harness.WriteFile(t, path, "old,ann,1,system:masters\n")
	s := runServer(t, func(c *config) { c.TokenAuthFile = path })
	client := caller(t, s.DataDir.PKI().CACert())
	s.expectCode(t, client, "old", http.StatusOK)
	if _, err := os.Stat(s.DataDir.Token()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a token was made although there is a token file (%v)", err)
	}

	replace(t, path, "broken\n")
	s.stderr.Await(t, "the new version is refused, the old one stays in use", s.ended)
	s.expectCode(t, client, "old", http.StatusOK)

	replace(t, path, "new,ann,1,system:masters\n")
	s.expectCode(t, client, "new", http.StatusOK)
	s.expectCode(t, client, "old", http.StatusUnauthorized)
	eventually(t, func() error {
		if a, err := datadir.ReadKubeconfig(s.DataDir.Kubeconfig()); err != nil || a.Token != "new" {
			return fmt.Errorf("the kubeconfig has another token (%w)", err)
		}
		return nil
	})
}

func TestRunReloadsLimits(t *testing.T) {
	dir := t.TempDir()
	tokens, limits := filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "limits.yaml")
	harness.WriteFile(t, tokens, "t,ann,1\n")
	generous := "apiVersion: berth/v1alpha1\nkind: RateLimitConfiguration\ndefaults:\n  read: {qps: 1000, burst: 1000}\n"
	harness.WriteFile(t, limits, generous)
	s := runServer(t, func(c *config) {
		c.TokenAuthFile, c.RateLimitConfig, c.AuthorizationMode = tokens, limits, apiserver.ModeAlwaysAllow
	})
	client := caller(t, s.DataDir.PKI().CACert())
	s.expectCode(t, client, "t", http.StatusOK)
	replace(t, limits, strings.ReplaceAll(generous, "qps: 1000, burst: 1000", "qps: 0.001, burst: 1"))
	s.expectCode(t, client, "t", http.StatusTooManyRequests)
	replace(t, limits, "kind: Nonsense\n")
	s.stderr.Await(t, "the new version is refused", s.ended)
	replace(t, limits, strings.ReplaceAll(generous, "qps: 1000", "qps: 999"))
	s.expectCode(t, client, "t", http.StatusOK)
}

// A kubeconfig that is written again never has a token that the server refuses.
func TestTokenFileThatChanges(t *testing.T) {
	limits := filepath.Join(t.TempDir(), "limits.yaml")
	text := "apiVersion: berth/v1alpha1\nkind: RateLimitConfiguration\ndefaults:\n  read: {qps: 1000, burst: 1000}\n"
	harness.WriteFile(t, limits, text)
	s := runServer(t, func(c *config) { c.RateLimitConfig = limits })
	before, err := datadir.ReadKubeconfig(s.DataDir.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	replace(t, s.DataDir.Token(), "another\n")
	replace(t, limits, strings.ReplaceAll(text, "qps: 1000", "qps: 999"))
	s.stderr.Await(t, "has changed since the start", s.ended)
	if after, err := datadir.ReadKubeconfig(s.DataDir.Kubeconfig()); err != nil || after.Token != before.Token {
		t.Errorf("the kubeconfig has another token (%v)", err)
	}
	s.expectCode(t, caller(t, s.DataDir.PKI().CACert()), before.Token, http.StatusOK)
}

func TestRunReloadsTheCertificate(t *testing.T) {
	dir := t.TempDir()
	crt, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	writeSelfSigned(t, crt, key, "127.0.0.1")
	s := runServer(t, func(c *config) { c.TLSCertFile, c.TLSPrivateKeyFile = crt, key })
	if code, body := call(t, caller(t, crt), "GET", s.url+"/readyz", "", ""); code != http.StatusOK {
		t.Fatalf("got %d: %s", code, body)
	}
	writeSelfSigned(t, crt, key, "127.0.0.1")
	// The CA data of the kubeconfig follow.
	eventually(t, func() error {
		a, err := datadir.ReadKubeconfig(s.DataDir.Kubeconfig())
		if err != nil {
			return err
		}
		if !strings.HasSuffix(harness.ReadFile(t, crt), string(a.CAPEM)) {
			return errors.New("the kubeconfig has another CA")
		}
		return commands.CheckReady(t.Context(), s.DataDir, "")
	})
	if code, body := call(t, caller(t, crt), "GET", s.url+"/readyz", "", ""); code != http.StatusOK {
		t.Errorf("with the new certificate: got %d: %s", code, body)
	}
	if _, err := os.Stat(s.DataDir.PKI().CACert()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a CA was made although there is a certificate (%v)", err)
	}
}

func TestRunHTTPPort(t *testing.T) {
	port := freePort(t)
	s := runServer(t, func(c *config) { c.BindAddress, c.HTTPPort = "0.0.0.0", port })
	url := s.stdout.Await(t, `without TLS, on this machine only: (http://127.0.0.1:\d+)`, s.ended)
	if want := "http://127.0.0.1:" + strconv.Itoa(port); url != want {
		t.Errorf("printed %s, want %s", url, want)
	}
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	token := strings.TrimSpace(harness.ReadFile(t, s.DataDir.Token()))
	if code, body := call(t, client, "GET", url+endpointsPath, token, ""); code != http.StatusOK {
		t.Errorf("got %d: %s", code, body)
	}
	if code, _ := call(t, client, "GET", url+endpointsPath, "", ""); code != http.StatusForbidden {
		t.Errorf("without a token: got %d", code)
	}
	if err := commands.CheckReady(t.Context(), datadir.Dir(t.TempDir()), url); err != nil {
		t.Errorf("apiserver ready --server=%s: %v", url, err)
	}
}

func TestRunSpeaksOnlyCurrentTLS(t *testing.T) {
	s := runServer(t, nil)
	host := strings.TrimPrefix(s.url, "https://")
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		config := &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, NextProtos: []string{"h2", "http/1.1"}}
		conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", host)
		if (err == nil) != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			if got := conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "h2" {
				t.Errorf("%s: the protocol is %q, want h2", tls.VersionName(version), got)
			}
			conn.Close()
		}
	}
}

func TestRunTLSFlags(t *testing.T) {
	const weak = "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"
	for name, test := range map[string]struct {
		change    func(*config)
		version   uint16
		suite     uint16
		handshake bool
	}{
		"a minimum version":        {func(c *config) { c.TLSMinVersion = "VersionTLS13" }, tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, false},
		"a weak suite, by default": {nil, tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, false},
		"a weak suite": {
			func(c *config) { c.TLSCipherSuites = []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", weak} },
			tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := runServer(t, test.change)
			config := &tls.Config{InsecureSkipVerify: true, MaxVersion: test.version, CipherSuites: []uint16{test.suite}}
			conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
			if (err == nil) != test.handshake {
				t.Errorf("the handshake: %v, want %v", err, test.handshake)
			}
			if err == nil {
				conn.Close()
				s.stderr.Await(t, `"suites":\["`+weak+`"\],.*weak cipher suites`, s.ended)
			}
		})
	}
}

func TestRunFailsWithoutATrace(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	broken := filepath.Join(t.TempDir(), "broken")
	harness.WriteFile(t, broken, "broken")
	for name, test := range map[string]struct {
		change func(*config)
		want   string
	}{
		"port taken":        {func(c *config) { c.SecurePort = port }, fmt.Sprintf("--secure-port: cannot listen on 127.0.0.1:%d: bind: address already in use; ", port)},
		"HTTP port taken":   {func(c *config) { c.HTTPPort = port }, fmt.Sprintf("--http-port: cannot listen on 127.0.0.1:%d: ", port)},
		"broken tokens":     {func(c *config) { c.TokenAuthFile = broken }, "--token-auth-file: token file " + broken + ": line 1: "},
		"broken limits":     {func(c *config) { c.RateLimitConfig = broken }, "--rate-limit-config: " + broken + ": "},
		"broken pair":       {func(c *config) { c.TLSCertFile, c.TLSPrivateKeyFile = broken, broken }, "--tls-cert-file: " + broken},
		"a wrong flag":      {func(c *config) { c.LogLevel = "loud" }, "--log-level: "},
		"address not ours":  {func(c *config) { c.BindAddress = "192.0.2.1" }, "--secure-port: cannot listen on 192.0.2.1:0: "},
		"a directory taken": {func(c *config) { c.DataDir = datadir.Dir(filepath.Join(broken, "data")) }, "data directory " + broken + "/data cannot be made: "},
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			c := defaultConfig()
			c.DataDir, c.SecurePort = datadir.Dir(filepath.Join(t.TempDir(), "data")), 0
			test.change(&c)
			var out harness.Output
			err := run(t.Context(), c, nil, &out, &out)
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if _, err := os.Stat(string(c.DataDir)); err == nil {
				t.Error("the data directory was made")
			}
			if out.String() != "" {
				t.Errorf("it wrote %q", out.String())
			}
		})
	}
}

// A stop that comes before the server is ready is no failure.
func TestRunStopsWhileItStarts(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	c := defaultConfig()
	c.DataDir, c.SecurePort = datadir.Dir(filepath.Join(t.TempDir(), "data")), 0
	c.EtcdServers = []string{"http://127.0.0.1:" + strconv.Itoa(freePort(t))}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := run(ctx, c, nil, new(harness.Output), new(harness.Output)); err != nil {
		t.Error(err)
	}
}
