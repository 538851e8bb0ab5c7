package etcd

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/storage/embedded"
)

// compactorClient is an etcd of the test's own, because compaction concerns the whole store.
func compactorClient(t *testing.T) *clientv3.Client {
	t.Helper()
	e, err := embedded.Start(t.Context(), embedded.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e.Client()
}

func clientPut(t *testing.T, client *clientv3.Client) int64 {
	t.Helper()
	resp, err := client.Put(t.Context(), "/a", "v")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func isCompacted(t *testing.T, client *clientv3.Client, rev int64) bool {
	t.Helper()
	_, err := client.Get(t.Context(), "/a", clientv3.WithRev(rev))
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		t.Fatal(err)
	}
	return err != nil
}

// Three servers for ten intervals: one compacts in each, to what it saw one before.
func TestCompactorsTakeTurns(t *testing.T) {
	client := compactorClient(t)
	compactors := []*compactor{{client: client}, {client: client}, {client: client}}
	var seen int64 // the newest revision when the interval before ended
	for interval := range 10 {
		rev := clientPut(t, client)
		compactions := 0
		for _, c := range compactors {
			target, err := c.compact(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if target > 0 {
				compactions++
			}
			if target > seen {
				t.Errorf("interval %d: compacted to %d, only %d was one interval old", interval, target, seen)
			}
		}
		want := 1
		if interval == 0 {
			want = 0 // nothing is known to be an interval old
		}
		if compactions != want {
			t.Errorf("interval %d: %d compactions, want %d", interval, compactions, want)
		}
		if isCompacted(t, client, rev) {
			t.Errorf("interval %d: its own revision %d is gone", interval, rev)
		}
		resp, err := client.Get(t.Context(), compactRevKey)
		if err != nil {
			t.Fatal(err)
		}
		seen = resp.Header.Revision
		if v, err := strconv.ParseInt(string(resp.Kvs[0].Value), 10, 64); err != nil || v > seen {
			t.Errorf("interval %d: %s is %q", interval, compactRevKey, resp.Kvs[0].Value)
		}
	}
	// The one that did the work is gone: the others take over within two intervals.
	rev := clientPut(t, client)
	for range 2 {
		for _, c := range compactors[1:] {
			if _, err := c.compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !isCompacted(t, client, rev-1) {
		t.Error("nobody took over")
	}
}

func TestRunCompactor(t *testing.T) {
	client := compactorClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		RunCompactor(ctx, client, 20*time.Millisecond, zerolog.Nop())
	}()
	first := clientPut(t, client)
	poll, deadline := time.Tick(time.Millisecond), time.After(20*time.Second)
	for !isCompacted(t, client, first) {
		select {
		case <-poll:
		case <-deadline:
			t.Fatal("nothing is compacted")
		}
	}
	cancel()
	<-done
}

func TestRunCompactorOff(t *testing.T) {
	RunCompactor(t.Context(), clients["in process"], 0, zerolog.Nop()) // returns
}
