// Package attack lets one client attack the real server while another one works beside it.
// The short form of each attack is part of `go test`; `make attack` runs the long ones and
// prints a table of the results.
package attack

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/berth-project/berth/test/harness"
)

var long = flag.Bool("long", false, "run each attack for longer, on a server of its own, and hold it to every bar")

// The bars that every attack is held to.
const (
	minSuccess = 0.99
	maxPeak    = 600 << 20
	maxBefore  = 400 << 20 // of what earlier attacks have left
	// Only the long form is held to these: the short one shares slow cores with other tests.
	maxSlower = 50 * time.Millisecond // beside twice the latency without an attack
	maxAfter  = 150 << 20             // above the memory before the attack
	recovery  = 30 * time.Second
)

// shortAttack leaves the victim time for each kind of its requests; all attacks together are
// to take about a minute.
const shortAttack = 300 * time.Millisecond

// attack is what one client does to the server, with an ordinary token or with none.
type attack struct {
	name string
	// crowd is whether it needs the namespace crowd.
	crowd bool
	// prepare makes what else it needs, before the victim is watched; nil: nothing.
	prepare func(*attacker)
	// run attacks until the attacker's context is done.
	run func(*attacker)
	// short is how long the short form takes, if more than shortAttack.
	short time.Duration
	// near attacks from the victim's address, else it comes from another one.
	near bool
}

// groups are all attacks, by what they are aimed at.
var groups = []struct {
	name    string
	attacks []attack
}{
	{"lists", lists},
	{"bodies", bodies},
	{"patches", patches},
	{"stored", stored},
	{"watches", watches},
	{"unauthenticated", unauthenticated},
	{"connections", connections},
	{"streams", streams},
}

// TestAttack runs every attack beside a victim: an ordinary user and an administrator who
// work as always, and must not notice it.
func TestAttack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	binary := harness.Build(t, false) // the race detector's memory is not the server's
	attacker := startAttacker(t)
	if *long {
		fmt.Fprint(os.Stdout, tableHead)
	}
	for i := range groups {
		t.Run(groups[i].name, func(t *testing.T) { runGroup(t, binary, attacker, i) })
	}
}

// runGroup runs the attacks of a group: the short forms on one server, the long ones each on a
// server of its own.
func runGroup(t *testing.T, binary string, attacker *process, group int) {
	var shared *server
	if !*long {
		shared = startServer(t, binary)
	}
	for i := range groups[group].attacks {
		t.Run(groups[group].attacks[i].name, func(t *testing.T) {
			s := shared
			if *long {
				s = startServer(t, binary)
			}
			r := s.suffer(t, attacker, s.newOrders(group, i))
			if *long {
				fmt.Fprint(os.Stdout, r.row())
			}
		})
	}
}

// suffer runs an attack against the server and checks what comes of it.
func (s *server) suffer(t *testing.T, attacker *process, o orders) *result {
	a := o.attack()
	aloneFor, attackedFor := time.Duration(0), max(a.short, shortAttack)
	if *long {
		aloneFor, attackedFor = 3*time.Second, 10*time.Second
	}
	s.prepare(t, o)
	s.warmUp(t)
	// An attack answers for its own memory: within seconds the server gives back what others have left.
	r := &result{name: a.name, idle: s.settle(t, maxBefore)}
	r.alone = s.victimFor(t, aloneFor, func(context.Context) {}) // only the long form looks at it
	s.resetPeak(t)
	r.attacked = s.victimFor(t, attackedFor, func(ctx context.Context) { r.answers = attacker.attack(ctx, t, o) })
	s.clean(t, o.Namespace)
	if *long {
		r.after = s.settle(t, r.idle+maxAfter)
	}
	// Of an attack that has ended the server may not have seen the end yet.
	r.peak = s.memory(t, "VmHWM")
	r.check(t)
	return r
}

// prepare makes the attacker's namespace and what else its attack needs.
func (s *server) prepare(t *testing.T, o orders) {
	t.Helper()
	s.mustAdmin(t, http.StatusCreated, http.MethodPost, "/api/v1/namespaces", `{"metadata":{"name":"`+o.Namespace+`"}}`)
	if o.attack().crowd {
		s.fillCrowd(t)
	}
	if o.attack().prepare == nil {
		return
	}
	a, err := newAttacker(o)
	if err != nil {
		t.Fatal(err)
	}
	a.run(t.Context(), o.attack().prepare)
}

// result is what an attack came to.
type result struct {
	name              string
	alone, attacked   *sample
	idle, peak, after int64 // resident memory in bytes: before, at most, and 30 s after
	answers           string
}

func (r *result) check(t *testing.T) {
	t.Helper()
	if share := r.attacked.success(); share < minSuccess {
		t.Errorf("%.1f %% of the victim's requests succeeded, want %v %%: %s", 100*share, 100*minSuccess, r.attacked.failures())
	}
	if r.peak > maxPeak {
		t.Errorf("the server had %d MB at its peak, want at most %d MB", r.peak>>20, maxPeak>>20)
	}
	if !*long {
		return
	}
	if limit := 2*r.alone.p99() + maxSlower; r.attacked.p99() > limit {
		t.Errorf("the victim's p99 was %v, want at most %v", r.attacked.p99(), limit)
	}
	if r.after > r.idle+maxAfter {
		t.Errorf("%v later the server has %d MB, was %d MB before", recovery, r.after>>20, r.idle>>20)
	}
}

// The rows of the long form are a table of Markdown.
const tableHead = "| Attack | Victim's success | p99 alone | p99 attacked | Memory before | at most | after | The attacker's answers |\n" +
	"| --- | --- | --- | --- | --- | --- | --- | --- |\n"

func (r *result) row() string {
	return fmt.Sprintf("| %s | %.1f %% | %d ms | %d ms | %d MB | %d MB | %d MB | %s |\n", r.name, 100*r.attacked.success(),
		r.alone.p99().Milliseconds(), r.attacked.p99().Milliseconds(), r.idle>>20, r.peak>>20, r.after>>20, r.answers)
}
