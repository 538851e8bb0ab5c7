package embedded

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Many watches that overlap come and go; none gets stuck, and none sees another's.
func TestManyWatchesComeAndGo(t *testing.T) {
	e := start(t, Config{DataDir: t.TempDir()})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := range 20 {
				key := fmt.Sprintf("/w/%d/%d", g, i)
				if err := watchOne(ctx, e.Client(), key); err != nil {
					t.Errorf("%s: %v", key, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// watchOne opens several watches, writes key twice, and waits for it on one of them.
func watchOne(ctx context.Context, client *clientv3.Client, key string) error {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range 3 {
		client.Watch(wctx, "/w/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	}
	watch := client.Watch(wctx, key, clientv3.WithPrevKV())
	for _, value := range []string{"1", "2"} {
		if _, err := client.Put(ctx, key, value); err != nil {
			return err
		}
	}
	if err := client.RequestProgress(ctx); err != nil {
		return err
	}
	for {
		select {
		case r := <-watch:
			for _, ev := range r.Events {
				if string(ev.Kv.Key) != key {
					return fmt.Errorf("got the event of %s", ev.Kv.Key)
				}
				if string(ev.Kv.Value) == "2" {
					if ev.PrevKv == nil || string(ev.PrevKv.Value) != "1" {
						return fmt.Errorf("the value before was %v", ev.PrevKv)
					}
					return nil
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
