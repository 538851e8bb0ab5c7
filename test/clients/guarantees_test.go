package clients

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/berth-project/berth/test/history"
)

const (
	// endName is the last object, and endWritten who made it what it is in the end: whoever
	// sees that, or sees it leave, has seen all.
	endName    = "end"
	endWritten = "end/1"
	// seedVariable is the environment variable that chooses another history.
	seedVariable = "BERTH_TEST_SEED"

	historyWriters = 12
	historyWrites  = 300 // attempts, by each writer
	historyNames   = 30
)

// historyRun is one random history while it comes into being.
type historyRun struct {
	seed    uint64
	clients []typedcorev1.EndpointsInterface // JSON and protobuf
	start   int64                            // version of the empty collection
	acked   atomic.Int64                     // the newest version that a writer has been told of

	mu      sync.Mutex
	written map[int64]history.State // by version: acknowledged creates and updates
	deleted map[types.UID]bool      // acknowledged deletions
	lists   map[int64][]listedState // by version
	faults  []error
}

type listedState struct {
	how   string
	state map[string]history.State
}

// random is the source of randomness of one actor: it depends on the seed and on who that
// is, not on what the others do.
func (r *historyRun) random(actor int) *rand.Rand {
	return rand.New(rand.NewPCG(r.seed, uint64(actor)))
}

func (r *historyRun) fault(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Errorf(format, args...))
}

// check fails the test with what went wrong so far.
func (r *historyRun) check(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.faults) > 0 {
		t.Fatal(errors.Join(r.faults...))
	}
}

func (r *historyRun) acknowledge(object *corev1.Endpoints) {
	version, err := strconv.ParseInt(object.ResourceVersion, 10, 64)
	if err != nil {
		r.fault("a write was answered with version %q", object.ResourceVersion)
		return
	}
	r.mu.Lock()
	if _, twice := r.written[version]; twice {
		r.faults = append(r.faults, fmt.Errorf("two writes were answered with version %d", version))
	}
	r.written[version] = history.StateOf(object)
	r.mu.Unlock()
	for {
		newest := r.acked.Load()
		if version <= newest || r.acked.CompareAndSwap(newest, version) {
			return
		}
	}
}

// write makes random writes. That another writer was faster is part of the game.
func (r *historyRun) write(ctx context.Context, writer int) {
	random := r.random(writer)
	client := r.clients[writer%len(r.clients)]
	for i := range historyWrites {
		object := newEndpoints(fmt.Sprintf("object-%02d", random.IntN(historyNames)), history.Half, []string{"a", "b"}[random.IntN(2)])
		metav1.SetMetaDataAnnotation(&object.ObjectMeta, history.WrittenBy, fmt.Sprintf("%d/%d", writer, i))
		err := r.writeOne(ctx, client, random.IntN(100), object)
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			r.fault("writer %d, write %d: %w", writer, i, err)
			return
		}
	}
}

// writeOne makes a write of the kind that choice, of 100, stands for.
func (r *historyRun) writeOne(ctx context.Context, client typedcorev1.EndpointsInterface, choice int, object *corev1.Endpoints) error {
	var written *corev1.Endpoints
	var err error
	switch {
	case choice < 20:
		written, err = client.Create(ctx, object, metav1.CreateOptions{})
	case choice < 50: // whatever is there, or nothing
		written, err = client.Update(ctx, object, metav1.UpdateOptions{})
	case choice < 70:
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q},"labels":{%q:%q}}}`, history.WrittenBy, object.Annotations[history.WrittenBy], history.Half, object.Labels[history.Half])
		written, err = client.Patch(ctx, object.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	default:
		read, readErr := client.Get(ctx, object.Name, metav1.GetOptions{})
		if readErr != nil {
			return readErr
		}
		if choice < 85 {
			object.ResourceVersion, object.UID = read.ResourceVersion, read.UID
			written, err = client.Update(ctx, object, metav1.UpdateOptions{})
			break
		}
		if err := client.Delete(ctx, read.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &read.UID}}); err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.deleted[read.UID] = true
		return nil
	}
	if err == nil {
		r.acknowledge(written)
	}
	return err
}

// finish writes what ends every watch: an object that is in both halves, one after the
// other.
func (r *historyRun) finish(ctx context.Context) {
	object := newEndpoints(endName)
	for i, in := range []string{"a", "b"} {
		object.Labels = map[string]string{history.Half: in}
		object.Annotations = map[string]string{history.WrittenBy: fmt.Sprintf("end/%d", i)}
		write := r.clients[0].Update // creates it the first time
		written, err := write(ctx, object, metav1.UpdateOptions{})
		if err != nil {
			r.fault("the last write: %w", err)
			return
		}
		r.acknowledge(written)
		object = written
	}
}

// list lists in random ways until ctx ends. A list without a version must be as new as
// every write that was acknowledged before.
func (r *historyRun) list(ctx context.Context, actor int) {
	random := r.random(actor)
	client := r.clients[actor%len(r.clients)]
	for ctx.Err() == nil {
		acked := r.acked.Load()
		opts := metav1.ListOptions{}
		how := "newest"
		switch random.IntN(4) {
		case 0:
			how, opts.ResourceVersion = "any", "0"
		case 1:
			how, opts.Limit = "in pages", 7
		case 2:
			how, opts.ResourceVersion, opts.ResourceVersionMatch = "exact", strconv.FormatInt(acked, 10), metav1.ResourceVersionMatchExact
		}
		version, all, err := listAll(ctx, client, opts)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.fault("list (%s): %w", how, err)
			return
		case how == "exact" && version != acked || how != "exact" && how != "any" && version < acked:
			r.fault("a list (%s) has version %d, but version %d was acknowledged before", how, version, acked)
		}
		r.mu.Lock()
		r.lists[version] = append(r.lists[version], listedState{how, all})
		r.mu.Unlock()
	}
}

// listAll follows a list to its last page.
func listAll(ctx context.Context, client typedcorev1.EndpointsInterface, opts metav1.ListOptions) (version int64, all map[string]history.State, err error) {
	all = map[string]history.State{}
	for {
		page, err := client.List(ctx, opts)
		if err != nil {
			return 0, nil, err
		}
		now, err := strconv.ParseInt(page.ResourceVersion, 10, 64)
		if err != nil || version != 0 && now != version {
			return 0, nil, fmt.Errorf("a page has version %q, the one before %d", page.ResourceVersion, version)
		}
		version = now
		for i := range page.Items {
			all[page.Items[i].Name] = history.StateOf(&page.Items[i])
		}
		if page.Continue == "" {
			return version, all, nil
		}
		opts.Continue = page.Continue
	}
}

// historyWatcher is one who watches all the time.
type historyWatcher struct {
	selector   string
	initial    bool  // begins with what is there, rather than at the start
	reconnects bool  // at random
	seconds    int64 // that a watch lives; 0: as long as it likes

	connections []history.Connection
}

// watch watches until it has seen the last object, and records what it sees.
func (r *historyRun) watch(ctx context.Context, actor int, w *historyWatcher) {
	random := r.random(actor)
	client := r.clients[actor%len(r.clients)]
	position, initial := r.start, w.initial
	if initial {
		position = 0
	}
	for {
		opts := metav1.ListOptions{LabelSelector: w.selector, AllowWatchBookmarks: true, ResourceVersion: strconv.FormatInt(position, 10)}
		if initial {
			opts.ResourceVersion, opts.SendInitialEvents, opts.ResourceVersionMatch = "", new(true), metav1.ResourceVersionMatchNotOlderThan
		}
		if w.seconds > 0 {
			opts.TimeoutSeconds = &w.seconds
		}
		most := -1
		if w.reconnects {
			most = 1 + random.IntN(200)
		}
		c := history.Connection{From: position, Initial: initial}
		ended, err := recordWatch(ctx, &c, client, opts, most)
		if len(c.Changes) > 0 {
			w.connections = append(w.connections, c)
		}
		if err != nil {
			r.fault("watcher %d: %w", actor, err)
		}
		if err != nil || ended {
			return
		}
		if n := len(c.Changes); n > 0 {
			position = c.Changes[n-1].Version
		}
		initial = initial && len(c.Changes) == 0
	}
}

// recordWatch records one watch, until it ends, has delivered most events (less than 0: no
// limit), or, which it reports, has come to the last object.
func recordWatch(ctx context.Context, c *history.Connection, client typedcorev1.EndpointsInterface, opts metav1.ListOptions, most int) (ended bool, err error) {
	w, err := client.Watch(ctx, opts)
	if err != nil {
		return false, err
	}
	defer w.Stop()
	complete := !c.Initial // an initial state cannot be resumed in its middle
	for !complete || most < 0 || len(c.Changes) < most {
		select {
		case event, open := <-w.ResultChan():
			if !open {
				return false, ctx.Err()
			}
			object, ok := event.Object.(*corev1.Endpoints)
			if !ok {
				return false, fmt.Errorf("event %s", describe(event))
			}
			version, err := strconv.ParseInt(object.ResourceVersion, 10, 64)
			if err != nil {
				return false, err
			}
			seen := history.Change{Event: event.Type, Version: version, State: history.StateOf(object)}
			if event.Type == watch.Bookmark {
				seen.State = history.State{}
				complete = true
			}
			c.Changes = append(c.Changes, seen)
			if object.Name == endName && (event.Type == watch.Deleted || seen.Written == endWritten) {
				return true, nil
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return false, nil
}

// Some thousand random writes by many writers, watched by many watchers, of whom some
// reconnect: all of them see the one history, and lists show its states. The properties
// are those of etcd's robustness tests (tests/robustness/validate/watch.go), at the level
// of the API, with the resourceVersion for the revision.
func TestWatchGuarantees(t *testing.T) {
	t.Parallel()
	r := newHistoryRun(t)
	ctx := testContext(t)
	watchers := []*historyWatcher{
		{}, {}, // one by JSON, one by protobuf; the first one's history is the measure
		{reconnects: true}, {reconnects: true}, {reconnects: true}, {reconnects: true},
		{seconds: 3}, {seconds: 4, selector: "half=a"},
		{selector: "half=a"}, {selector: "half=b", reconnects: true}, {selector: "half!=a"}, {selector: "half in (a,b)", reconnects: true},
		{initial: true}, {initial: true, selector: "half=a"}, {initial: true, reconnects: true}, {initial: true, selector: "half=b", reconnects: true},
	}
	var watching, writing, listing sync.WaitGroup
	for i, w := range watchers {
		watching.Go(func() { r.watch(ctx, 1000+i, w) })
	}
	listCtx, endLists := context.WithCancel(ctx)
	defer endLists()
	for i := range 2 {
		listing.Go(func() { r.list(listCtx, 2000+i) })
	}
	for i := range historyWriters {
		writing.Go(func() { r.write(ctx, i) })
	}
	writing.Wait()
	endLists()
	listing.Wait()
	r.finish(ctx)
	watching.Wait()
	r.check(t)

	all := history.History(watchers[0].connections[0].Changes).WithoutBookmarks()
	r.verifyHistory(t, all)
	for i, w := range watchers {
		selector, err := labels.Parse(w.selector)
		if err != nil {
			t.Fatal(err)
		}
		if err := history.Verify(all, selector, w.connections); err != nil {
			t.Errorf("watcher %d of %q: %v", i, w.selector, err)
		}
	}
	t.Logf("%d changes, %d lists", len(all), len(r.lists))
}

func newHistoryRun(t *testing.T) *historyRun {
	t.Helper()
	r := &historyRun{seed: 1, written: map[int64]history.State{}, deleted: map[types.UID]bool{}, lists: map[int64][]listedState{}}
	if value := os.Getenv(seedVariable); value != "" {
		var err error
		if r.seed, err = strconv.ParseUint(value, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
	}
	t.Logf("%s=%d", seedVariable, r.seed)
	_, namespace, endpoints := sharedNamespace(t)
	binary := newClient(t, protobuf(shared.config(t))).CoreV1().Endpoints(namespace)
	r.clients = []typedcorev1.EndpointsInterface{endpoints, binary}
	r.start = versionOf(t, currentVersion(t, endpoints))
	r.acked.Store(r.start)
	return r
}

// verifyHistory holds the history against what writers were told and what lists showed:
// everything that was acknowledged is in it, and nothing else.
func (r *historyRun) verifyHistory(t *testing.T, all history.History) {
	t.Helper()
	if err := all.Consistent(); err != nil {
		t.Error(err)
	}
	written, deleted := map[int64]history.State{}, map[types.UID]bool{}
	for _, c := range all {
		if c.Event == watch.Deleted {
			deleted[c.UID] = true
		} else {
			written[c.Version] = c.State
		}
	}
	if !maps.Equal(r.written, written) {
		t.Errorf("Reliable: %d writes were acknowledged, the watch saw %d", len(r.written), len(written))
	}
	if !maps.Equal(r.deleted, deleted) {
		t.Errorf("Reliable: %d deletions were acknowledged, the watch saw %d", len(r.deleted), len(deleted))
	}
	if len(written) < 1000 || len(deleted) < 50 || len(r.lists) < 10 {
		t.Errorf("%d writes, %d deletions and %d lists are too few to tell anything", len(written), len(deleted), len(r.lists))
	}
	for version, lists := range r.lists {
		want := all.At(version)
		for _, list := range lists {
			if !maps.Equal(want, list.state) {
				t.Errorf("Atomic: a list (%s) at %d shows %v, but the state was %v", list.how, version, list.state, want)
			}
		}
	}
}
