package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

func subject(token byte, user string, groups ...string) Subject {
	return Subject{Token: [32]byte{token}, User: user, Groups: groups}
}

// drain takes n tokens at once and fails if there are not exactly n.
func drain(t *testing.T, what string, n int, take func() time.Duration) {
	t.Helper()
	for i := range n {
		if wait := take(); wait != 0 {
			t.Fatalf("%s: request %d of %d must wait %v", what, i+1, n, wait)
		}
	}
	if take() == 0 {
		t.Fatalf("%s: more than %d requests were admitted", what, n)
	}
}

func TestAllow(t *testing.T) {
	l := New(&Config{Defaults: Defaults{Write: &Limit{5, 3}, Read: &Limit{1, 2}}})
	alice, bob := subject(1, "alice"), subject(2, "bob")
	write := func(s Subject, sec float64) time.Duration { return l.Allow(at(sec), s, Write, 1) }

	drain(t, "writes", 3, func() time.Duration { return write(alice, 0) })
	drain(t, "reads beside the writes", 2, func() time.Duration { return l.Allow(at(0), alice, Read, 1) })
	drain(t, "another token", 3, func() time.Duration { return write(bob, 0) })

	for _, tt := range []struct {
		at   float64
		want time.Duration
	}{
		{0, 200 * time.Millisecond},
		{0.05, 150 * time.Millisecond},
		{0.199, time.Millisecond},
		{0.2, 0},
		{0.2, 200 * time.Millisecond},
		{0.15, 250 * time.Millisecond}, // a clock read before, and used after, the one at 0.2
		{0.3, 100 * time.Millisecond},
	} {
		if got := write(alice, tt.at); got != tt.want {
			t.Errorf("at %v s: wait = %v, want %v", tt.at, got, tt.want)
		}
	}
	drain(t, "after a long time", 3, func() time.Duration { return write(alice, 1e9) })
}

// What is owed is taken from what is there and from what comes.
func TestOwe(t *testing.T) {
	l := New(&Config{Defaults: Defaults{Read: &Limit{10, 20}}})
	alice := subject(1, "alice")
	l.Owe(at(0), alice, Read, 50)
	if wait := l.Allow(at(0), alice, Read, 1); wait != 3100*time.Millisecond {
		t.Errorf("a request must wait %v for 30 tokens that are owed, and its own", wait)
	}
	drain(t, "afterwards", 1, func() time.Duration { return l.Allow(at(3.1), alice, Read, 1) })
	root := subject(2, "root", "system:masters")
	l.Owe(at(0), root, Read, 50)
	if wait := l.Allow(at(0), root, Read, 1); wait != 0 {
		t.Errorf("who is exempt must wait %v", wait)
	}
}

func TestExempt(t *testing.T) {
	l := New(nil)
	for i := range 10_000 {
		if wait := l.Allow(start, subject(1, "root", "system:masters"), Write, 1); wait != 0 {
			t.Fatalf("request %d must wait %v", i, wait)
		}
	}
	if n := len(l.subjects.slots); n != 0 {
		t.Errorf("%d buckets for who needs none", n)
	}
}

func TestPerUser(t *testing.T) {
	l := New(&Config{
		Defaults:  Defaults{Write: &Limit{1, 4}, Per: PerUser},
		Overrides: []Override{{Groups: []string{"robots"}, Per: PerToken}},
	})
	write := func(s Subject) func() time.Duration {
		return func() time.Duration { return l.Allow(start, s, Write, 1) }
	}
	drain(t, "first token", 4, write(subject(1, "alice")))
	if write(subject(2, "alice"))() == 0 {
		t.Error("a user's second token has a bucket of its own")
	}
	drain(t, "another user", 4, write(subject(3, "bob")))
	drain(t, "robot", 4, write(subject(4, "robot", "robots")))
	drain(t, "the robot's second token", 4, write(subject(5, "robot", "robots")))
}

func TestAnonymous(t *testing.T) {
	l := New(&Config{Anonymous: &Limit{2, 3}})
	allow := func(addr string, sec float64) time.Duration {
		return l.AllowAnonymous(at(sec), netip.MustParseAddr(addr))
	}
	drain(t, "IPv4", 3, func() time.Duration { return allow("192.0.2.1", 0) })
	drain(t, "another IPv4", 3, func() time.Duration { return allow("192.0.2.2", 0) })
	drain(t, "IPv6", 3, func() time.Duration { return allow("2001:db8:0:1::1", 0) })
	drain(t, "another /64", 3, func() time.Duration { return allow("2001:db8:0:2::1", 0) })
	drain(t, "the zero address", 3, func() time.Duration { return l.AllowAnonymous(start, netip.Addr{}) })
	drain(t, "the unspecified address", 3, func() time.Duration { return allow("::", 0) })

	for _, tt := range []struct {
		addr string
		at   float64
		want time.Duration
	}{
		{"192.0.2.1", 0, 500 * time.Millisecond},
		{"::ffff:192.0.2.1", 0.2, 300 * time.Millisecond},
		{"2001:db8:0:1:ffff::2", 0.2, 300 * time.Millisecond},
		{"fe80::1%eth0", 0.2, 0},
		{"192.0.2.1", 0.5, 0},
		{"192.0.2.1", 0.5, 500 * time.Millisecond},
	} {
		if got := allow(tt.addr, tt.at); got != tt.want {
			t.Errorf("%s at %v s: wait = %v, want %v", tt.addr, tt.at, got, tt.want)
		}
	}
}

// Probes have a limit of their own, which failures do not touch.
func TestProbes(t *testing.T) {
	l := New(&Config{Anonymous: &Limit{2, 3}})
	addr := netip.MustParseAddr("192.0.2.1")
	drain(t, "failures", 3, func() time.Duration { return l.AllowAnonymous(start, addr) })
	drain(t, "probes", 400, func() time.Duration { return l.AllowProbe(start, addr, "livez") })
	if got, want := l.AllowProbe(start, addr, "livez"), 5*time.Millisecond; got != want {
		t.Errorf("wait = %v, want %v", got, want)
	}
	drain(t, "another path", 400, func() time.Duration { return l.AllowProbe(start, addr, "readyz") })
	drain(t, "another address", 400, func() time.Duration { return l.AllowProbe(start, address(1), "livez") })
	drain(t, "after a second", 200, func() time.Duration { return l.AllowProbe(at(1), addr, "livez") })
}

func TestLines(t *testing.T) {
	l := New(nil)
	one, other, token := address(1), address(2), subject(1, "").Token
	lines := func(now time.Time, token [32]byte, addr netip.Addr, n int) (allowed, omitted int) {
		for range n {
			if before, ok := l.AllowLine(now, token, addr); ok {
				allowed, omitted = allowed+1, omitted+before
			}
		}
		return allowed, omitted
	}
	for _, tt := range []struct {
		name             string
		at               float64
		token            [32]byte
		addr             netip.Addr
		n                int
		allowed, omitted int
	}{
		{"an address", 0, [32]byte{}, one, 1010, 10, 0},
		{"another", 0, [32]byte{}, other, 11, 10, 0},
		{"a token, from wherever", 0, token, one, 11, 10, 0},
		{"the same from elsewhere", 0, token, other, 5, 0, 0},
		{"half a second later", 0.5, [32]byte{}, one, 100, 1, 1000},
		{"another half", 1, [32]byte{}, one, 1, 1, 99},
		{"a second later", 1, token, one, 2, 2, 6},
		{"long after", 100, [32]byte{}, one, 11, 10, 0},
	} {
		if allowed, omitted := lines(at(tt.at), tt.token, tt.addr, tt.n); allowed != tt.allowed || omitted != tt.omitted {
			t.Errorf("%s: %d lines that tell of %d omitted ones, want %d and %d", tt.name, allowed, omitted, tt.allowed, tt.omitted)
		}
	}
}

func TestSetConfig(t *testing.T) {
	before := &Config{Defaults: Defaults{Write: &Limit{10, 100}}, Anonymous: &Limit{10, 100}}
	for _, tt := range []struct {
		name   string
		config *Config
		after  time.Duration // from the first request after the change, 1 s after the bucket was drained
		want   int           // requests admitted then, with the first
	}{
		{"what it holds stays", &Config{Defaults: Defaults{Write: &Limit{1, 1000}}, Anonymous: &Limit{1, 1000}}, 0, 10},
		{"up to the new burst", &Config{Defaults: Defaults{Write: &Limit{1, 4}}, Anonymous: &Limit{1, 4}}, 0, 4},
		{"slower from now on", &Config{Defaults: Defaults{Write: &Limit{1, 100}}, Anonymous: &Limit{1, 100}}, 5 * time.Second, 15},
		{"faster from now on", &Config{Defaults: Defaults{Write: &Limit{20, 1000}}, Anonymous: &Limit{20, 1000}}, 5 * time.Second, 110},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, addr, s := New(before), netip.MustParseAddr("192.0.2.1"), subject(1, "alice")
			drain(t, "subject", 100, func() time.Duration { return l.Allow(start, s, Write, 1) })
			drain(t, "address", 100, func() time.Duration { return l.AllowAnonymous(start, addr) })
			changed := at(1)
			l.SetConfig(tt.config)
			if wait := max(l.Allow(changed, s, Write, 1), l.AllowAnonymous(changed, addr)); wait != 0 {
				t.Fatalf("the first request after the change must wait %v", wait)
			}
			now := changed.Add(tt.after)
			drain(t, "subject after the change", tt.want-1, func() time.Duration { return l.Allow(now, s, Write, 1) })
			drain(t, "address after the change", tt.want-1, func() time.Duration { return l.AllowAnonymous(now, addr) })
		})
	}
	t.Run("exempt and back", func(t *testing.T) {
		l, s := New(before), subject(1, "alice")
		drain(t, "subject", 100, func() time.Duration { return l.Allow(start, s, Write, 1) })
		l.SetConfig(&Config{Overrides: []Override{{Users: []string{"alice"}, Exempt: true}}})
		if wait := l.Allow(start, s, Write, 1); wait != 0 {
			t.Errorf("exempt, but must wait %v", wait)
		}
		l.SetConfig(before)
		if l.Allow(start, s, Write, 1) == 0 {
			t.Error("a moment of exemption filled the bucket")
		}
	})
}

func TestNewGroupsCountAtOnce(t *testing.T) {
	l := New(&Config{
		Defaults:  Defaults{Write: &Limit{1, 2}},
		Overrides: []Override{{Groups: []string{"slow"}, Write: &Limit{0.1, 2}}},
	})
	drain(t, "before", 2, func() time.Duration { return l.Allow(start, subject(1, "alice"), Write, 1) })
	if got, want := l.Allow(start, subject(1, "alice", "slow"), Write, 1), 10*time.Second; got != want {
		t.Errorf("wait in the new group = %v, want %v", got, want)
	}
}

func randomLimit(r *rand.Rand) *Limit {
	exponent := r.Float64()*9 - 4 // 0.0001 to 100,000 a second
	limit := &Limit{QPS: 1, Burst: 1 + r.IntN(50)}
	for range int(exponent * 10) {
		limit.QPS *= 1.2589254117941673
	}
	for range int(-exponent * 10) {
		limit.QPS /= 1.2589254117941673
	}
	return limit
}

// Over random limits, times and changes of limits: a wait is exact to the nanosecond
// below which a token counts as there, and no interval admits more than the burst and
// what it has gained.
func TestWaitIsExact(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		limit := randomLimit(r)
		l := New(&Config{Defaults: Defaults{Write: limit}, Anonymous: limit})
		s, addr, now := subject(1, "alice"), netip.MustParseAddr("2001:db8::1"), start
		for range 300 {
			if r.IntN(20) == 0 {
				limit = randomLimit(r)
				l.SetConfig(&Config{Defaults: Defaults{Write: limit}, Anonymous: limit})
			}
			now = now.Add(time.Duration(r.ExpFloat64() / limit.QPS * float64(time.Second) / 2))
			call := now.Add(-time.Duration(r.IntN(1000))) // clocks are read before the lock is held
			wait := l.Allow(call, s, Write, 1)
			if got := l.AllowAnonymous(call, addr); got != wait {
				t.Fatalf("seed %d, limit %+v: waits %v and %v", seed, *limit, wait, got)
			}
			if wait == 0 {
				continue
			}
			if early := call.Add(wait - 2); early.After(l.latest) && l.Allow(early, s, Write, 1) == 0 {
				t.Fatalf("seed %d, limit %+v: admitted before the wait of %v was over", seed, *limit, wait)
			}
			now = call.Add(wait)
			if r.IntN(2) == 0 {
				now = call.Add(time.Duration(RetryAfterSeconds(wait)) * time.Second)
			}
			if again := l.Allow(now, s, Write, 1); again != 0 {
				t.Fatalf("seed %d, limit %+v: after a wait of %v it must wait %v", seed, *limit, wait, again)
			}
			l.AllowAnonymous(now, addr)
		}
	}
}

func TestRateIsBounded(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 2))
		limit := randomLimit(r)
		l, s, now := New(&Config{Defaults: Defaults{Write: limit}}), subject(1, "alice"), start
		admitted := 0
		for range 2000 {
			now = now.Add(time.Duration(r.ExpFloat64() / limit.QPS * float64(time.Second) / 3))
			if l.Allow(now, s, Write, 1) == 0 {
				admitted++
			}
		}
		most := float64(limit.Burst) + now.Sub(start).Seconds()*limit.QPS
		if float64(admitted) > most+0.01 || float64(admitted) < most*0.65 {
			t.Errorf("seed %d, limit %+v: admitted %d of %v", seed, *limit, admitted, most)
		}
	}
}

func TestRetryAfterSeconds(t *testing.T) {
	for wait, want := range map[time.Duration]int{
		0: 1, time.Nanosecond: 1, time.Second: 1, time.Second + 1: 2, 1500 * time.Millisecond: 2,
		100_000 * time.Second: 100_000, 100_000*time.Second + 1: 100_001,
	} {
		if got := RetryAfterSeconds(wait); got != want {
			t.Errorf("RetryAfterSeconds(%v) = %d, want %d", wait, got, want)
		}
	}
}

// However the rates flap, exactly the burst is admitted while the clock stands still.
func TestSetConfigAgainstAllow(t *testing.T) {
	configs := []*Config{
		{Defaults: Defaults{Write: &Limit{1, 10}}, Anonymous: &Limit{1, 10}},
		{Defaults: Defaults{Write: &Limit{5, 10}}, Anonymous: &Limit{5, 10}},
	}
	l := New(configs[0])
	done := make(chan struct{})
	var changer, clients sync.WaitGroup
	changer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				l.SetConfig(configs[i%2])
			}
		}
	})
	for i := range 4 {
		clients.Go(func() {
			s, addr := subject(byte(i), fmt.Sprint("user", i)), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			admitted, anonymous := 0, 0
			for range 2000 {
				if l.Allow(start, s, Write, 1) == 0 {
					admitted++
				}
				if l.AllowAnonymous(start, addr) == 0 {
					anonymous++
				}
			}
			for _, n := range []int{admitted, anonymous} {
				if n != 10 {
					t.Errorf("%d requests admitted, want 10", n)
				}
			}
		})
	}
	clients.Wait()
	close(done)
	changer.Wait()
}

func TestState(t *testing.T) {
	l := New(&Config{
		Defaults:  Defaults{Read: &Limit{QPS: 1, Burst: 10}},
		Overrides: []Override{{Users: []string{"shared"}, Per: PerUser}},
	})
	now := time.Unix(1_000, 0)
	check := func(s Subject, want State, limited bool) {
		t.Helper()
		for range 2 { // it takes nothing
			if got, ok := l.State(now, s, Read); got != want || ok != limited {
				t.Errorf("%s: got %+v, %v, want %+v, %v", s.User, got, ok, want, limited)
			}
		}
	}
	limit := Limit{QPS: 1, Burst: 10}
	alice, shared := Subject{Token: [32]byte{1}, User: "alice"}, Subject{Token: [32]byte{2}, User: "shared"}
	check(alice, State{Limit: limit, Tokens: 10}, true)
	l.Allow(now, alice, Read, 4)
	l.Allow(now, shared, Read, 1)
	l.Owe(now, shared, Read, 20)
	check(alice, State{Limit: limit, Tokens: 6}, true)
	check(Subject{Token: [32]byte{3}, User: "alice"}, State{Limit: limit, Tokens: 10}, true)
	check(Subject{Token: [32]byte{3}, User: "shared"}, State{Limit: limit, Tokens: -11, PerUser: true}, true)
	check(Subject{User: "root", Groups: []string{privilegedGroup}}, State{}, false)
	now = now.Add(2 * time.Second)
	check(alice, State{Limit: limit, Tokens: 8}, true)
}
