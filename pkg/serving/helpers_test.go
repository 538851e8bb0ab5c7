package serving

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/berth-project/berth/test/harness"
)

// patience is far more than anything here takes on a machine under load.
const patience = 30 * time.Second

// testServer serves on two ports of 127.0.0.1. A request of /wait is answered after the test
// has sent to or closed release.
type testServer struct {
	*Server
	secure, plain string // host:port
	arrived       chan struct{}
	release       chan struct{}
	log           *harness.Output
	metrics       *prometheus.Registry
}

func serve(t *testing.T, limit int) *testServer {
	t.Helper()
	return serveConfig(t, Config{MaxConnections: limit})
}

// serveConfig is serve with the limits and proxies of cfg.
func serveConfig(t *testing.T, cfg Config) *testServer {
	t.Helper()
	before := goleak.IgnoreCurrent()
	s := &testServer{
		arrived: make(chan struct{}, 100), release: make(chan struct{}),
		log: &harness.Output{}, metrics: prometheus.NewRegistry(),
	}
	cfg.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/wait":
			s.arrived <- struct{}{}
			<-s.release
		case "/address":
			_, _ = io.WriteString(w, "from "+req.RemoteAddr)
			return
		}
		_, _ = io.WriteString(w, req.Proto)
	})
	cfg.Logger, cfg.Metrics = zerolog.New(s.log), s.metrics
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = server
	certificate := selfSigned(t)
	secure, plain := listen(t), listen(t)
	s.secure, s.plain = secure.Addr().String(), plain.Addr().String()
	s.ServeTLS(secure, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil })
	s.Serve(plain)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Stop(ctx, func() {}); err != nil {
			t.Errorf("Stop: %v", err)
		}
		goleak.VerifyNone(t, before)
	})
	return s
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func selfSigned(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return selfSignedBy(t, key)
}

func selfSignedBy(t *testing.T, key crypto.Signer) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// dial connects from a local address. The connection stays open until the test ends.
func dial(t *testing.T, from, to string) net.Conn {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := dialer.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// client returns a client that connects from a local address and speaks HTTP/1.1 or HTTP/2,
// with TLS or without.
func client(t *testing.T, from string, http2 bool) *http.Client {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Protocols:       new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetHTTP2(http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// get returns the body of an answer.
func get(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url) //nolint:noctx // the client has a time-out
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// isClosed reports whether the server closes a connection, within patience, that it should.
func isClosed(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	_, err := conn.Read(make([]byte, 1))
	timeout, ok := errors.AsType[net.Error](err)
	return err != nil && (!ok || !timeout.Timeout())
}

// eventually waits until condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// metric returns the value of a metric, and label is the value of its only label, if any.
func (s *testServer) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == name && (label == "" || metric.GetLabel()[0].GetValue() == label) {
				return metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric %s %s", name, label)
	return 0
}
