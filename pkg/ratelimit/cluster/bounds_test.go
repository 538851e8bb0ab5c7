package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/berth-project/berth/pkg/ratelimit"
)

// world is several replicas of one bucket, in one goroutine, with what they have in common: a
// state with a revision, and a clock.
type world struct {
	t        *testing.T
	random   *rand.Rand
	now      time.Time
	limit    ratelimit.Limit
	state    stateOf
	revision int64
	replicas []*twin
	died     map[string]time.Time

	admissions   []admission
	admitted     float64
	transactions int
}

// admission is what was admitted at a time: that of the state which it was taken from.
type admission struct {
	at time.Time
	n  int
}

// twin is a replica.
type twin struct {
	bucket
	name  string
	clock clock
	// pending is a transaction that has been planned, and not committed.
	pending   *plan
	plannedAt time.Time
	asked     asked
	n         int
}

func newWorld(t *testing.T, seed uint64, limit ratelimit.Limit) *world {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &world{
		t: t, random: rand.New(rand.NewPCG(seed, 1)), now: now, limit: limit, died: map[string]time.Time{}, state: stateOf{limit: limit},
	}
}

func (w *world) add(skew time.Duration) *twin {
	r := &twin{name: fmt.Sprintf("%08x", w.random.Uint32()), clock: newClock(w.now)}
	r.clock.ahead = int64(skew)
	r.limit, r.shared, r.known = w.limit, stateOf{limit: w.limit}, 1
	w.replicas = append(w.replicas, r)
	return r
}

// pass lets time pass.
func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

func (w *world) admit(at time.Time, n int) {
	w.admissions = append(w.admissions, admission{at, n})
	w.admitted += float64(n)
}

// check holds what was admitted against a single bucket, which must have had it.
func (w *world) check(tolerance float64) {
	w.t.Helper()
	slices.SortStableFunc(w.admissions, func(a, b admission) int { return a.at.Compare(b.at) })
	bucket, at := float64(w.limit.Burst), w.admissions[0].at
	for _, a := range w.admissions {
		bucket = min(float64(w.limit.Burst), bucket+a.at.Sub(at).Seconds()*w.limit.QPS) - float64(a.n)
		if at = a.at; bucket < -tolerance-1e-3 {
			w.t.Fatalf("%v more are admitted than burst + rate × time", -bucket)
		}
	}
}

func (w *world) dead(replica string) bool {
	died, ok := w.died[replica]
	return ok && w.now.Sub(died) > registrationTTL
}

// request is a request at a replica up to where it has to wait for the store; done: it need not.
func (w *world) request(r *twin, n int) (wait time.Duration, done bool) {
	t := r.clock.at(w.now)
	r.usedAt = w.now
	r.lapse(w.now, t, 1)
	if r.spend(w.now, n) {
		w.admit(w.now, n)
		return 0, true
	}
	if wait, done = r.refusal(t, n, true); done {
		return wait, true
	}
	w.begin(r, n)
	return 0, false
}

func (w *world) begin(r *twin, n int) {
	r.asked, r.n = r.begin(w.now), n
	w.plan(r)
}

func (w *world) plan(r *twin) {
	p := r.bucket.plan(&r.asked, r.name, r.clock.at(w.now), r.n, w.dead)
	r.pending, r.plannedAt = &p, w.now
}

// end is the store's answer to the transaction that a replica has begun: the write, or the state
// that has come before it.
func (w *world) end(r *twin) (wait time.Duration) {
	for {
		p := r.pending
		switch {
		case !p.write:
			r.pending, r.asking = nil, nil
			return p.wait
		case p.revision == w.revision:
			w.transactions++
			w.revision++
			w.state, _ = decode(p.next.encode(), w.limit)
			r.commit(w.now, p.next, w.revision, p.grant, w.now.Add(p.next.ttl()-ttlMargin), 1)
			r.pending, r.asking = nil, nil
			if p.wait > 0 {
				wait = r.refuse(&p.next, r.n)
			} else if r.n > 0 {
				w.admit(r.plannedAt, r.n)
			}
			for _, other := range w.replicas {
				w.hear(other)
			}
			return wait
		}
		w.transactions++
		w.hear(r) // which it has, with everything
		w.plan(r)
	}
}

// hear tells a replica what the store has.
func (w *world) hear(r *twin) {
	if r.revision == w.revision {
		return
	}
	r.clock.follow(w.now, w.state.at)
	before := r.shared
	r.learn(w.state, w.revision)
	r.adjust(&before, r.clock.at(w.now))
}

// obey has a replica give back what others want, or nobody uses.
func (w *world) obey(r *twin) {
	if r.pending != nil {
		return
	}
	r.lapse(w.now, r.clock.at(w.now), 1)
	own, idle := r.shared.own(r.name), w.now.Sub(r.usedAt)
	if own != r.blockUnits {
		r.block, r.blockUnits = nil, 0
	}
	if own > 0 && (r.shared.wanted || r.block == nil) || r.block != nil && idle > blockIdle || r.extra >= 1 && idle > extraIdle {
		w.begin(r, 0)
		w.end(r)
	}
}

func (w *world) one() *twin { return w.replicas[w.random.IntN(len(w.replicas))] }

// step does something at random. The steps of a transaction come apart, so that those of several
// replicas meet.
func (w *world) step(busy time.Duration) {
	r := w.one()
	switch w.random.IntN(20) {
	case 0:
		w.obey(r)
	case 1:
		w.pass(time.Duration(w.random.Int64N(int64(50 * busy))))
	case 2:
		if w.random.IntN(50) == 0 && len(w.replicas) > 1 {
			w.died[r.name] = w.now
			w.replicas = slices.DeleteFunc(w.replicas, func(other *twin) bool { return other == r })
			w.add(time.Duration(r.clock.ahead))
		}
	default:
		w.pass(time.Duration(w.random.Int64N(int64(busy))))
		n := 1
		if w.random.IntN(10) == 0 {
			n = 1 + w.random.IntN(w.limit.Whole(w.limit.Burst))
		}
		if r.pending != nil {
			w.end(r)
		} else {
			w.request(r, n)
		}
	}
}

var limits = []ratelimit.Limit{
	{QPS: 200, Burst: 400}, {QPS: 20, Burst: 100}, {QPS: 1, Burst: 5}, {QPS: 0.1, Burst: 2}, {QPS: 5, Burst: 1}, {QPS: 1000, Burst: 10}, {QPS: 7.3, Burst: 1000},
}

// Whatever replicas do, and whichever of them die, they never admit more than one bucket would,
// within any time.
func TestNeverMoreThanOneBucket(t *testing.T) {
	for _, limit := range limits {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			for seed := range uint64(20) {
				w := newWorld(t, seed, limit)
				for range 1 + w.random.IntN(5) {
					w.add(0)
				}
				// From far from the limit to far beyond it.
				busy := time.Duration(2 / limit.QPS * float64(time.Second) * []float64{0.1, 0.5, 1, 2, 10}[seed%5])
				for range 2000 {
					w.step(busy)
				}
				w.check(0)
			}
		})
	}
}

// Clocks that differ cost at most what comes in the time by which they do.
func TestClocksThatDiffer(t *testing.T) {
	for _, limit := range limits {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			for seed := range uint64(15) {
				w := newWorld(t, seed, limit)
				const most = 3 * time.Second
				for range 4 {
					w.add(time.Duration(w.random.Int64N(int64(most))))
				}
				for range 2000 {
					w.step(time.Duration(float64(time.Second) / limit.QPS))
				}
				w.check(most.Seconds() * limit.QPS)
			}
		})
	}
}

// An hour's difference neither closes a bucket nor opens it more than once, nor does that of a clock
// which is at 1970.
func TestClockIsFarAhead(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, 56 * 365 * 24 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) { testClockAhead(t, ahead) })
	}
}

func testClockAhead(t *testing.T, ahead time.Duration) {
	limit := ratelimit.Limit{QPS: 20, Burst: 100}
	w := newWorld(t, 1, limit)
	right, wrong := w.add(0), w.add(ahead)
	for range 10_000 {
		w.pass(2 * time.Millisecond)
		for _, r := range []*twin{right, wrong} {
			w.obey(r)
			if _, done := w.request(r, 1); !done {
				w.end(r)
			}
		}
	}
	w.check(float64(limit.Burst))
	if most, least := float64(2*100+20*20), float64(100+20*20-40); w.admitted > most || w.admitted < least {
		t.Errorf("%v were admitted in 20 s, want %v to %v", w.admitted, least, most)
	}
}

// A client that waits as long as it is told is admitted at the first try, by whichever replica.
func TestWaitSuffices(t *testing.T) {
	for _, limit := range limits {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			for seed := range uint64(20) {
				w := newWorld(t, seed, limit)
				for range 3 {
					w.add(0)
				}
				ask := func(n int) time.Duration {
					r := w.one()
					wait, done := w.request(r, n)
					if !done {
						wait = w.end(r)
					}
					for _, r := range w.replicas {
						w.obey(r)
					}
					if wait == 0 {
						return 0
					}
					return max(wait, leastWait)
				}
				for try := range 400 {
					n := 1
					if w.random.IntN(20) == 0 {
						n = 1 + w.random.IntN(limit.Whole(limit.Burst))
					}
					wait := ask(n)
					if wait == 0 {
						continue
					}
					if longest := max(leastWait, duration(float64(limit.Burst)/limit.QPS*2)); wait > longest {
						t.Fatalf("seed %d, try %d: it must wait %v", seed, try, wait)
					}
					w.pass(wait)
					for _, r := range w.replicas {
						w.obey(r)
					}
					if again := ask(n); again != 0 {
						t.Fatalf("seed %d, try %d: after the wait of %v for %d it must wait %v: %+v", seed, try, wait, n, again, w.state)
					}
				}
			}
		})
	}
}

// What a busy bucket costs the store, and that nothing of it is lost.
func TestTransactionsOfABusyBucket(t *testing.T) {
	for _, test := range []struct {
		limit    ratelimit.Limit
		overload float64
		replicas int
		each     float64 // admitted requests per transaction, at least
	}{
		{ratelimit.Limit{QPS: 200, Burst: 400}, 10, 3, 20},
		{ratelimit.Limit{QPS: 50, Burst: 100}, 10, 3, 18},
		{ratelimit.Limit{QPS: 20, Burst: 100}, 10, 3, 6},
		{ratelimit.Limit{QPS: 200, Burst: 400}, 0.5, 1, 100},
		{ratelimit.Limit{QPS: 200, Burst: 400}, 0.9, 3, 20},
		{ratelimit.Limit{QPS: 200, Burst: 400}, 0.1, 3, 200},
	} {
		t.Run(fmt.Sprintf("%v times %v", test.limit, test.overload), func(t *testing.T) {
			w := newWorld(t, 1, test.limit)
			for range test.replicas {
				w.add(0)
			}
			const seconds = 60
			every := time.Duration(float64(time.Second) / (test.limit.QPS * test.overload))
			asked := 0
			for begun := w.now; w.now.Sub(begun) < seconds*time.Second; asked++ {
				w.pass(every)
				// Half of the load is at one replica, and a transaction takes a few milliseconds.
				r := w.one()
				if w.random.IntN(2) == 0 {
					r = w.replicas[0]
				}
				if r.pending == nil {
					w.request(r, 1)
				}
				for _, r := range w.replicas {
					if r.pending != nil && w.random.IntN(3) == 0 {
						w.end(r)
					}
					if w.random.IntN(3) == 0 {
						w.obey(r)
					}
				}
			}
			all := min(float64(asked), float64(test.limit.Burst)+test.limit.QPS*seconds)
			rest := 0.0
			w.state.advance(w.replicas[0].clock.at(w.now))
			rest += w.state.level()
			for _, r := range w.replicas {
				rest += r.extra + r.left(w.now)
			}
			t.Logf("%v of %v admitted, %d transactions, %.1f per thousand requests", w.admitted, all, w.transactions, 1000*float64(w.transactions)/float64(asked))
			if w.admitted+rest < all*0.99 {
				t.Errorf("%v were admitted, and %v are left of %v", w.admitted, rest, all)
			}
			if each := w.admitted / float64(w.transactions); each < test.each {
				t.Errorf("a transaction for each %.1f admitted requests, want %v", each, test.each)
			}
		})
	}
}
