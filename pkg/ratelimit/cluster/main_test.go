package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/berth-project/berth/pkg/storage/embedded"
)

var client *clientv3.Client

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "berth-cluster-test")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	etcd, err := embedded.Start(ctx, embedded.Config{DataDir: filepath.Join(dir, "etcd")})
	if err != nil {
		return 0, err
	}
	client = etcd.Client()
	code := m.Run()
	if err := etcd.Close(); err != nil || code != 0 {
		return code, err
	}
	return code, goleak.Find()
}
