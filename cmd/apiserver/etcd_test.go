package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	etcdversion "go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/test/harness"
)

// serveEtcd runs an etcd behind a port, as one that is not ours. With creds nil it speaks
// without TLS.
func serveEtcd(t *testing.T, creds credentials.TransportCredentials) (address string) {
	t.Helper()
	return serveEtcdVersion(t, creds, etcdversion.Version)
}

// maintenance is etcd's service that returns the version, here any version.
type maintenance struct {
	etcdserverpb.UnimplementedMaintenanceServer
	version string
}

func (m maintenance) Status(context.Context, *etcdserverpb.StatusRequest) (*etcdserverpb.StatusResponse, error) {
	return &etcdserverpb.StatusResponse{Header: &etcdserverpb.ResponseHeader{}, Version: m.version}, nil
}

// serveEtcdVersion serves an etcd as serveEtcd does, which claims to be of the version.
func serveEtcdVersion(t *testing.T, creds credentials.TransportCredentials, version string) (address string) {
	t.Helper()
	inside, err := embedded.Start(t.Context(), embedded.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var opts []grpc.ServerOption
	if creds != nil {
		opts = append(opts, grpc.Creds(creds))
	}
	server := grpc.NewServer(opts...)
	kv, _ := grpcproxy.NewKvProxy(inside.Client())
	etcdserverpb.RegisterKVServer(server, kv)
	etcdserverpb.RegisterMaintenanceServer(server, maintenance{version: version})
	ctx, cancel := context.WithCancel(context.Background())
	watch, watchEnded := grpcproxy.NewWatchProxy(ctx, zap.NewNop(), inside.Client())
	etcdserverpb.RegisterWatchServer(server, watch)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-served
		cancel()
		<-watchEnded
	})
	return listener.Addr().String()
}

func TestRunOnAnEtcdElsewhere(t *testing.T) {
	address := serveEtcd(t, nil)
	// Two servers, one after the other, with nothing in common but the etcd.
	for i, want := range []int{http.StatusCreated, http.StatusConflict} {
		s := runServer(t, func(c *config) { c.EtcdServers = []string{"http://" + address} })
		token := strings.TrimSpace(harness.ReadFile(t, s.DataDir.Token()))
		client := caller(t, s.DataDir.PKI().CACert())
		if code, body := call(t, client, "POST", s.url+endpointsPath, token, exampleBody); code != want {
			t.Errorf("server %d: got %d, want %d: %s", i, code, want, body)
		}
		if code, body := call(t, client, "GET", s.url+endpointsPath+"/test-endpoint", token, ""); code != http.StatusOK {
			t.Errorf("server %d: got %d: %s", i, code, body)
		}
		if _, err := os.Stat(s.DataDir.Etcd()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("server %d has an etcd inside (%v)", i, err)
		}
	}
}

func TestRunOnAnEtcdWithTLS(t *testing.T) {
	etcdSide, ourSide := madePKI(t, "127.0.0.1"), madePKI(t, "client")
	pair, err := tls.LoadX509KeyPair(etcdSide.Cert(), etcdSide.Key())
	if err != nil {
		t.Fatal(err)
	}
	ours, err := tls.LoadX509KeyPair(ourSide.Cert(), ourSide.Key())
	if err != nil {
		t.Fatal(err)
	}
	address := serveEtcd(t, credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert,
		// The certificate is a server's: that it is the right one is what counts here.
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			if !bytes.Equal(raw[0], ours.Certificate[0]) {
				return errors.New("another client's certificate")
			}
			return nil
		},
	}))
	secure := func(c *config) {
		c.EtcdServers = []string{"https://" + address}
		c.EtcdCAFile, c.EtcdCertFile, c.EtcdKeyFile = etcdSide.CACert(), ourSide.Cert(), ourSide.Key()
	}
	s := runServer(t, secure)
	token := strings.TrimSpace(harness.ReadFile(t, s.DataDir.Token()))
	if code, body := call(t, caller(t, s.DataDir.PKI().CACert()), "POST", s.url+endpointsPath, token, exampleBody); code != http.StatusCreated {
		t.Errorf("got %d: %s", code, body)
	}

	t.Run("by another CA", func(t *testing.T) {
		t.Parallel()
		otherCA := filepath.Join(t.TempDir(), "ca.crt")
		harness.WriteFile(t, otherCA, harness.ReadFile(t, ourSide.CACert()))
		expectNoEtcd(t, func(c *config) { secure(c); c.EtcdCAFile = otherCA }, ": name the CA of its certificate by --etcd-cafile")
	})
	t.Run("no certificate of ours", func(t *testing.T) {
		t.Parallel()
		expectNoEtcd(t, func(c *config) { secure(c); c.EtcdCertFile, c.EtcdKeyFile = "", "" }, ": it wants a client certificate that it trusts, --etcd-certfile and --etcd-keyfile")
	})
	t.Run("http to https", func(t *testing.T) {
		t.Parallel()
		expectNoEtcd(t, func(c *config) { c.EtcdServers = []string{"http://" + address} }, ": it may expect TLS, that is https:// in --etcd-servers")
	})
	t.Run("https to http", func(t *testing.T) {
		t.Parallel()
		plain := serveEtcd(t, nil)
		expectNoEtcd(t, func(c *config) { secure(c); c.EtcdServers = []string{"https://" + plain} }, ": it has no TLS: use http:// in --etcd-servers")
	})
	t.Run("certificate that etcd does not trust", func(t *testing.T) {
		t.Parallel()
		expectNoEtcd(t, func(c *config) { secure(c); c.EtcdCertFile, c.EtcdKeyFile = etcdSide.Cert(), etcdSide.Key() }, ": it wants a client certificate that it trusts, --etcd-certfile and --etcd-keyfile")
	})
	t.Run("no etcd", func(t *testing.T) {
		t.Parallel()
		expectNoEtcd(t, func(c *config) { c.EtcdServers = []string{"http://127.0.0.1:1"} }, "connection refused")
	})
	t.Run("too old", func(t *testing.T) {
		t.Parallel()
		old := "http://" + serveEtcdVersion(t, nil, "3.5.7")
		expectNoEtcd(t, func(c *config) { c.EtcdServers = []string{old} }, "--etcd-servers: etcd at "+old+" has version 3.5.7, whose watches are not reliable (etcd-io/etcd#15220): it needs 3.5.13 or later")
	})
	t.Run("a file that is not there", func(t *testing.T) {
		t.Parallel()
		expectNoEtcd(t, func(c *config) { secure(c); c.EtcdCAFile = "none" }, "open none: no such file or directory")
	})
}

// expectNoEtcd wants run to fail for a reason that names reason.
func expectNoEtcd(t *testing.T, change func(*config), reason string) {
	t.Helper()
	c := defaultConfig()
	c.DataDir, c.SecurePort = datadir.Dir(filepath.Join(t.TempDir(), "data")), 0
	change(&c)
	stdout := new(harness.Output)
	err := run(t.Context(), c, nil, stdout, new(harness.Output))
	if err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("got %v, want %q", err, reason)
	}
	if stdout.String() != "" {
		t.Errorf("it printed %q", stdout)
	}
}
