package consumers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// kind is a kind that is served.
type kind struct {
	name     string
	resource schema.GroupVersionResource
	// object is one to create, without name and namespace; nil if there never is any.
	object    map[string]any
	clustered bool // in no namespace
}

func core(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: resource}
}

func rbac(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: resource}
}

// kinds are all that is served and that informers may follow.
var kinds = []kind{
	{name: "Endpoints", resource: core("endpoints"), object: map[string]any{"subsets": []any{map[string]any{
		"addresses": []any{map[string]any{"ip": "10.0.0.1"}}, "ports": []any{map[string]any{"name": "http", "port": int64(80)}},
	}}}},
	{name: "Service", resource: core("services"), object: map[string]any{"spec": map[string]any{
		"clusterIP": "None", "ports": []any{map[string]any{"name": "http", "port": int64(80)}},
	}}},
	{name: "EndpointSlice", resource: schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}, object: map[string]any{
		"addressType": "IPv4", "endpoints": []any{map[string]any{"addresses": []any{"10.0.0.1"}}},
	}},
	{name: "Lease", resource: schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}, object: map[string]any{
		"spec": map[string]any{"holderIdentity": "a", "leaseDurationSeconds": int64(15)},
	}},
	{name: "Event", resource: core("events"), object: map[string]any{
		"involvedObject": map[string]any{"kind": "Service", "name": "web", "namespace": metav1.NamespaceDefault}, "reason": "Tested", "message": "it was", "type": "Normal",
	}},
	{name: "Namespace", resource: core("namespaces"), object: map[string]any{}, clustered: true},
	{name: "Role", resource: rbac("roles"), object: map[string]any{"rules": []any{}}},
	{name: "ClusterRole", resource: rbac("clusterroles"), object: map[string]any{"rules": []any{}}, clustered: true},
	{name: "RoleBinding", resource: rbac("rolebindings"), object: map[string]any{"roleRef": roleRef}},
	{name: "ClusterRoleBinding", resource: rbac("clusterrolebindings"), object: map[string]any{"roleRef": roleRef}, clustered: true},
	{name: "Pod", resource: core("pods")},
	{name: "Node", resource: core("nodes"), clustered: true},
}

var roleRef = map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}

// TestInformerFactory follows every kind with one factory, by streaming lists in protobuf. After each
// half of a thousand random changes, with a crash in the midst, each informer has what a list in
// JSON has.
func TestInformerFactory(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	factory, asked := startFactory(t, s)
	config := s.config(t)
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(httpClient.CloseIdleConnections)
	client, err := dynamic.NewForConfigAndClient(config, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	w := &randomWriter{client: client, random: rand.New(rand.NewPCG(1, 2)), stored: map[string]string{}}
	w.write(t, 500)
	expectLists(t, client, factory)
	w.write(t, 250)
	s.crash(t)
	w.write(t, 250)
	expectLists(t, client, factory)
	asked.check(t)
	proven.add("client-go", clientGoVersion(t), fmt.Sprintf("informers of %d kinds equal their lists after 1,000 changes and a crash", len(kinds)), nil)
}

// startFactory runs a factory with an informer of every kind until the test ends.
func startFactory(t *testing.T, s *server) (informers.SharedInformerFactory, *requests) {
	t.Helper()
	asked := &requests{}
	config := s.config(t)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &noting{next, asked} })
	factory := informers.NewSharedInformerFactory(newClient(t, config), 0)
	for _, kind := range kinds {
		informer, err := factory.ForResource(kind.resource)
		if err != nil {
			t.Fatal(err)
		}
		informer.Informer()
	}
	ctx, cancel := context.WithCancel(context.Background())
	factory.StartWithContext(ctx)
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	synced, late := context.WithTimeout(ctx, patience)
	defer late()
	for kind, ok := range factory.WaitForCacheSync(synced.Done()) {
		if !ok {
			t.Fatalf("%v does not sync", kind)
		}
	}
	return factory, asked
}

// requests are faults of what informers sent and were answered.
type requests struct {
	mu     sync.Mutex
	count  int
	faults []error
}

// noting takes note of requests that are not for streaming lists or watches, and of answers that are
// not protobuf.
type noting struct {
	next  http.RoundTripper
	asked *requests
}

func (n *noting) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := n.next.RoundTrip(req)
	n.asked.mu.Lock()
	defer n.asked.mu.Unlock()
	n.asked.count++
	if req.URL.Query().Get("watch") != "true" {
		n.asked.faults = append(n.asked.faults, fmt.Errorf("an informer asked for %s", req.URL))
	}
	if err == nil && resp.StatusCode == http.StatusOK && resp.Header.Get("Content-Type") != runtime.ContentTypeProtobuf+";stream=watch" {
		n.asked.faults = append(n.asked.faults, fmt.Errorf("%s is answered in %s", req.URL, resp.Header.Get("Content-Type")))
	}
	return resp, err
}

func (r *requests) check(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.faults) > 0 || r.count < len(kinds) {
		t.Errorf("%d requests: %v", r.count, errors.Join(r.faults...))
	}
}

// randomWriter creates, updates and deletes objects of all kinds at random.
type randomWriter struct {
	client dynamic.Interface
	random *rand.Rand
	stored map[string]string // names, by resource and number
	made   int
}

func (w *randomWriter) write(t *testing.T, changes int) {
	t.Helper()
	for done := 0; done < changes; {
		kind := kinds[w.random.IntN(len(kinds))]
		if kind.object == nil {
			continue
		}
		if err := w.change(t.Context(), kind); err != nil {
			t.Fatalf("%s: %v", kind.resource, err)
		}
		done++
	}
}

func (w *randomWriter) change(ctx context.Context, kind kind) error {
	var client dynamic.ResourceInterface = w.client.Resource(kind.resource)
	if !kind.clustered {
		client = w.client.Resource(kind.resource).Namespace(metav1.NamespaceDefault)
	}
	number := w.random.IntN(12)
	key := fmt.Sprintf("%s/%d", kind.resource, number)
	name, stored := w.stored[key]
	switch {
	case !stored:
		w.made++
		name = fmt.Sprintf("a-%d", number)
		if kind.resource.Resource == "namespaces" { // the last of the number may still be ending
			name += fmt.Sprintf("-%d", w.made)
		}
		object := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(kind.object)}
		object.SetName(name)
		object.SetAPIVersion(kind.resource.GroupVersion().String())
		object.SetKind(kind.name)
		_, err := client.Create(ctx, object, metav1.CreateOptions{})
		w.stored[key] = name
		return err
	case w.random.IntN(3) == 0:
		delete(w.stored, key)
		return client.Delete(ctx, name, metav1.DeleteOptions{})
	}
	patch := fmt.Sprintf(`{"metadata":{"labels":{"random":"%d"}}}`, w.random.Uint32())
	_, err := client.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// expectLists waits until each informer has what a list has.
func expectLists(t *testing.T, client dynamic.Interface, factory informers.SharedInformerFactory) {
	t.Helper()
	for _, kind := range kinds {
		informer, err := factory.ForResource(kind.resource)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, kind.resource.Resource, func(ctx context.Context) error {
			list, err := client.Resource(kind.resource).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			want := map[string]any{}
			for i := range list.Items {
				item := &list.Items[i]
				delete(item.Object, "kind")
				delete(item.Object, "apiVersion")
				want[item.GetNamespace()+"/"+item.GetName()] = item.Object
			}
			return equalStore(want, informer.Informer().GetStore())
		})
	}
}

func equalStore(want map[string]any, store cache.Store) error {
	got := map[string]any{}
	for _, object := range store.List() {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		if err != nil {
			return err
		}
		about := object.(metav1.Object)
		got[about.GetNamespace()+"/"+about.GetName()] = content
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("(-list +informer)\n%s", diff)
	}
	return nil
}
