package registry_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// watching is a watch that is under way.
type watching struct {
	pull   func() ([]object.Event, error, bool)
	events []object.Event // come and not taken
	stop   func()
}

// startWatch begins a watch, which the test's end stops.
func startWatch(t testing.TB, s *registry.Store, namespace string, opts *metav1.ListOptions) *watching {
	t.Helper()
	return startWatchFor(t, 30*time.Second, s, namespace, opts)
}

// startWatchFor begins a watch that ends by itself after the time.
func startWatchFor(t testing.TB, life time.Duration, s *registry.Store, namespace string, opts *metav1.ListOptions) *watching {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), life)
	sequence, _, err := s.Watch(ctx, namespace, opts)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	pull, stop := iter.Pull2(sequence)
	w := &watching{pull: pull, stop: func() { cancel(); stop() }}
	t.Cleanup(w.stop)
	return w
}

// next returns the next event, or the error that ends the watch.
func (w *watching) next(t testing.TB) (object.Event, error) {
	t.Helper()
	if len(w.events) == 0 {
		events, err, ok := w.pull()
		if !ok {
			t.Fatal("the watch ended, or brought nothing for 30 s")
		}
		if err != nil {
			return object.Event{}, err
		}
		w.events = slices.Clone(events)
	}
	event := w.events[0]
	w.events = w.events[1:]
	return event, nil
}

// describe is an event in short: its type, and the name and version of its object.
func describe(t testing.TB, event object.Event) string {
	t.Helper()
	accessor, err := event.Object.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%s %s@%s", event.Type, accessor.GetName(), accessor.GetResourceVersion())
	if accessor.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
		text += " ends the initial events"
	}
	return text
}

// expect fails the test unless these are the next events, in this order.
func (w *watching) expect(t testing.TB, want ...string) {
	t.Helper()
	for i := range want {
		event, err := w.next(t)
		if err != nil {
			t.Fatalf("event %d: %v, want %s", i, err, want[i])
		}
		if got := describe(t, event); got != want[i] {
			t.Fatalf("event %d: %s, want %s", i, got, want[i])
		}
	}
}

// delete removes the object and returns the revision of its deletion.
func (s *stores) delete(t *testing.T, namespace, name string) string {
	t.Helper()
	key := s.endpoints.Key(namespace, name)
	before := stored(t, key).ModRevision
	if _, _, err := s.endpoints.Delete(t.Context(), namespace, name, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for response := range shared.db.Client().Watch(ctx, key, clientv3.WithRev(before+1)) {
		for _, event := range response.Events {
			if event.Type == clientv3.EventTypeDelete {
				return formatRevision(event.Kv.ModRevision)
			}
		}
	}
	t.Fatalf("etcd does not tell of the deletion of %s", key)
	return ""
}

func labelled(name, app string) *corev1.Endpoints {
	obj := newEndpoints(name)
	obj.Labels = map[string]string{"app": app}
	return obj
}

func TestWatchBegins(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	yes, no := true, false
	notOlder := metav1.ResourceVersionMatchNotOlderThan
	for name, tc := range map[string]struct {
		opts metav1.ListOptions
		at   string // "a" or "b": from that object's version
		want []string
	}{
		"without a version":          {metav1.ListOptions{}, "", []string{"ADDED a", "ADDED b"}},
		"with bookmarks":             {metav1.ListOptions{AllowWatchBookmarks: true}, "", []string{"ADDED a", "ADDED b", "BOOKMARK"}},
		"from zero":                  {metav1.ListOptions{ResourceVersion: "0"}, "", []string{"ADDED a", "ADDED b"}},
		"from a version":             {metav1.ListOptions{}, "a", []string{"ADDED b"}},
		"from the newest version":    {metav1.ListOptions{}, "b", nil},
		"without initial events":     {metav1.ListOptions{SendInitialEvents: &no, ResourceVersionMatch: notOlder, AllowWatchBookmarks: true}, "", nil},
		"streaming list":             {metav1.ListOptions{SendInitialEvents: &yes, ResourceVersionMatch: notOlder, AllowWatchBookmarks: true}, "", []string{"ADDED a", "ADDED b", "BOOKMARK"}},
		"streaming list by a name":   {metav1.ListOptions{SendInitialEvents: &yes, ResourceVersionMatch: notOlder, AllowWatchBookmarks: true, FieldSelector: "metadata.name=c"}, "", []string{"BOOKMARK"}},
		"streaming list at least as": {metav1.ListOptions{SendInitialEvents: &yes, ResourceVersionMatch: notOlder, AllowWatchBookmarks: true}, "b", []string{"ADDED a", "ADDED b", "BOOKMARK"}},
		"no bookmark wanted":         {metav1.ListOptions{SendInitialEvents: &yes, ResourceVersionMatch: notOlder}, "", []string{"ADDED a", "ADDED b"}},
	} {
		t.Run(name, func(t *testing.T) {
			ns := s.newNamespace(t)
			versions := map[string]string{"": tc.opts.ResourceVersion}
			for _, name := range []string{"a", "b"} {
				versions[name] = s.create(t, ns, newEndpoints(name)).ResourceVersion
			}
			tc.opts.ResourceVersion = versions[tc.at]
			if tc.opts.ResourceVersion == "0" { // whatever the cache has: let it have both
				if _, err := s.endpoints.Get(t.Context(), ns, "b", &metav1.GetOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			w := startWatch(t, s.endpoints, ns, &tc.opts)
			for _, want := range tc.want {
				event, err := w.next(t)
				if err != nil {
					t.Fatal(err)
				}
				got := describe(t, event)
				if kind, name, named := strings.Cut(want, " "); named && got != kind+" "+name+"@"+versions[name] ||
					!named && (!strings.HasPrefix(got, kind) || !strings.HasSuffix(got, "ends the initial events")) {
					t.Fatalf("got %s, want %s", got, want)
				}
			}
			after := s.create(t, ns, newEndpoints("c"))
			w.expect(t, "ADDED c@"+after.ResourceVersion)
		})
	}
}

// A watch from a version that is not there yet brings what comes after that version.
func TestWatchFromTheFuture(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	begin := storeRevision(t)
	future := startWatch(t, s.endpoints, ns, &metav1.ListOptions{ResourceVersion: formatRevision(begin + 30)})
	var want []string
	for i := 0; len(want) < 3; i++ {
		obj := s.create(t, ns, newEndpoints(fmt.Sprintf("e-%d", i)))
		if kv := stored(t, s.endpoints.Key(ns, obj.Name)); kv.ModRevision > begin+30 {
			want = append(want, "ADDED "+obj.Name+"@"+obj.ResourceVersion)
		}
	}
	future.expect(t, want...)
}

// A streaming list of a version that does not come ends with an error that says so.
func TestStreamingListOfAFutureVersion(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	yes := true
	w := startWatch(t, s.endpoints, s.newNamespace(t), &metav1.ListOptions{
		SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
		ResourceVersion: formatRevision(storeRevision(t) + 1_000_000),
	})
	_, err := w.next(t)
	checkStatus(t, err, 504, "Too large resource version")
	if _, _, ok := w.pull(); ok {
		t.Error("the watch goes on after its error")
	}
}

// A version whose events are gone is refused within the stream.
func TestWatchFromACompactedVersion(t *testing.T) {
	t.Parallel()
	s, db := newOwnStores(t)
	ns := s.newNamespace(t)
	old := s.create(t, ns, newEndpoints("a"))
	s.create(t, ns, newEndpoints("b"))
	s.create(t, ns, newEndpoints("c"))
	s.stop()
	compact(t, db)
	store, err := etcd.New(db.Client(), etcd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	again := newStores(t, store) // it has not seen what was compacted
	w := startWatch(t, again.endpoints, ns, &metav1.ListOptions{ResourceVersion: old.ResourceVersion})
	_, err = w.next(t)
	if status := checkStatus(t, err, 410, "too old resource version: "+old.ResourceVersion+" ("); status.Reason != metav1.StatusReasonExpired {
		t.Errorf("reason %s", status.Reason)
	}
}

// A watch ends with its context, and says nothing more.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ctx, cancel := context.WithCancel(t.Context())
	events, _, err := s.endpoints.Watch(ctx, s.newNamespace(t), &metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, cancel)
	for batch, err := range events {
		t.Errorf("got %v, %v", batch, err)
	}
}
