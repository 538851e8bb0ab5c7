package etcd

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/storage"
)

// leaseOf returns the lease that a key is attached to.
func leaseOf(t *testing.T, s *Store, key string) clientv3.LeaseID {
	t.Helper()
	got, err := s.client.Get(t.Context(), key)
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("%s: %v, %v", key, got, err)
	}
	return clientv3.LeaseID(got.Kvs[0].Lease)
}

func mustPut(t *testing.T, s *Store, key string, opts storage.PutOptions) storage.WriteResponse {
	t.Helper()
	response, err := s.Put(t.Context(), key, []byte("x"), opts)
	if err != nil || !response.Succeeded {
		t.Fatalf("%s: %+v, %v", key, response, err)
	}
	return response
}

// Keys live for their time after the last write, those without one forever, and a watch hears of
// their end.
func TestKeysExpire(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		start := time.Now()
		short := mustPut(t, s, prefix+"short", storage.PutOptions{TTL: time.Second})
		kept := mustPut(t, s, prefix+"kept", storage.PutOptions{TTL: time.Second})
		mustPut(t, s, prefix+"kept", storage.PutOptions{Expect: kept.Revision, TTL: time.Hour})
		for response := range s.Watch(ctx, prefix, storage.WatchOptions{Revision: short.Revision}) {
			if response.Err != nil {
				t.Fatal(response.Err)
			}
			for _, event := range response.Events {
				if !event.Deleted {
					continue
				}
				if event.KV.Key != prefix+"short" || time.Since(start) < time.Second {
					t.Fatalf("%s was deleted after %v", event.KV.Key, time.Since(start))
				}
				cancel()
			}
		}
		if ctx.Err() != context.Canceled {
			t.Fatal("nothing was deleted")
		}
		if leaseOf(t, s, prefix+"kept") == 0 {
			t.Error("the other one stays forever")
		}
	})
}

// Keys of the same time to live share leases, up to a number.
func TestLeasesAreShared(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		mustPut(t, s, prefix+"a", storage.PutOptions{TTL: time.Hour})
		mustPut(t, s, prefix+"b", storage.PutOptions{TTL: time.Hour})
		mustPut(t, s, prefix+"c", storage.PutOptions{TTL: 2 * time.Hour})
		mustPut(t, s, prefix+"d", storage.PutOptions{})
		a, b, c, d := leaseOf(t, s, prefix+"a"), leaseOf(t, s, prefix+"b"), leaseOf(t, s, prefix+"c"), leaseOf(t, s, prefix+"d")
		if a == 0 || a != b || c == 0 || c == a || d != 0 {
			t.Errorf("the leases are %x, %x, %x, %x", a, b, c, d)
		}
		s.leases.current[time.Hour].keys = maxLeaseKeys
		mustPut(t, s, prefix+"e", storage.PutOptions{TTL: time.Hour})
		if e := leaseOf(t, s, prefix+"e"); e == a {
			t.Error("a lease has more keys than it may have")
		}
		s.leases.current[time.Hour].until = time.Now().Add(59 * time.Minute)
		mustPut(t, s, prefix+"f", storage.PutOptions{TTL: time.Hour})
		left, err := s.client.TimeToLive(t.Context(), leaseOf(t, s, prefix+"f"))
		if err != nil || left.TTL < 3600 {
			t.Errorf("a key lives for %+v (%v), want an hour", left, err)
		}
	})
}

// A lease that etcd does not know, since it has expired or since this is another etcd, is replaced.
func TestLostLease(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		mustPut(t, s, prefix+"a", storage.PutOptions{TTL: time.Hour})
		lost := leaseOf(t, s, prefix+"a")
		if _, err := s.client.Revoke(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			mustPut(t, s, fmt.Sprint(prefix, i), storage.PutOptions{TTL: time.Hour})
		}
		if got := leaseOf(t, s, prefix+"1"); got == lost || got != leaseOf(t, s, prefix+"0") {
			t.Errorf("the lease is %x", got)
		}
	})
}

// A dry run and a write that fails leave nothing behind, and a context that has ended ends the
// wait for a lease that another asks for.
func TestLeaseOfNothing(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		mustPut(t, s, prefix+"a", storage.PutOptions{TTL: time.Hour, DryRun: true})
		if len(s.leases.current) != 0 {
			t.Error("a dry run has a lease")
		}
		response, err := s.Put(t.Context(), prefix+"a", []byte("x"), storage.PutOptions{Expect: 7, TTL: time.Hour})
		if err != nil || response.Succeeded || response.Current != nil {
			t.Errorf("%+v, %v", response, err)
		}
		s.leases.lock <- struct{}{}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Put(ctx, prefix+"a", []byte("x"), storage.PutOptions{TTL: time.Hour}); err == nil {
			t.Error("a lease came by itself")
		}
	})
}
