package registry_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/resources/events"
	"github.com/berth-project/berth/pkg/registry/resources/pods"
)

// eventStores are a registry's stores of events: as they are stored, and the view of them.
type eventStores struct {
	*stores
	core, view *registry.Store
}

func newEventStores(t *testing.T, cfg registry.Config) *eventStores {
	t.Helper()
	if cfg.Storage == nil {
		cfg.Storage = shared.store
	}
	cfg.Resources = events.Resources()
	s := startStores(t, cfg)
	all := s.registry.Stores()
	return &eventStores{s, all[2], all[3]}
}

// newEvent returns an event with an annotation of so many bytes.
func newEvent(namespace, name string, bytes int) *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: name, Annotations: map[string]string{"a": strings.Repeat("x", bytes)}},
		InvolvedObject: corev1.ObjectReference{Kind: "Service", Namespace: namespace, Name: "web"}, Reason: "R", Message: "m",
	}
}

// event waits for the next event of a watch.
func event(t *testing.T, next func() ([]object.Event, error, bool)) object.Event {
	t.Helper()
	all, err, ok := next()
	if err != nil || !ok || len(all) != 1 {
		t.Fatalf("got %v, %v, %t", all, err, ok)
	}
	return all[0]
}

// What is written in one version is read, listed, selected and watched in the other, under one key.
func TestView(t *testing.T) {
	t.Parallel()
	s := newEventStores(t, registry.Config{})
	ns := s.newNamespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	created, _, err := s.core.Create(ctx, ns, newEvent(ns, "e", 1), createOptions())
	if err != nil {
		t.Fatal(err)
	}
	shown, err := s.view.Get(ctx, ns, "e", &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.view.Get(ctx, ns, "e", &metav1.GetOptions{}); err != nil || again != shown {
		t.Errorf("it is shown twice (%v)", err)
	}
	got := typed[*eventsv1.Event](t, shown)
	if got.Note != "m" || got.Regarding.Name != "web" || got.ResourceVersion != formatRevision(created.Revision) || got.Kind != "Event" || got.APIVersion != "events.k8s.io/v1" ||
		got.SelfLink != "/apis/events.k8s.io/v1/namespaces/"+ns+"/events/e" {
		t.Errorf("got %+v", got)
	}

	list, _, err := s.view.List(ctx, ns, &metav1.ListOptions{FieldSelector: "regarding.name=web,reason=R"})
	if err != nil || len(list.Objects) != 1 || list.Objects[0] != shown {
		t.Errorf("the list is %v (%v)", list, err)
	}
	_, _, err = s.view.List(ctx, ns, &metav1.ListOptions{FieldSelector: "involvedObject.name=web"})
	checkStatus(t, err, 400, "field label not supported: involvedObject.name")

	next := pull(ctx, t, s.view, ns)
	if e := event(t, next); e.Type != watch.Added || e.Object != shown {
		t.Errorf("the watch begins with %+v", e)
	}
	patched, _, err := patched(ctx, s.view, ns, "e", "", types.StrategicMergePatchType, []byte(`{"series":{"count":2,"lastObservedTime":"2026-11-26T14:00:00.000000Z"}}`), patchOptions())
	if err != nil {
		t.Fatal(err)
	}
	if e := event(t, next); e.Type != watch.Modified || typed[*eventsv1.Event](t, e.Object).Series.Count != 2 {
		t.Errorf("the watch goes on with %+v", e)
	}
	core, err := s.core.Get(ctx, ns, "e", &metav1.GetOptions{})
	if err != nil || typed[*corev1.Event](t, core).Series.Count != 2 || core.Revision != patched.Revision {
		t.Errorf("the other version is %v (%v)", core, err)
	}
	if value := string(stored(t, "/registry/events/"+ns+"/e").Value); !strings.HasPrefix(value, `{"kind":"Event","apiVersion":"v1",`) || !strings.Contains(value, `"selfLink":"/api/v1/namespaces/`+ns+`/events/e"`) {
		t.Errorf("it is stored as %s", value)
	}

	_, status, err := s.view.Delete(ctx, ns, "e", &metav1.DeleteOptions{})
	if err != nil || status.Details.Group != "events.k8s.io" {
		t.Errorf("the deletion is answered with %v (%v)", status, err)
	}
	if e := event(t, next); e.Type != watch.Deleted || typed[*eventsv1.Event](t, e.Object).Note != "m" {
		t.Errorf("the watch ends with %+v", e)
	}
	_, err = s.core.Get(ctx, ns, "e", &metav1.GetOptions{})
	checkStatus(t, err, 404, `events "e" not found`)
}

// pull returns what waits for the next events of a watch that begins with what is there.
func pull(ctx context.Context, t *testing.T, s *registry.Store, namespace string) func() ([]object.Event, error, bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	sequence, _, err := s.Watch(ctx, namespace, &metav1.ListOptions{})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	batches := make(chan []object.Event)
	failures := make(chan error, 1)
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for all, err := range sequence {
			if err != nil {
				failures <- err
				return
			}
			for i := range all {
				select {
				case batches <- []object.Event{all[i]}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return func() ([]object.Event, error, bool) {
		select {
		case all := <-batches:
			return all, nil, true
		case err := <-failures:
			return nil, err, false
		case <-ctx.Done():
			return nil, ctx.Err(), false
		}
	}
}

// A view writes, dry runs included, as its owner does, and its faults name what is stored.
func TestViewWrites(t *testing.T) {
	t.Parallel()
	s := newEventStores(t, registry.Config{})
	ns := s.newNamespace(t)
	fresh := func() *eventsv1.Event {
		return &eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: "e"}, EventTime: metav1.NowMicro(), Type: "Normal", Reason: "R", Action: "A",
			ReportingController: "c", ReportingInstance: "i", Regarding: corev1.ObjectReference{Namespace: ns, Name: "web"},
		}
	}
	if created, _, err := s.view.Create(t.Context(), ns, fresh(), dryRun()); err != nil || typed[*eventsv1.Event](t, created).UID == "" || created.Revision != 0 {
		t.Errorf("a dry run returns %v (%v)", created, err)
	}
	if stored(t, "/registry/events/"+ns+"/e") != nil {
		t.Error("a dry run has stored it")
	}
	created, _, err := s.view.Create(t.Context(), ns, fresh(), createOptions())
	if err != nil {
		t.Fatal(err)
	}
	again := fresh()
	again.EventTime = typed[*eventsv1.Event](t, created).EventTime
	updated, _, _, err := s.view.Update(t.Context(), ns, "e", "", again, &metav1.UpdateOptions{FieldManager: "test"})
	if err != nil || updated.Revision != created.Revision {
		t.Errorf("an update that changes nothing has revision %d, want %d (%v)", updated.Revision, created.Revision, err)
	}
	changed := fresh()
	changed.Reason = "Other"
	_, _, _, err = s.view.Update(t.Context(), ns, "e", "", changed, &metav1.UpdateOptions{FieldManager: "test"})
	if status := checkStatus(t, err, 422, `Event "e" is invalid`); status.Details.Group != "" {
		t.Errorf("details %+v", status.Details)
	}
	applied, _, err := patched(t.Context(), s.view, ns, "e", "", types.ApplyPatchType, []byte(`{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"e","labels":{"a":"b"}}}`),
		&metav1.PatchOptions{FieldManager: "applier"})
	if err != nil || typed[*eventsv1.Event](t, applied).Labels["a"] != "b" {
		t.Errorf("an apply returns %v (%v)", applied, err)
	}
}

// An apply that is no object by itself meets one that the cache does not have yet.
func TestApplyBeforeTheCacheKnows(t *testing.T) {
	t.Parallel()
	held := &heldWatches{Interface: shared.store}
	s := newEventStores(t, registry.Config{Storage: held})
	ns := s.newNamespace(t)
	config := []byte(`{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"e","labels":{"a":"b"}}}`)
	opts := &metav1.PatchOptions{FieldManager: "applier"}
	_, _, err := patched(t.Context(), s.view, ns, "e", "", types.ApplyPatchType, config, opts)
	checkStatus(t, err, 422, "eventTime: Required value")
	held.mu.Lock()
	defer held.mu.Unlock()
	if _, _, err := s.core.Create(t.Context(), ns, newEvent(ns, "e", 1), createOptions()); err != nil {
		t.Fatal(err)
	}
	if applied, created, err := patched(t.Context(), s.view, ns, "e", "", types.ApplyPatchType, config, opts); err != nil || created || typed[*eventsv1.Event](t, applied).Note != "m" {
		t.Errorf("got %v, %t, %v", applied, created, err)
	}
}

// Objects with a lifetime go by themselves, after the last write in either version.
func TestLifetime(t *testing.T) {
	t.Parallel()
	s := newEventStores(t, registry.Config{Lifetimes: map[schema.GroupResource]time.Duration{{Resource: "events"}: time.Second}})
	ns := s.newNamespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	start := time.Now()
	if _, _, err := s.core.Create(ctx, ns, newEvent(ns, "e", 1), createOptions()); err != nil {
		t.Fatal(err)
	}
	next := pull(ctx, t, s.view, ns)
	event(t, next)
	if _, _, err := patched(ctx, s.view, ns, "e", "", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), patchOptions()); err != nil {
		t.Fatal(err)
	}
	event(t, next)
	if e := event(t, next); e.Type != watch.Deleted || time.Since(start) < time.Second {
		t.Errorf("after %v there is %+v", time.Since(start), e)
	}
}

// What others make by the way takes its share of what may be stored, and a namespace its part of
// that, and leaves the rest to all else.
func TestShare(t *testing.T) {
	t.Parallel()
	store, _ := newOwnStorage(t)
	const limit = 800_000 // 100,000 for events, 25,000 for those of a namespace once there are 50,000
	s := newEventStores(t, registry.Config{Storage: store, MaxStoredBytes: limit})
	one, two := s.newNamespace(t), s.newNamespace(t)
	fill := func(namespace string) (n int, err error) {
		for ; ; n++ {
			obj := newEvent(namespace, fmt.Sprint("e", n), 9_000)
			if _, _, err := s.core.Create(t.Context(), namespace, obj, createOptions()); err != nil {
				return n, err
			}
			eventually(t, "the cache has it", func() bool {
				_, err := s.core.Get(t.Context(), namespace, obj.Name, &metav1.GetOptions{ResourceVersion: "0"})
				return err == nil
			})
		}
	}
	first, err := fill(one)
	checkStatus(t, err, 503, `the stored events in the namespace "`+one+`" take`)
	if first < 5 || first > 7 || !registry.IsNoRoom(err) {
		t.Errorf("a namespace has %d events (%v)", first, err)
	}
	second, err := fill(two)
	if err == nil || second != 2 {
		t.Errorf("another one has %d (%v)", second, err)
	}
	if _, _, err := s.view.Create(t.Context(), one, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "view"}, EventTime: metav1.NowMicro(), Type: "Normal", Reason: "R", Action: "A",
		ReportingController: "c", ReportingInstance: "i", Regarding: corev1.ObjectReference{Namespace: one},
	}, createOptions()); !registry.IsNoRoom(err) {
		t.Errorf("the view has more room: %v", err)
	}
	s.create(t, one, annotated("large", 200_000))
	if got := s.registry.StoredBytes(); got > limit {
		t.Errorf("%d bytes are stored", got)
	}
	if _, _, err := s.core.Delete(t.Context(), one, "e0", &metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// A kind without objects can be listed and watched, and says why none is taken.
func TestNoObjects(t *testing.T) {
	t.Parallel()
	s := startStores(t, registry.Config{Storage: shared.store, Resources: []*registry.Resource{pods.Resource()}})
	store, ns := s.registry.Stores()[2], s.newNamespace(t)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
	_, _, err := store.Create(t.Context(), ns, pod, createOptions())
	checkStatus(t, err, 405, "this server runs no pods")
	_, _, err = patched(t.Context(), store, ns, "p", "", types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}`), &metav1.PatchOptions{FieldManager: "a"})
	checkStatus(t, err, 405, "this server runs no pods")
	_, _, _, err = store.Update(t.Context(), ns, "p", "", pod.DeepCopy(), &metav1.UpdateOptions{FieldManager: "test"})
	checkStatus(t, err, 404, `pods "p" not found`)

	// Another program has stored one.
	put(t, "/registry/pods/"+ns+"/p", []byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":"`+ns+`"},"status":{"phase":"Running"}}`))
	var list *object.List
	eventually(t, "the pod is listed", func() bool {
		list, _, err = store.List(t.Context(), ns, &metav1.ListOptions{FieldSelector: "status.phase=Running"})
		return err == nil && len(list.Objects) == 1
	})
	deleted, status, err := store.Delete(t.Context(), ns, "p", &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil || status != nil || deleted != list.Objects[0] {
		t.Errorf("a dry run of its deletion returns %v, %v, %v", deleted, status, err)
	}
	deleted, status, err = store.Delete(t.Context(), ns, "p", &metav1.DeleteOptions{})
	if err != nil || status != nil || deleted == nil || deleted.Revision <= list.Objects[0].Revision {
		t.Errorf("its deletion returns %v, %v, %v", deleted, status, err)
	}
	if diff := cmp.Diff("Running", string(typed[*corev1.Pod](t, deleted).Status.Phase)); diff != "" {
		t.Error(diff)
	}
}
