package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/berth-project/berth/pkg/storage"
)

// create puts a key that does not exist and returns its revision.
func create(t *testing.T, s *Store, key, value string) int64 {
	t.Helper()
	return put(t, s, key, value, 0)
}

func put(t *testing.T, s *Store, key, value string, expect int64) int64 {
	t.Helper()
	w, err := s.Put(t.Context(), key, []byte(value), storage.PutOptions{Expect: expect})
	if err != nil || !w.Succeeded {
		t.Fatalf("Put(%s, expect %d) = %+v, %v", key, expect, w, err)
	}
	return w.Revision
}

func remove(t *testing.T, s *Store, key string, expect int64) int64 {
	t.Helper()
	w, err := s.Delete(t.Context(), key, storage.DeleteOptions{Expect: expect})
	if err != nil || !w.Succeeded {
		t.Fatalf("Delete(%s, expect %d) = %+v, %v", key, expect, w, err)
	}
	return w.Revision
}

func TestCreateIfAbsentRace(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		for round := range 100 {
			key := fmt.Sprintf("%sns/e%d", prefix, round)
			var won atomic.Int64
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Go(func() {
					value := fmt.Sprint(i)
					w, err := s.Put(t.Context(), key, []byte(value), storage.PutOptions{})
					switch {
					case err != nil:
						t.Error(err)
					case w.Succeeded:
						won.Add(1)
					case w.Current == nil || string(w.Current.Value) == value:
						t.Errorf("lost, but the current state is %+v", w.Current)
					}
				})
			}
			wg.Wait()
			if n := won.Load(); n != 1 {
				t.Fatalf("round %d: %d creates succeeded, want 1", round, n)
			}
		}
	})
}

func TestConditions(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		key, guard, absent := prefix+"ns/a", prefix+"guard", prefix+"absent"
		guardRev := create(t, s, guard, "g")
		created := create(t, s, key, "1")
		rev := put(t, s, key, "2", created)
		current := &storage.KeyValue{Key: key, Value: []byte("2"), CreateRevision: created, ModRevision: rev}
		guarded := &storage.KeyValue{Key: guard, Value: []byte("g"), CreateRevision: guardRev, ModRevision: guardRev}

		write := func(expect int64, g *storage.Guard) func() (storage.WriteResponse, error) {
			return func() (storage.WriteResponse, error) {
				return s.Put(t.Context(), key, []byte("3"), storage.PutOptions{Expect: expect, Guard: g})
			}
		}
		del := func(key string, expect int64) func() (storage.WriteResponse, error) {
			return func() (storage.WriteResponse, error) {
				return s.Delete(t.Context(), key, storage.DeleteOptions{Expect: expect})
			}
		}
		for name, tc := range map[string]struct {
			do   func() (storage.WriteResponse, error)
			want storage.WriteResponse
		}{
			"create of what exists":     {write(0, nil), storage.WriteResponse{Current: current}},
			"update from an old one":    {write(created, nil), storage.WriteResponse{Current: current}},
			"guard has moved on":        {write(rev, &storage.Guard{Key: guard, ModRevision: guardRev - 1}), storage.WriteResponse{Current: current, Guarded: guarded}},
			"guard does not exist":      {write(rev, &storage.Guard{Key: absent, ModRevision: 7}), storage.WriteResponse{Current: current}},
			"guard at revision 0":       {write(rev, &storage.Guard{Key: absent}), storage.WriteResponse{Current: current}},
			"mismatch, the guard holds": {write(created, &storage.Guard{Key: guard, ModRevision: guardRev}), storage.WriteResponse{Current: current, Guarded: guarded}},
			"delete of an old one":      {del(key, created), storage.WriteResponse{Current: current}},
			"delete of what is absent":  {del(absent, rev), storage.WriteResponse{}},
			"delete at revision 0":      {del(absent, 0), storage.WriteResponse{}},
		} {
			t.Run(name, func(t *testing.T) {
				got, err := tc.do()
				if err != nil {
					t.Fatal(err)
				}
				if got.Revision < rev {
					t.Errorf("revision %d, want the store's, at least %d", got.Revision, rev)
				}
				got.Revision = 0
				if d := cmp.Diff(tc.want, got); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
			})
		}

		w, err := write(rev, &storage.Guard{Key: guard, ModRevision: guardRev})()
		if err != nil || !w.Succeeded || w.Revision != rev+1 || w.Current != nil {
			t.Errorf("a guarded update gave %+v, %v, want success at revision %d", w, err, rev+1)
		}
		if got := remove(t, s, key, w.Revision); got != rev+2 {
			t.Errorf("deleted at revision %d, want %d", got, rev+2)
		}
	})
}

func stored(t *testing.T, s *Store, key string) *storage.KeyValue {
	t.Helper()
	got, err := s.Get(t.Context(), key, storage.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return got.KV
}

// The rest of a transaction is written with it, or not at all.
func TestAlso(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		key, other, absent := prefix+"a", prefix+"b", prefix+"c"
		rev := create(t, s, key, "1")
		otherRev := create(t, s, other, "1")
		for name, tc := range map[string]struct {
			condition storage.Condition
			holds     bool
		}{
			"as it is":            {storage.Condition{Key: other, Min: otherRev, Max: otherRev}, true},
			"as it was":           {storage.Condition{Key: other, Min: otherRev - 1, Max: otherRev - 1}, false},
			"absent":              {storage.Condition{Key: absent}, true},
			"not absent":          {storage.Condition{Key: other}, false},
			"not after":           {storage.Condition{Key: other, Max: otherRev}, true},
			"after":               {storage.Condition{Key: other, Max: otherRev - 1}, false},
			"absent, not after":   {storage.Condition{Key: absent, Max: otherRev}, true},
			"absent, not between": {storage.Condition{Key: absent, Min: 1, Max: otherRev}, false},
			"between":             {storage.Condition{Key: other, Min: 1, Max: otherRev}, true},
		} {
			t.Run(name, func(t *testing.T) {
				w, err := s.Put(t.Context(), key, []byte("2"), storage.PutOptions{Expect: rev, DryRun: true, Also: storage.Also{
					Conditions: []storage.Condition{tc.condition}, Writes: []storage.Write{{Key: absent, Value: []byte("x")}},
				}})
				if err != nil || w.Succeeded != tc.holds {
					t.Errorf("got %+v, %v", w, err)
				}
				if !tc.holds && (w.Current == nil || w.Current.ModRevision != rev) {
					t.Errorf("the current state is %+v", w.Current)
				}
			})
		}
		both := []storage.Write{{Key: other, Delete: true}, {Key: absent, Value: []byte("x")}}
		w, err := s.Put(t.Context(), key, []byte("2"), storage.PutOptions{Expect: rev, Also: storage.Also{Writes: both}})
		if err != nil || !w.Succeeded {
			t.Fatalf("got %+v, %v", w, err)
		}
		if got := stored(t, s, absent); got == nil || got.ModRevision != w.Revision || stored(t, s, other) != nil || stored(t, s, key).ModRevision != w.Revision {
			t.Errorf("got %+v", got)
		}
		w, err = s.Delete(t.Context(), key, storage.DeleteOptions{Expect: w.Revision, Also: storage.Also{Writes: []storage.Write{{Key: absent, Delete: true}, {Key: prefix + "d", Value: []byte("y")}}}})
		if err != nil || !w.Succeeded || stored(t, s, key) != nil || stored(t, s, absent) != nil || stored(t, s, prefix+"d").ModRevision != w.Revision {
			t.Errorf("got %+v, %v", w, err)
		}

		var many storage.Also
		for i := range 2000 {
			many.Writes = append(many.Writes, storage.Write{Key: fmt.Sprint(prefix, "many/", i), Delete: true})
		}
		if _, err := s.Put(t.Context(), key, nil, storage.PutOptions{Also: many}); !errors.Is(err, storage.ErrTooManyWrites) {
			t.Errorf("2,000 writes: %v", err)
		}
		var large *storage.TooLargeError
		also := storage.Also{Writes: []storage.Write{{Key: absent, Value: make([]byte, s.max)}}}
		if _, err := s.Put(t.Context(), key, []byte("x"), storage.PutOptions{Also: also}); !errors.As(err, &large) {
			t.Errorf("a write that is too large: %v", err)
		}
	})
}

func TestDryRun(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		key := prefix + "ns/a"
		created := create(t, s, key, "1")
		rev := put(t, s, key, "2", created)
		for name, dry := range map[string]func() (storage.WriteResponse, error){
			"put": func() (storage.WriteResponse, error) {
				return s.Put(t.Context(), key, []byte("3"), storage.PutOptions{Expect: rev, DryRun: true})
			},
			"delete": func() (storage.WriteResponse, error) {
				return s.Delete(t.Context(), key, storage.DeleteOptions{Expect: rev, DryRun: true})
			},
		} {
			w, err := dry()
			if err != nil || !w.Succeeded || w.Revision != rev {
				t.Errorf("dry run of %s gave %+v, %v, want success at revision %d", name, w, err, rev)
			}
		}
		dry, err := s.Put(t.Context(), key, nil, storage.PutOptions{Expect: created, DryRun: true})
		if err != nil || dry.Succeeded || dry.Current == nil || dry.Current.ModRevision != rev {
			t.Errorf("a dry run that must fail gave %+v, %v", dry, err)
		}
		got, err := s.Get(t.Context(), key, storage.GetOptions{})
		if err != nil || got.KV == nil || got.KV.ModRevision != rev {
			t.Errorf("after dry runs the key is %+v, %v, want it at revision %d", got.KV, err, rev)
		}
	})
}

func TestGet(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		key := prefix + "ns/a"
		r1 := create(t, s, key, "1")
		r2 := put(t, s, key, "2", r1)
		r3 := remove(t, s, key, r2)
		for rev, want := range map[int64]*storage.KeyValue{
			r1 - 1: nil,
			r1:     {Key: key, Value: []byte("1"), CreateRevision: r1, ModRevision: r1},
			r2:     {Key: key, Value: []byte("2"), CreateRevision: r1, ModRevision: r2},
			0:      nil,
		} {
			got, err := s.Get(t.Context(), key, storage.GetOptions{Revision: rev})
			if err != nil {
				t.Errorf("revision %d: %v", rev, err)
			}
			if d := cmp.Diff(storage.GetResponse{KV: want, Revision: r3}, got); d != "" {
				t.Errorf("revision %d (-want +got)\n%s", rev, d)
			}
		}
		if _, err := s.Get(t.Context(), key, storage.GetOptions{Revision: r3 + 1000}); !errors.Is(err, storage.ErrFutureRevision) {
			t.Errorf("a revision to come: got %v, want ErrFutureRevision", err)
		}
		if _, err := s.client.Compact(t.Context(), r2); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), key, storage.GetOptions{Revision: r1}); !errors.Is(err, storage.ErrCompacted) {
			t.Errorf("a compacted revision: got %v, want ErrCompacted", err)
		}
		if _, err := s.List(t.Context(), prefix, storage.ListOptions{Revision: r1}); !errors.Is(err, storage.ErrCompacted) {
			t.Errorf("list at a compacted revision: got %v, want ErrCompacted", err)
		}
	})
}

func TestList(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		var rev int64
		for _, k := range []string{"b", "a", "d", "c", "e"} {
			rev = create(t, s, prefix+"ns/"+k, k)
		}
		later := create(t, s, prefix+"ns/f", "f")
		create(t, s, strings.TrimSuffix(prefix, "/")+"0/ns/x", "beside the prefix")

		type result struct {
			Keys     string
			More     bool
			Count    int64
			Revision int64
		}
		for name, tc := range map[string]struct {
			opts storage.ListOptions
			want result
		}{
			"at a revision":       {storage.ListOptions{Revision: rev}, result{"abcde", false, 5, rev}},
			"first page":          {storage.ListOptions{Revision: rev, Limit: 2}, result{"ab", true, 5, rev}},
			"second page":         {storage.ListOptions{Revision: rev, Limit: 2, From: prefix + "ns/b\x00"}, result{"cd", true, 3, rev}},
			"last page":           {storage.ListOptions{Revision: rev, Limit: 2, From: prefix + "ns/d\x00"}, result{"e", false, 1, rev}},
			"from is inclusive":   {storage.ListOptions{Revision: later, From: prefix + "ns/e"}, result{"ef", false, 2, later}},
			"from before prefix":  {storage.ListOptions{Revision: later, Limit: 1, From: "/"}, result{"a", true, 6, later}},
			"from behind the end": {storage.ListOptions{Revision: later, From: prefix + "ns/g"}, result{"", false, 0, later}},
			"from beyond prefix":  {storage.ListOptions{Revision: later, From: "/registry/zzz"}, result{"", false, 0, later}},
		} {
			t.Run(name, func(t *testing.T) {
				l, err := s.List(t.Context(), prefix, tc.opts)
				if err != nil {
					t.Fatal(err)
				}
				got := result{More: l.More, Count: l.Count, Revision: l.Revision}
				for _, kv := range l.KVs {
					got.Keys += string(kv.Value)
				}
				if d := cmp.Diff(tc.want, got); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
			})
		}
		l, err := s.List(t.Context(), prefix, storage.ListOptions{})
		if err != nil || len(l.KVs) != 6 || l.Revision <= later {
			t.Errorf("the newest list: %d keys at revision %d, %v; want 6 at a revision after %d", len(l.KVs), l.Revision, err, later)
		}
		l, err = s.List(t.Context(), "", storage.ListOptions{Limit: 1})
		if err != nil || len(l.KVs) != 1 || !l.More {
			t.Errorf("the empty prefix: %+v, %v", l, err)
		}
	})
}

func TestTooLarge(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		var tooLarge *storage.TooLargeError
		for reserve, limit := range map[storage.Reserve]int{
			storage.NoReserve: s.max - markHeadroom, storage.ForShrinking: s.max - markHeadroom, storage.ForDeletion: s.max,
		} {
			_, err := s.Put(t.Context(), prefix+"a", make([]byte, limit+1), storage.PutOptions{Reserve: reserve})
			if !errors.As(err, &tooLarge) || tooLarge.Size != limit+1 || tooLarge.Limit != limit {
				t.Errorf("one byte over the limit of reserve %d: got %v", reserve, err)
			}
		}
		key := prefix + strings.Repeat("n", 63) + "/" + strings.Repeat("k", 253)
		guard := prefix + strings.Repeat("n", 63)
		g := &storage.Guard{Key: guard, ModRevision: create(t, s, guard, "")}
		w, err := s.Put(t.Context(), key, make([]byte, s.max), storage.PutOptions{Guard: g, Reserve: storage.ForDeletion})
		if err != nil || !w.Succeeded {
			t.Errorf("the largest value under the longest key: got %+v, %v", w, err)
		}

		// The server's limit is below what the store believes; beyond some size it is gRPC,
		// not etcd, that refuses.
		s.max = 64 << 20
		for _, size := range []int{8<<20 + 1, 33 << 20} {
			_, err = s.Put(t.Context(), prefix+"c", make([]byte, size), storage.PutOptions{})
			if !errors.As(err, &tooLarge) || tooLarge.Size != size || tooLarge.Limit != 0 {
				t.Errorf("%d bytes: got %v, want a TooLargeError without a limit", size, err)
			}
		}
	})
}

func TestContextEnds(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		expired, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
		defer cancel()
		for _, ctx := range []context.Context{cancelled, expired} {
			if _, err := s.Get(ctx, prefix, storage.GetOptions{}); !errors.Is(err, ctx.Err()) {
				t.Errorf("Get: got %v, want %v", err, ctx.Err())
			}
			_, err := s.Put(ctx, prefix+"a", nil, storage.PutOptions{})
			if !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, ctx.Err()) {
				t.Errorf("Put: got %v, want ErrUnavailable, %v", err, ctx.Err())
			}
			for r := range s.Watch(ctx, prefix, storage.WatchOptions{Revision: 1}) {
				t.Errorf("Watch delivered %+v", r)
			}
		}
		got, err := s.Get(t.Context(), prefix+"a", storage.GetOptions{})
		if err != nil || got.KV != nil {
			t.Errorf("the refused write is there: %+v, %v", got, err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(clients["in process"], Config{MaxValueBytes: -1}); err == nil {
		t.Error("a negative value limit: no error")
	}
	if _, err := New(nil, Config{}); err == nil {
		t.Error("no client: no error")
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	s, err := New(clients["in process"], Config{Registerer: registry, Groups: map[string]string{"endpoints": ""}})
	if err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf("/registry/endpoints/metrics%d/a", prefixes.Add(1))
	rev := put(t, s, key, "2", create(t, s, key, "1"))
	if _, err := s.Get(t.Context(), key, storage.GetOptions{Revision: rev + 1<<40}); err == nil {
		t.Fatal("a future revision was read")
	}
	if _, err := s.List(t.Context(), "/registry/endpoints/", storage.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	remove(t, s, key, rev)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			if m.GetGauge() != nil {
				continue // of the database
			}
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			name := f.GetName() + " " + labels["operation"] + " " + labels["group"] + labels["resource"]
			if h := m.GetHistogram(); h != nil {
				got[name] = float64(h.GetSampleCount())
			} else {
				got[name] = m.GetCounter().GetValue()
			}
		}
	}
	want := map[string]float64{"etcd_request_errors_total get endpoints": 1}
	for _, operation := range []string{"create", "update", "delete", "get", "listWithCount"} {
		want["etcd_requests_total "+operation+" endpoints"] = 1
		want["etcd_request_errors_total "+operation+" endpoints"] += 0
		want["etcd_request_duration_seconds "+operation+" endpoints"] = 1
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestResourceOf(t *testing.T) {
	m := newMetrics(nil, map[string]string{"endpoints": "", "leases": "coordination.k8s.io"})
	for key, want := range map[string][2]string{
		"/registry/endpoints/default/a": {"", "endpoints"},
		"/registry/leases/default/a":    {"coordination.k8s.io", "leases"},
		"/registry/endpoints/":          {"", "endpoints"},
		"/registry/endpoints":           {},
		"/registry/secrets/default/a":   {},
		"/other/endpoints/a":            {},
		"":                              {},
	} {
		if group, resource := m.resourceOf(key); [2]string{group, resource} != want {
			t.Errorf("resourceOf(%q) = %q, %q, want %q", key, group, resource, want)
		}
	}
}
