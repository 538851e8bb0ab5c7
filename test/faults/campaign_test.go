package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/test/history"
	"github.com/berth-project/berth/test/views"
)

// perRound is how many faults there are before histories are checked, and begin anew.
const perRound = 25

// selectors are those of the watchers.
var selectors = []string{"", "", "half=a", "half=b", "half!=a", "half in (a,b)"}

// recoveries are times from the end of a fault to when all servers have written again, by kind.
type recoveries map[string][]time.Duration

func (r recoveries) String() string {
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "fault\tnumber\trecovery, p50\tmax\n")
	total := 0
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if all := slices.Sorted(slices.Values(r[name])); len(all) > 0 {
			total += len(all)
			fmt.Fprintf(table, "%s\t%d\t%v\t%v\n", name, len(all), all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond))
		}
	}
	fmt.Fprintf(table, "all\t%d\t\t\n", total)
	_ = table.Flush() // a buffer takes it
	return text.String()
}

// deck deals the kinds by turns, each time in another order.
type deck[S any] struct {
	random *rand.Rand
	all    []kind[S]
	left   []kind[S]
}

// newDeck has the kinds of a plan without those that this machine cannot have.
func newDeck[S any](t *testing.T, p plan, all []kind[S], stream uint64) *deck[S] {
	t.Helper()
	d := &deck[S]{random: rand.New(rand.NewPCG(p.seed, stream))}
	for _, k := range all {
		switch {
		case p.kinds != "" && !slices.Contains(strings.Split(p.kinds, ","), k.name):
		case p.faults == 0 && k.slow:
		case k.needs != nil && !k.needs():
			t.Logf("left out, since this machine or this run cannot do it: %s", k.name)
		default:
			d.all = append(d.all, k)
		}
	}
	if len(d.all) == 0 {
		t.Skip("there is none of the kinds")
	}
	return d
}

func (d *deck[S]) next() kind[S] {
	if len(d.left) == 0 {
		d.left = slices.Clone(d.all)
		d.random.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	k := d.left[0]
	d.left = d.left[1:]
	return k
}

// campaign is a number of faults of one system.
type campaign struct {
	*answers
	plan      plan
	servers   []*server
	processes []*process // that faults may end
	seed      uint64
	times     recoveries
	watches   map[int]int // ends of watches by their codes
	// mirrored and derived are how many revisions had Endpoints with mirrors, and Endpoints made of slices.
	mirrored, derived int
}

func newCampaign(p plan, token *atomic.Pointer[string], rotating *atomic.Bool, servers ...*server) *campaign {
	return &campaign{&answers{token: token, rotating: rotating, codes: map[int]int{}}, p, servers, nil, p.seed, recoveries{}, map[int]int{}, 0, 0}
}

// report logs what happened, and how to make it happen again if it should not have.
func (c *campaign) report(t *testing.T) {
	t.Logf("answers: %s; watches ended: %v", c.answers.report(), c.watches)
	t.Logf("\n%s", c.times)
	t.Logf("Endpoints were mirrored in %d revisions, and made of slices in %d", c.mirrored, c.derived)
	for _, err := range c.undocumented {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("to repeat it: cd test/faults && go test -v -run 'TestCluster|TestEmbedded' -args -clocks=%t %v", *clocks, c.plan)
	}
}

// round has clients use a new collection while some faults happen, and checks what they saw. record
// returns what became of the collection up to a version, and all events since the clients began.
func (c *campaign) round(t *testing.T, namespace string, count int, fault func(), record func(last int64) (history.History, []storage.Event)) {
	t.Helper()
	l := newLoad(c.answers, c.servers, namespace, c.seed)
	l.beginViews(t)
	writeCtx, endWrites := context.WithCancel(t.Context())
	defer endWrites()
	watchCtx, endWatches := context.WithCancel(t.Context())
	defer endWatches()
	var writing, watching sync.WaitGroup
	for i := range writers {
		writing.Go(func() { l.write(writeCtx, i) })
	}
	for i := range viewWriters {
		writing.Go(func() { l.writeViews(writeCtx, i) })
	}
	var all []*watcher
	for i, selector := range selectors {
		w := &watcher{load: l, selector: selector}
		all = append(all, w)
		watching.Go(func() { w.watch(watchCtx, i) })
	}
	for range count {
		fault()
	}
	endWrites()
	writing.Wait()
	last := l.finish(t)
	late := time.AfterFunc(patience, endWatches)
	watching.Wait()
	late.Stop()

	changes, events := record(last)
	checker := views.NewChecker()
	found, began := append(l.verify(changes), checker.Check(events)...), 0
	if checker.Mirrored == 0 || checker.Derived == 0 {
		t.Error("no views were checked")
	}
	c.mirrored, c.derived = c.mirrored+checker.Mirrored, c.derived+checker.Derived
	for _, w := range all {
		found = append(found, w.verify(changes)...)
		began += len(w.runs)
	}
	for code, n := range l.watches {
		c.watches[code] += n
	}
	for _, err := range found {
		t.Errorf("%s: %v", namespace, err)
	}
	t.Logf("%s: %d changes; %d watchers began %d times", namespace, len(changes), len(all), began)
}

// fault makes a fault happen for a while, and waits until all servers write again.
func fault[S any](t *testing.T, c *campaign, system S, d *deck[S]) {
	t.Helper()
	k := d.next()
	heal := k.inject(t, system, d.random)
	<-time.After(c.plan.length(d.random))
	began := time.Now()
	if heal != nil {
		heal()
	}
	c.recover(t)
	for _, p := range c.processes {
		p.revive(t)
		p.mayEnd = false
	}
	took := time.Since(began)
	c.rotating.Store(false)
	c.times[k.name] = append(c.times[k.name], took)
	t.Logf("%s: recovered in %v", k.name, took.Round(time.Millisecond))
}

// recover waits until every server has written.
func (c *campaign) recover(t *testing.T) {
	t.Helper()
	for _, s := range c.servers {
		object := corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "probe", Annotations: map[string]string{"at": time.Now().String()}}}
		await(t, s.name+" writes", func(ctx context.Context) error {
			for _, p := range c.processes {
				p.revive(t)
			}
			code, _ := c.send(ctx, s, http.MethodPut, "/api/v1/namespaces/default/endpoints/probe?timeout=1s", object)
			if code != http.StatusOK && code != http.StatusCreated {
				return fmt.Errorf("it answers with %d", code)
			}
			return nil
		})
	}
}

// namespaces creates those of a round, of which that of the collection comes last.
func (c *campaign) namespaces(t *testing.T, name string) {
	t.Helper()
	for _, name := range []string{name + viewsOf, name} {
		object := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		await(t, "there is a namespace", func(ctx context.Context) error {
			if code, _ := c.send(ctx, c.servers[0], http.MethodPost, "/api/v1/namespaces", object); code != http.StatusCreated && code != http.StatusConflict {
				return fmt.Errorf("its creation is answered with %d", code)
			}
			return nil
		})
	}
}

// finish writes what ends every watch: an object that is in both halves, one after the other. It
// returns the version of its last state.
func (l *load) finish(t *testing.T) (version int64) {
	for i, half := range []string{"a", "b"} {
		await(t, "the last object is written", func(ctx context.Context) error {
			object, ok := l.one(ctx, writers, l.servers[i%len(l.servers)], endName, half, call{verb: replace, tag: fmt.Sprint("end/", i)}, corev1.Endpoints{})
			if !ok {
				return errors.New("it is not")
			}
			_, err := fmt.Sscan(object.ResourceVersion, &version)
			return err
		})
	}
	return version
}
