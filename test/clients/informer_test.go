package clients

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// step is the annotation that counts the changes of an object from 1 on.
const step = "step"

func stepOf(object metav1.Object) int {
	n, _ := strconv.Atoi(object.GetAnnotations()[step]) // none is 0
	return n
}

// observer is the handler of an informer. It checks what an informer promises of each
// object: one add, then updates that follow each other, then at most one deletion.
type observer struct {
	mu     sync.Mutex
	known  map[string]*corev1.Endpoints
	latest map[string]int // step, of deleted objects, too
	gaps   int            // steps that were never seen
	faults []error
	more   chan struct{} // closed, and made anew, at each event
}

func newObserver() *observer {
	return &observer{known: map[string]*corev1.Endpoints{}, latest: map[string]int{}, more: make(chan struct{})}
}

func (o *observer) OnAdd(obj any, _ bool) {
	object := obj.(*corev1.Endpoints)
	o.observe(object, nil)
}

func (o *observer) OnUpdate(before, after any) {
	o.observe(after.(*corev1.Endpoints), before.(*corev1.Endpoints))
}

func (o *observer) OnDelete(obj any) {
	if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = unknown.Obj
	}
	object := obj.(*corev1.Endpoints)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known[object.Name] == nil {
		o.fault("%s was deleted, but not known", object.Name)
	}
	delete(o.known, object.Name)
	o.signal()
}

func (o *observer) observe(object, before *corev1.Endpoints) {
	o.mu.Lock()
	defer o.mu.Unlock()
	name, now, last := object.Name, stepOf(object), o.latest[object.Name]
	switch known := o.known[name]; {
	case (known == nil) != (before == nil):
		o.fault("%s: an add of what is known, or an update of what is not", name)
	case known != nil && known.ResourceVersion != before.ResourceVersion:
		o.fault("%s: an update from version %s, but it was at %s", name, before.ResourceVersion, known.ResourceVersion)
	case known != nil && object.ResourceVersion == before.ResourceVersion:
		return // an informer that has begun anew says again what is the same
	case now <= last:
		o.fault("%s: step %d came after step %d", name, now, last)
	}
	o.gaps += max(now-last-1, 0)
	o.known[name], o.latest[name] = object, now
	o.signal()
}

func (o *observer) fault(format string, args ...any) {
	o.faults = append(o.faults, fmt.Errorf(format, args...))
}

func (o *observer) signal() {
	close(o.more)
	o.more = make(chan struct{})
}

// waitFor waits until the objects that are known are just these, each at its step.
func (o *observer) waitFor(t *testing.T, want map[string]int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		o.mu.Lock()
		got, more := map[string]int{}, o.more
		for name, object := range o.known {
			got[name] = stepOf(object)
		}
		faults := o.faults
		o.mu.Unlock()
		if len(faults) > 0 {
			t.Fatal(errors.Join(faults...))
		}
		if fmt.Sprint(got) == fmt.Sprint(want) { // fmt sorts keys
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			t.Fatalf("the informer knows %v, want %v", got, want)
		}
	}
}

// runInformer runs a shared informer of the default namespace until the test ends.
func runInformer(t *testing.T, factory informers.SharedInformerFactory, handler cache.ResourceEventHandler) cache.SharedIndexInformer {
	t.Helper()
	informer := factory.Core().V1().Endpoints().Informer()
	if _, err := informer.AddEventHandler(handler); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	factory.StartWithContext(ctx)
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		t.Fatal("the informer does not fill")
	}
	return informer
}

// writer changes objects one step after the other, whatever happens to the server: a step
// whose outcome is unknown is looked up, so that each is taken exactly once.
type writer struct {
	client typedcorev1.EndpointsInterface
	steps  map[string]int
}

func (w *writer) advance(ctx context.Context, name string) error {
	next := w.steps[name] + 1
	var last error
	err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		last = w.attempt(ctx, name, next)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%s: step %d: %w", name, next, errors.Join(err, last))
	}
	w.steps[name] = next
	return nil
}

// attempt takes the step if it has not been taken.
func (w *writer) attempt(ctx context.Context, name string, next int) error {
	object, err := w.client.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		object = newEndpoints(name)
		metav1.SetMetaDataAnnotation(&object.ObjectMeta, step, strconv.Itoa(next))
		_, err = w.client.Create(ctx, object, metav1.CreateOptions{})
		return err
	case err != nil || stepOf(object) == next:
		return err
	}
	object.Annotations[step] = strconv.Itoa(next)
	_, err = w.client.Update(ctx, object, metav1.UpdateOptions{})
	return err
}

// remove deletes the object; one that is gone has been deleted.
func (w *writer) remove(t *testing.T, name string) {
	t.Helper()
	eventually(t, "delete "+name, func(ctx context.Context) error {
		if err := w.client.Delete(ctx, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	})
	delete(w.steps, name)
}

// A shared informer and a RetryWatcher go on where they were when the server comes back,
// after an orderly end and after a violent one, while a writer goes on writing. The
// RetryWatcher, which never lists, must see every single change.
func TestInformerSurvivesRestarts(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	client := server.client(t)
	endpoints := client.CoreV1().Endpoints(metav1.NamespaceDefault)
	seen := newObserver()
	runInformer(t, informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(metav1.NamespaceDefault)), seen)
	list, err := endpoints.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	watching := &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
		return endpoints.Watch(ctx, opts)
	}}
	w, err := watchtools.NewRetryWatcherWithContext(t.Context(), list.ResourceVersion, watching)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()

	all := []string{"a", "b", "c", "d"}
	writing := &writer{client: endpoints, steps: map[string]int{}}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGKILL} {
		ctx, stop := context.WithCancel(t.Context())
		const before = 100 // steps, so that the server ends in the midst of them
		busy, done := make(chan struct{}), make(chan error, 1)
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				if i == before {
					close(busy)
				}
				// Within the test's time, not ctx's: a step is never left half-way.
				if err := writing.advance(t.Context(), all[i%len(all)]); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		select {
		case <-busy:
		case err := <-done:
			t.Fatal(err)
		}
		server.restart(t, signal)
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		seen.waitFor(t, writing.steps)
	}
	writing.remove(t, "a")
	seen.waitFor(t, writing.steps)
	expectEverySteps(t, w, writing.steps)
}

// expectEverySteps reads the watch until the deletion of "a", and checks that every step
// of every object came, once and in its order.
func expectEverySteps(t *testing.T, w watch.Interface, last map[string]int) {
	t.Helper()
	got := map[string]int{}
	for {
		event := nextEvent(t, w)
		object, ok := event.Object.(*corev1.Endpoints)
		if !ok {
			t.Fatalf("got event %s", describe(event))
		}
		if event.Type == watch.Deleted {
			break
		}
		if now := stepOf(object); now != got[object.Name]+1 {
			t.Fatalf("%s: step %d came after step %d", object.Name, now, got[object.Name])
		}
		got[object.Name]++
	}
	delete(got, "a")
	if fmt.Sprint(got) != fmt.Sprint(last) {
		t.Errorf("the watch saw %v, want %v", got, last)
	}
}

// gate is the way of a client to the server, which can be cut.
type gate struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cut {
		conn.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	g.conns = append(g.conns, conn)
	return conn, nil
}

func (g *gate) set(cut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = cut
	for _, conn := range g.conns {
		conn.Close()
	}
	g.conns = nil
}

// An informer that was cut off for so long that the changes it missed are compacted away
// starts anew, and its handler is told of the difference, no less and nothing twice.
func TestInformerSurvivesCompaction(t *testing.T) {
	t.Parallel()
	server := startServer(t, "--etcd-compaction-interval=300ms")
	endpoints := server.client(t).CoreV1().Endpoints(metav1.NamespaceDefault)
	writing := &writer{client: endpoints, steps: map[string]int{}}
	advance := func(names ...string) {
		for _, name := range names {
			if err := writing.advance(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	way := &gate{}
	config := server.config(t)
	config.Dial = way.dial
	seen := newObserver()
	informer := runInformer(t, informers.NewSharedInformerFactoryWithOptions(newClient(t, config), 0, informers.WithNamespace(metav1.NamespaceDefault)), seen)
	advance("kept", "kept", "changed", "deleted", "replaced")
	seen.waitFor(t, writing.steps)

	missed := informer.LastSyncResourceVersion()
	way.set(true)
	advance("changed", "changed", "new")
	writing.remove(t, "deleted")
	lastStep := writing.steps["replaced"]
	writing.remove(t, "replaced")
	writing.steps["replaced"] = lastStep
	advance("replaced")
	exact := metav1.ListOptions{ResourceVersion: missed, ResourceVersionMatch: metav1.ResourceVersionMatchExact}
	eventually(t, "the version that the informer had is not compacted away", func(ctx context.Context) error {
		if _, err := endpoints.List(ctx, exact); !apierrors.IsResourceExpired(err) {
			return fmt.Errorf("list: %w", err)
		}
		advance("changed") // compaction goes with the revisions
		return nil
	})
	server.restart(t, syscall.SIGTERM) // what it had in memory is gone, too
	old := openWatch(t, endpoints, metav1.ListOptions{ResourceVersion: missed})
	if event := nextEvent(t, old); event.Type != watch.Error || event.Object.(*metav1.Status).Code != 410 {
		t.Errorf("a watch from a compacted version: got %s, want 410", describe(event))
	}
	way.set(false)
	seen.waitFor(t, writing.steps)
	seen.mu.Lock()
	if seen.gaps == 0 {
		t.Error("the informer saw every step: it was not cut off")
	}
	seen.mu.Unlock()
	advance("kept", "new")
	seen.waitFor(t, writing.steps)
}
