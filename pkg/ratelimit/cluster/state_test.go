package cluster

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/ratelimit"
)

const second = int64(time.Second)

var some = ratelimit.Limit{QPS: 10, Burst: 80}

func full(l ratelimit.Limit) stateOf {
	return stateOf{state: state{at: 100 * second}, limit: l}
}

func TestStateTake(t *testing.T) {
	s := full(some)
	if _, ok := s.take("a", 81, 81, 0, 0); ok {
		t.Error("more was taken than a full bucket has")
	}
	if g, ok := s.take("a", 1, 1, 0, 0); !ok || g != (grant{extra: 19}) {
		t.Errorf("got %+v, %v, want a quarter of the rest", g, ok)
	}
	if got := s.level(); got != 60 {
		t.Errorf("%v are left, want 60", got)
	}
	if _, ok := s.take("a", 60, 60, 0, 0); !ok {
		t.Error("what is left was refused")
	}
	if got := s.wait(1); got != 100*time.Millisecond {
		t.Errorf("a token comes after %v, want 100ms", got)
	}
	s.advance(s.at + second/10)
	if g, ok := s.take("b", 1, 1, 1, 0); !ok || g != (grant{}) {
		t.Errorf("got %+v, %v, want the token that has come, and nothing else", g, ok)
	}
	s.advance(s.at + 3600*second)
	if got := s.level(); got != 80 {
		t.Errorf("a full bucket has %v, want 80", got)
	}
}

// A block has its part of the tokens and of the rate, and the rest has the rest.
func TestStateBlocks(t *testing.T) {
	s := full(some)
	if g, ok := s.take("b", 1, 1, 8, 0); !ok || g != (grant{units: 8}) {
		t.Fatalf("got %+v, %v", g, ok)
	}
	if got := s.level(); got != 39 {
		t.Errorf("%v are left, want 39", got)
	}
	if g, ok := s.take("a", 1, 1, 8, 0); !ok || g != (grant{units: 2}) {
		t.Fatalf("got %+v, %v, want a block that leaves a quarter of the bucket", g, ok)
	}
	if got, want := s.rate(), 10.0*6/16; got != want {
		t.Errorf("the rest gains %v a second, want %v", got, want)
	}
	if _, ok := s.take("c", 20, 20, 1, 0); !ok || !s.wanted {
		t.Errorf("with %v left of 80, the blocks are not wanted back", s.level())
	}
	s.leave("b", 40)
	s.leave("nobody", 40)
	if diff := cmp.Diff([]block{{"a", 2}}, s.blocks, cmp.AllowUnexported(block{})); diff != "" {
		t.Errorf("blocks (-want +got)\n%s", diff)
	}
	s.advance(s.at + 3600*second)
	if got := s.level(); got != 70 {
		t.Errorf("beside a block of an eighth %v are left, want 70", got)
	}
	s.leave("a", 0) // which has died
	s.settle()
	if got := s.level(); got != 70 || s.wanted {
		t.Errorf("%v are left, want 70; wanted is %v", got, s.wanted)
	}
}

func TestStateIsStored(t *testing.T) {
	for _, s := range []stateOf{
		full(some),
		{state: state{at: 1_800_000_000 * second, debt: 12, given: 5, wanted: true, blocks: []block{{"00ff", 4}, {"a0", 2}}}, limit: some},
		{state: state{at: 7, debt: 80 + ratelimit.MaxWeight}, limit: some},
	} {
		data := s.encode()
		got, err := decode(data, some)
		if err != nil {
			t.Errorf("%s: %v", data, err)
			continue
		}
		if diff := cmp.Diff(s, got, cmp.AllowUnexported(stateOf{}, state{}, block{})); diff != "" {
			t.Errorf("%s (-want +got)\n%s", data, diff)
		}
	}
	for _, data := range []string{"", "1", "5 6", "a 5 0", "9 5 a", "NaN 5 0", "5 5 -1", "5 -6 0", "9 5 0 x", "9 5 0 x:0", "9 5 0 x:9", "9 5 0 x:1 a:1", "9 5 0 a:8 b:8", "9 5 0 wanted wanted"} {
		if _, err := decode([]byte(data), some); err == nil {
			t.Errorf("%q was read", data)
		}
	}
}

// Whatever a state claims to have or to owe has a bound.
func TestStateBeyondBounds(t *testing.T) {
	for data, want := range map[string]float64{"-1e30 5 0": 80 + ratelimit.MaxWeight, "-Inf 5 0": 80 + ratelimit.MaxWeight, "1e30 5 0": 0} {
		if s, err := decode([]byte(data), some); err != nil || s.debt != want {
			t.Errorf("%s: it lacks %v, %v; want %v", data, s.debt, err, want)
		}
	}
	wide := ratelimit.Limit{QPS: 0.00001, Burst: 1e9}
	s := full(wide)
	if _, ok := s.take("a", 5e8, 1e9, 0, 0); !ok {
		t.Fatal("refused")
	}
	if s, err := decode(s.encode(), wide); err != nil || s.debt <= 0 {
		t.Errorf("after a take that lasts for years: %+v, %v", s, err)
	}
}

// A bucket keeps what it has, and what it owes, whatever the limit.
func TestStateOfAnotherLimit(t *testing.T) {
	s := full(some)
	s.debt = 40
	s.relimit(ratelimit.Limit{QPS: 20, Burst: 200})
	if got := s.level(); got != 40 {
		t.Errorf("%v tokens of 200, want the 40 that there were", got)
	}
	s.relimit(ratelimit.Limit{QPS: 1e-5, Burst: 1})
	if s.level() != 1 {
		t.Errorf("%v tokens of 1, want a full bucket", s.level())
	}
	s.setLevel(-9000)
	for _, limit := range limits {
		s.relimit(limit)
	}
	if s.level() != -9000 {
		t.Errorf("%v tokens, want the 9000 owed that there were", s.level())
	}
}

func TestClock(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c := newClock(now)
	if !c.follow(now, now.Add(-time.Hour).UnixNano()) || c.at(now) != now.UnixNano() {
		t.Error("a clock that is behind changes this one")
	}
	if !c.follow(now, now.Add(time.Hour).UnixNano()) || c.at(now.Add(time.Second)) != now.Add(time.Hour+time.Second).UnixNano() {
		t.Error("a clock that is ahead is not followed")
	}
	if c.follow(now, now.AddDate(200, 0, 0).UnixNano()) {
		t.Error("a time that cannot be one is followed")
	}
	c = newClock(time.Unix(0, 0))
	if !c.follow(time.Unix(0, 0), now.UnixNano()) || c.at(time.Unix(1, 0)) != now.Add(time.Second).UnixNano() {
		t.Error("a machine without a clock does not follow the others")
	}
}
