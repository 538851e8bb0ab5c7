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
)

// The tests run against two real servers: one in process, as without --etcd-servers, and
// one behind a network.
var clients = map[string]*clientv3.Client{}

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

	remote, err := startRemote(ctx, filepath.Join(dir, "grpc"), "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer remote.Close()
	client, err := newRemoteClient(remote.Clients[0].Addr().String())
	if err != nil {
		return 0, err
	}
	defer client.Close()
	clients["gRPC"] = client
	return m.Run(), nil
}

// startRemote starts an etcd with the limits of a stock one, which listens on the address.
func startRemote(ctx context.Context, dir, address string) (*embed.Etcd, error) {
	cfg := embed.NewConfig()
	cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: address}}
	cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.Dir, cfg.TickMs, cfg.ElectionMs, cfg.LogLevel = dir, 10, 100, "panic"
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case <-ctx.Done():
		etcd.Close()
		return nil, ctx.Err()
	}
}

var prefixes atomic.Int64

// forEach runs a test against a Store on each server, under a prefix of its own.
func forEach(t *testing.T, test func(t *testing.T, s *Store, prefix string)) {
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			s, err := New(client, Config{})
			if err != nil {
				t.Fatal(err)
			}
			test(t, s, fmt.Sprintf("/registry/test%d/", prefixes.Add(1)))
		})
	}
}
