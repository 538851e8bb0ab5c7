package clients

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// The tests of this file follow test/e2e/apimachinery/watchlist.go.

// streamingList is how a client asks for a list as a watch.
func streamingList() metav1.ListOptions {
	return metav1.ListOptions{
		SendInitialEvents: new(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true,
	}
}

// expectInitial reads the initial events up to the bookmark that ends them, and returns
// the bookmark's version.
func expectInitial(t *testing.T, w watch.Interface, want ...string) string {
	t.Helper()
	got := []string{}
	for {
		event := nextEvent(t, w)
		object, ok := event.Object.(metav1.Object)
		if !ok {
			t.Fatalf("got event %s among the initial ones", describe(event))
		}
		if event.Type == watch.Bookmark {
			if object.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" {
				t.Errorf("the bookmark does not say that it ends the initial events: %v", object.GetAnnotations())
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("initial events (-want +got):\n%s", diff)
			}
			return object.GetResourceVersion()
		}
		got = append(got, string(event.Type)+" "+object.GetName())
	}
}

// “API Streaming (aka. WatchList) should be requested when ListFromWatch is used”: what
// was there, a bookmark, and then what happens; without the list's version nothing is
// older than the request.
func TestWatchList(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	mustCreate(t, endpoints, newEndpoints("a", "app", "x"))
	mustCreate(t, endpoints, newEndpoints("b", "app", "y"))
	opts := streamingList()
	opts.LabelSelector = "app in (x,y)"
	w := openWatch(t, endpoints, opts)
	version := expectInitial(t, w, "ADDED a", "ADDED b")
	updated := patchAnnotation(t, endpoints, "a", "1")
	expectEvent(t, w, watch.Modified, "a", updated)

	// From the bookmark another watch goes on.
	next := openWatch(t, endpoints, metav1.ListOptions{ResourceVersion: version})
	expectEvent(t, next, watch.Modified, "a", updated)

	opts.LabelSelector = "app=z"
	empty := openWatch(t, endpoints, opts)
	expectInitial(t, empty)
	created := mustCreate(t, endpoints, newEndpoints("c", "app", "z"))
	expectEvent(t, empty, watch.Added, "c", created.ResourceVersion)

	// The events of what was there are left out on request.
	none := streamingList()
	none.SendInitialEvents = new(false)
	none.ResourceVersion = version
	later := openWatch(t, endpoints, none)
	expectEvent(t, later, watch.Modified, "a", updated)
}

// A streaming list of metadata alone, as the metadata client's informers ask for it.
func TestWatchListOfMetadata(t *testing.T) {
	t.Parallel()
	_, namespace, endpoints := sharedNamespace(t)
	mustCreate(t, endpoints, newEndpoints("a"))
	client, err := metadata.NewForConfig(shared.config(t))
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.Resource(endpointsResource).Namespace(namespace).Watch(t.Context(), streamingList())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	expectInitial(t, w, "ADDED a")
}

// A streaming list in protobuf.
func TestWatchListInProtobuf(t *testing.T) {
	t.Parallel()
	client := newClient(t, protobuf(shared.config(t)))
	endpoints := client.CoreV1().Endpoints(makeNamespace(t, client))
	mustCreate(t, endpoints, newEndpoints("a"))
	w := openWatch(t, endpoints, streamingList())
	expectInitial(t, w, "ADDED a")
}

// “API Streaming (aka. WatchList) should be requested by informers when WatchListClient is
// enabled”, and the old way, where it is not.
func TestReflectorModes(t *testing.T) {
	t.Parallel()
	for name, streams := range map[string]bool{"streaming list": true, "list and watch": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, endpoints := sharedNamespace(t)
			mustCreate(t, endpoints, newEndpoints("before"))
			source := &recordedSource{client: endpoints, refuseStreams: !streams}
			_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
				ListerWatcher: source.listWatch(), ObjectType: &corev1.Endpoints{}, Handler: cache.ResourceEventHandlerFuncs{},
			})
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); informer.RunWithContext(ctx) }()
			t.Cleanup(func() { cancel(); <-done })
			if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
				t.Fatal("the informer does not fill")
			}
			lists, streamed := source.counts()
			if streams && (lists != 0 || streamed != 1) || !streams && lists == 0 {
				t.Errorf("the informer made %d lists and %d streaming lists", lists, streamed)
			}
		})
	}
}

// recordedSource is the source of an informer that counts how it is asked.
type recordedSource struct {
	client        typedcorev1.EndpointsInterface
	refuseStreams bool

	mu             sync.Mutex
	lists, streams int
}

func (s *recordedSource) counts() (lists, streams int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists, s.streams
}

func (s *recordedSource) listWatch() cache.ListerWatcher {
	listWatch := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			s.mu.Lock()
			s.lists++
			s.mu.Unlock()
			return s.client.List(ctx, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			s.mu.Lock()
			if opts.SendInitialEvents != nil && *opts.SendInitialEvents {
				s.streams++
			}
			s.mu.Unlock()
			return s.client.Watch(ctx, opts)
		},
	}
	if s.refuseStreams {
		return noStreams{listWatch}
	}
	return listWatch
}

// noStreams tells a reflector to list and watch.
type noStreams struct{ *cache.ListWatch }

func (noStreams) IsWatchListSemanticsUnSupported() bool { return true }

// “API Streaming (aka. WatchList) server supports sending resources in Table format”.
func TestWatchTable(t *testing.T) {
	t.Parallel()
	client, namespace, endpoints := sharedNamespace(t)
	mustCreate(t, endpoints, newEndpoints("a"))
	opts := streamingList()
	opts.Watch = true
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("endpoints").
		VersionedParams(&opts, scheme.ParameterCodec).SetHeader("Accept", tableAccept).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	tables := json.NewDecoder(stream)
	first, bookmark := nextTable(t, tables), nextTable(t, tables)
	mustCreate(t, endpoints, newEndpoints("b"))
	second := nextTable(t, tables)
	if got := []string{first.Type, bookmark.Type, second.Type}; !slices.Equal(got, []string{"ADDED", "BOOKMARK", "ADDED"}) {
		t.Fatalf("got events %v", got)
	}
	if len(first.Object.ColumnDefinitions) != 3 || len(second.Object.ColumnDefinitions) != 0 {
		t.Errorf("the first event has %d columns and a later one %d, want 3 and none", len(first.Object.ColumnDefinitions), len(second.Object.ColumnDefinitions))
	}
	if got := second.Object.Rows[0].Cells[0]; got != "b" {
		t.Errorf("the row of a later event is of %v, want b", got)
	}
}
