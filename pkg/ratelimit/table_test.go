package ratelimit

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

func address(i uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0a000000+i)))
}

func numbered(i uint32) Subject {
	s := Subject{User: "alice", Groups: []string{"dev"}}
	binary.BigEndian.PutUint32(s.Token[:], i+1)
	return s
}

// heap returns the bytes in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func checkTable(t *testing.T, tb *table) {
	t.Helper()
	if len(tb.buckets) != len(tb.slots) {
		t.Errorf("%d buckets in %d slots", len(tb.buckets), len(tb.slots))
	}
	for i, b := range tb.slots {
		if b.slot != i || tb.buckets[b.key] != b {
			t.Fatalf("slot %d holds a bucket that says %d", i, b.slot)
		}
	}
}

func TestAMillionAddresses(t *testing.T) {
	before := heap()
	l := New(&Config{Anonymous: &Limit{2, 3}})
	victim := netip.MustParseAddr("192.0.2.1")
	drain(t, "victim", 3, func() time.Duration { return l.AllowAnonymous(start, victim) })
	admitted := 0
	for i := range uint32(1_000_000) {
		if l.AllowAnonymous(start, address(i)) == 0 {
			admitted++
		}
	}
	// One for each address that got a bucket, and what the shared one holds.
	if want := maxAddresses - 1 + 3; admitted != want {
		t.Errorf("%d of a million addresses were admitted, want %d", admitted, want)
	}
	if n := len(l.addresses.slots); n != maxAddresses+1 {
		t.Errorf("%d buckets, want %d", n, maxAddresses+1)
	}
	grown := heap() - before
	if perBucket := grown / maxAddresses; perBucket > 400 {
		t.Errorf("a bucket takes %d bytes, more than is documented", perBucket)
	}
	t.Logf("%d bytes, %d a bucket", grown, grown/maxAddresses)
	if got, want := l.AllowAnonymous(start, victim), 500*time.Millisecond; got != want {
		t.Errorf("wait of the address that was there first = %v, want %v: it lost its bucket", got, want)
	}
	if got, want := l.AllowAnonymous(start, address(2_000_000)), 500*time.Millisecond; got != want {
		t.Errorf("wait of a newcomer = %v, want %v, the shared bucket's", got, want)
	}
	checkTable(t, &l.addresses)
	if wait := l.AllowProbe(start, address(3_000_000), "livez"); wait != 0 {
		t.Errorf("a probe of a newcomer must wait %v", wait)
	}
	drain(t, "a token meanwhile", 100, func() time.Duration { return l.Allow(start, subject(1, "alice"), Write, 1) })
	runtime.KeepAlive(l)
}

func TestIdleBucketsLeave(t *testing.T) {
	l := New(&Config{Anonymous: &Limit{1, 10}})
	const n = 1000
	for i := range uint32(n) {
		l.AllowAnonymous(start, address(i))
	}
	busy := address(n)
	drain(t, "busy", 10, func() time.Duration { return l.AllowAnonymous(start, busy) })
	if got := len(l.addresses.slots); got != n+1 {
		t.Fatalf("%d buckets, want %d", got, n+1)
	}
	// After a second all are full but one, and every access drops one or passes one by.
	for range 2 * n {
		l.addresses.sweep(at(1))
	}
	if got := len(l.addresses.slots); got != 1 {
		t.Errorf("%d buckets are left, want the one that is not full", got)
	}
	drain(t, "busy, after a second", 1, func() time.Duration { return l.AllowAnonymous(at(1), busy) })
	checkTable(t, &l.addresses)
}

// However many addresses cause lines, those of all together are bounded.
func TestLinesOfManySources(t *testing.T) {
	l, allowed := New(nil), 0
	for second := range 10 {
		for i := range uint32(10_000) {
			if _, ok := l.AllowLine(at(float64(second)), [32]byte{}, address(i)); ok {
				allowed++
			}
		}
	}
	if most := 10*(maxSources+1) + 10*2*(maxSources+1); allowed > most || allowed < maxSources {
		t.Errorf("%d lines in ten seconds, want at most %d", allowed, most)
	}
	if n := len(l.sources.slots); n > maxSources+1 {
		t.Errorf("%d buckets", n)
	}
	checkTable(t, &l.sources)
}

// A stream of newcomers must not make the table grow much beyond those that are in
// use: 1,000 a second that are each full again after half a second.
func TestSweepKeepsUp(t *testing.T) {
	l := New(&Config{Anonymous: &Limit{2, 20}})
	most := 0
	for i := range uint32(20_000) {
		l.AllowAnonymous(at(float64(i)/1000), address(i))
		most = max(most, len(l.addresses.slots))
	}
	if most < 500 || most > 800 {
		t.Errorf("up to %d buckets for 500 in use", most)
	}
}

func TestSubjectsWithoutRoom(t *testing.T) {
	l := New(&Config{
		Defaults: Defaults{Write: &Limit{1, 2}, Read: &Limit{1, 5}},
		Overrides: []Override{
			{Groups: []string{"slow"}, Write: &Limit{0.1, 1}},
			{Groups: []string{"free"}, Exempt: true},
		},
	})
	l.subjects.max = 100
	for i := range uint32(100) {
		l.Allow(start, numbered(i), Write, 1)
	}
	drain(t, "who has a bucket", 1, func() time.Duration { return l.Allow(start, numbered(0), Write, 1) })
	next := uint32(1000)
	newcomer := func(class Class, groups ...string) func() time.Duration {
		return func() time.Duration {
			next++
			s := numbered(next)
			s.Groups = groups
			return l.Allow(start, s, class, 1)
		}
	}
	drain(t, "newcomers' writes", 2, newcomer(Write))
	drain(t, "newcomers' reads", 5, newcomer(Read))
	drain(t, "newcomers of another override", 1, newcomer(Write, "slow"))
	if wait := newcomer(Write, "free")(); wait != 0 {
		t.Errorf("who is exempt must wait %v", wait)
	}
	if got := len(l.subjects.slots); got != 103 {
		t.Errorf("%d buckets, want 100 and the three that are shared", got)
	}
	// The shared buckets take a new configuration as the others do, or leave.
	l.SetConfig(&Config{Defaults: Defaults{Write: &Limit{1, 2}}})
	if got, want := newcomer(Write)(), time.Second; got != want {
		t.Errorf("wait of a newcomer after a change = %v, want %v", got, want)
	}
	// A second later the first bucket is still two short of full, the others are not.
	for range 200 {
		l.Allow(at(1), numbered(0), Write, 1)
	}
	if wait := l.Allow(at(1), numbered(5000), Write, 1); wait != 0 {
		t.Errorf("a newcomer must wait %v in a table that has room again", wait)
	}
	checkTable(t, &l.subjects)
}

func TestSharedBucketTakesANewConfig(t *testing.T) {
	forAlice := func(qps float64) *Config {
		return &Config{Overrides: []Override{{Users: []string{"alice"}, Write: &Limit{qps, 2}}}}
	}
	l := New(forAlice(1))
	l.subjects.max = 0
	drain(t, "before", 2, func() time.Duration { return l.Allow(start, numbered(1), Write, 1) })
	l.SetConfig(forAlice(10))
	if got, want := l.Allow(start, numbered(2), Write, 1), 100*time.Millisecond; got != want {
		t.Errorf("wait after the change = %v, want %v", got, want)
	}
}

func TestMemoryOfSubjects(t *testing.T) {
	subjects := make([]Subject, 2*maxSubjects)
	for i := range subjects {
		subjects[i] = numbered(uint32(i))
	}
	before := heap()
	l := New(nil)
	for _, s := range subjects {
		l.Allow(start, s, Write, 1)
	}
	grown := heap() - before
	if perBucket := grown / maxSubjects; perBucket > 400 {
		t.Errorf("a bucket takes %d bytes, more than is documented", perBucket)
	}
	t.Logf("%d bytes, %d a bucket", grown, grown/maxSubjects)
	runtime.KeepAlive(l)
	runtime.KeepAlive(subjects)
}

func BenchmarkAllow(b *testing.B) {
	for _, tokens := range []int{1, 1000, 30_000} {
		b.Run(fmt.Sprintf("tokens=%d", tokens), func(b *testing.B) {
			l := New(&Config{Defaults: Defaults{Write: &Limit{10, 1_000_000}}})
			subjects := make([]Subject, tokens)
			for i := range subjects {
				subjects[i] = numbered(uint32(i))
				subjects[i].Groups = []string{"dev", "ops", "system:authenticated"}
				l.Allow(start, subjects[i], Write, 1)
			}
			var worker atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				now := time.Now()
				for i := int(worker.Add(7919)); pb.Next(); i++ {
					now = now.Add(time.Microsecond)
					l.Allow(now, subjects[i%tokens], Write, 1)
				}
			})
		})
	}
}

func BenchmarkAllowRefused(b *testing.B) {
	l := New(&Config{Defaults: Defaults{Write: &Limit{0.001, 1}}})
	s := numbered(1)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for now := time.Now(); pb.Next(); {
			now = now.Add(time.Microsecond)
			l.Allow(now, s, Write, 1)
		}
	})
}

func BenchmarkAllowAnonymousNewcomers(b *testing.B) {
	l := New(nil)
	var i atomic.Uint32
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for now := time.Now(); pb.Next(); {
			now = now.Add(time.Microsecond)
			l.AllowAnonymous(now, address(i.Add(1)&0xffffff))
		}
	})
}
