package etcd

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd/unary"
)

// The tests run against two real servers: one in process, as without --etcd-servers, and
// one behind a network, over clientv3 alone and with a connection for single keys.
var (
	clients = map[string]*clientv3.Client{}
	conn    *unary.Conn
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "berth-etcd-test")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	inProcess, err := embedded.Start(ctx, embedded.Config{DataDir: filepath.Join(dir, "in-process")})
	if err != nil {
		return 0, err
	}
	defer inProcess.Close()
	clients["in process"] = inProcess.Client()

	remote, client, err := startRemote(ctx, filepath.Join(dir, "grpc"))
	if err != nil {
		return 0, err
	}
	defer remote.Close()
	defer client.Close()
	clients["gRPC"], clients["unary"] = client, client
	if conn, err = newUnary(remote.Clients[0].Addr().String()); err != nil {
		return 0, err
	}
	defer conn.Close()
	return m.Run(), nil
}

// startRemote starts an etcd with the limits of a stock one.
func startRemote(ctx context.Context, dir string) (*embed.Etcd, *clientv3.Client, error) {
	cfg := embed.NewConfig()
	free := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{free}, []url.URL{free}
	cfg.Dir, cfg.TickMs, cfg.ElectionMs, cfg.LogLevel = dir, 10, 100, "panic"
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, nil, err
	}
	select {
	case <-etcd.Server.ReadyNotify():
	case <-ctx.Done():
		etcd.Close()
		return nil, nil, ctx.Err()
	}
	client, err := newRemoteClient(etcd.Clients[0].Addr().String())
	return etcd, client, err
}

var prefixes atomic.Int64

// forEach runs a test against a Store on each server, under a prefix of its own.
func forEach(t *testing.T, test func(t *testing.T, s *Store, prefix string)) {
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			var cfg Config
			if name == "unary" {
				cfg.Unary = conn
			}
			s, err := New(client, cfg)
			if err != nil {
				t.Fatal(err)
			}
			test(t, s, fmt.Sprintf("/registry/test%d/", prefixes.Add(1)))
		})
	}
}
