package cluster

import (
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/berth-project/berth/pkg/ratelimit"
)

// Limits that alternate, as those of a user's tokens of different groups do, admit together what the
// larger burst and the larger rate do, with the store and without.
func TestLimitsThatAlternate(t *testing.T) {
	slow, fast := ratelimit.Limit{QPS: 0.01, Burst: 100}, ratelimit.Limit{QPS: 20, Burst: 50}
	w := newWorld(t, 1, slow)
	w.add(0)
	w.add(0)
	for i := range 4000 {
		w.pass(5 * time.Millisecond)
		r := w.one()
		r.setLimit(w.now, []ratelimit.Limit{slow, fast}[i/10%2])
		for range 5 {
			if _, done := w.request(r, 1); !done {
				w.end(r)
			}
		}
		w.obey(r)
	}
	if most, least := float64(100+20*20), float64(50+20*20-40); w.admitted > most || w.admitted < least {
		t.Errorf("%v were admitted in 20 s, want %v to %v", w.admitted, least, most)
	}

	alone := bucket{limit: slow, shared: stateOf{limit: slow}}
	admitted, now := 0, w.now
	for i := range 4000 {
		now = now.Add(5 * time.Millisecond)
		alone.setLimit(now, []ratelimit.Limit{slow, fast}[i/10%2])
		if alone.admitAlone(now, now.UnixNano(), 1, 2) == 0 {
			admitted++
		}
	}
	if most, least := (100+20*20)/2, (50+10*20)/2; admitted > most || admitted < least {
		t.Errorf("%d were admitted in 20 s without the store, want %d to %d", admitted, least, most)
	}
}

// A limit that is lowered while a transaction is in progress holds for what the replica has afterwards,
// whether the store has taken it or not.
func TestLimitOfATransactionInProgress(t *testing.T) {
	before, after := ratelimit.Limit{QPS: 200, Burst: 400}, ratelimit.Limit{QPS: 2, Burst: 16}
	w := newWorld(t, 1, before)
	r := w.add(0)
	expect := func(what string) {
		t.Helper()
		if r.block == nil {
			t.Fatalf("%s: no block", what)
		}
		limit, left := rate.Limit(after.QPS*float64(r.blockUnits)/unit), tokens(after, r.blockUnits)
		if r.block.Limit() != limit || r.left(w.now) > left {
			t.Errorf("%s: %v tokens at %v a second, want %v at %v", what, r.left(w.now), r.block.Limit(), left, limit)
		}
	}
	w.request(r, 1)
	r.setLimit(w.now, after)
	w.end(r)
	expect("the store has taken it")

	r.setLimit(w.now, before)
	r.block = rate.NewLimiter(rate.Limit(before.QPS*float64(r.blockUnits)/unit), int(tokens(before, r.blockUnits)))
	a := r.begin(w.now)
	r.setLimit(w.now, after)
	r.undo(&a)
	expect("the store has not taken it")
}

// Tokens that are taken in advance lapse as the bucket becomes full, whatever its limit becomes.
func TestExtraByAnotherLimit(t *testing.T) {
	fast, slow := ratelimit.Limit{QPS: 20, Burst: 100}, ratelimit.Limit{QPS: 0.1, Burst: 100}
	now := time.Unix(1_800_000_000, 0)
	at := now.UnixNano()
	b := bucket{limit: fast, shared: stateOf{state: state{at: at, debt: 80}, limit: fast}}
	b.extra, b.extraEnd = 40, b.shared.lapseAt()
	b.setLimit(now, slow)
	if b.lapse(now.Add(3*time.Second), at+3*second, 0); b.extra != 40 {
		t.Errorf("%v of 40 are left after 3 s, want all", b.extra)
	}
	b.setLimit(now, fast)
	if b.lapse(now.Add(3*time.Second), at+3*second, 0); b.extra < 19.9 || b.extra > 20.1 {
		t.Errorf("%v of 40 are left after 3 s, want 20", b.extra)
	}
}

// What others have given back before the answer of a transaction counts as after it.
func TestGivenBackBeforeTheAnswer(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := bucket{limit: some, shared: full(some), revision: 1}
	mine := b.shared
	mine.debt = 60
	theirs := mine
	theirs.give(40)
	b.learn(theirs, 3)
	b.commit(now, mine, 2, grant{extra: 20}, now.Add(time.Hour), 1)
	if want := mine.at + 2*second; b.extraEnd != want {
		t.Errorf("the last lapses after %v, want 2s", time.Duration(b.extraEnd-mine.at))
	}
	wide := full(ratelimit.Limit{QPS: 0.00001, Burst: 1e9})
	for range 10 {
		before := wide.given
		wide.debt = 1e9
		if wide.give(5e8); wide.given < before {
			t.Fatalf("what was given back becomes %v after %v", wide.given, before)
		}
	}
}
