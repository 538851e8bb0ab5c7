package clients

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/util/retry"
)

var endpointsResource = corev1.SchemeGroupVersion.WithResource("endpoints")

// Every verb of the typed client, with both media types that it knows.
func TestTypedClient(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]func(*testing.T) *typedClient{
		"json":     func(t *testing.T) *typedClient { return newTypedClient(t, false) },
		"protobuf": func(t *testing.T) *typedClient { return newTypedClient(t, true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config(t).everyVerb(t)
		})
	}
}

type typedClient struct {
	typedcorev1.EndpointsInterface
	namespace string
}

func newTypedClient(t *testing.T, binary bool) *typedClient {
	t.Helper()
	config := shared.config(t)
	if binary {
		config = protobuf(config)
	}
	client := newClient(t, config)
	namespace := makeNamespace(t, client)
	return &typedClient{client.CoreV1().Endpoints(namespace), namespace}
}

func (c *typedClient) everyVerb(t *testing.T) {
	object := newEndpoints("object", "app", "x")
	object.Namespace = c.namespace
	object.Subsets[0].NotReadyAddresses = []corev1.EndpointAddress{{
		IP: "2001:db8::1", Hostname: "h", NodeName: new("node"),
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: c.namespace, Name: "pod", UID: "u"},
	}}
	created := mustCreate(t, c, object)
	serverSet := cmpopts.IgnoreFields(metav1.ObjectMeta{}, "UID", "SelfLink", "ResourceVersion", "CreationTimestamp", "ManagedFields")
	if diff := cmp.Diff(object, created, serverSet, cmpopts.IgnoreTypes(metav1.TypeMeta{})); diff != "" {
		t.Errorf("create (-want +got):\n%s", diff)
	}
	got, err := c.Get(t.Context(), "object", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(created, got); diff != "" {
		t.Errorf("get (-want +got):\n%s", diff)
	}
	list, err := c.List(t.Context(), metav1.ListOptions{LabelSelector: "app=x"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]corev1.Endpoints{*created}, list.Items, cmpopts.IgnoreTypes(metav1.TypeMeta{})); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	w := openWatch(t, c, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	got.Labels["app"] = "y"
	updated := mustUpdate(t, c, got)
	event := expectEvent(t, w, watch.Modified, "object", updated.ResourceVersion)
	if diff := cmp.Diff(updated, event, cmpopts.IgnoreTypes(metav1.TypeMeta{})); diff != "" {
		t.Errorf("object of the event (-want +got):\n%s", diff)
	}
	if _, err := c.Update(t.Context(), created, metav1.UpdateOptions{}); err == nil {
		t.Error("an update of an old version succeeded")
	} else {
		checkStatus(t, "an update of an old version", err, 409, metav1.StatusReasonConflict)
	}
	for patchType, patch := range map[types.PatchType]string{
		types.JSONPatchType:           `[{"op":"add","path":"/metadata/labels/json","value":"1"}]`,
		types.MergePatchType:          `{"metadata":{"labels":{"merge":"1"}}}`,
		types.StrategicMergePatchType: `{"metadata":{"labels":{"strategic":"1"}}}`,
	} {
		if _, err := c.Patch(t.Context(), "object", patchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Errorf("patch by %s: %v", patchType, err)
		}
		expectEvent(t, w, watch.Modified, "object", "")
	}
	apply := corev1ac.Endpoints("object", c.namespace).WithLabels(map[string]string{"apply": "1"})
	applied, err := c.Apply(t.Context(), apply, metav1.ApplyOptions{FieldManager: "test"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"app": "y", "json": "1", "merge": "1", "strategic": "1", "apply": "1"}
	if diff := cmp.Diff(want, applied.Labels); diff != "" {
		t.Errorf("labels after all patches (-want +got):\n%s", diff)
	}
	expectEvent(t, w, watch.Modified, "object", applied.ResourceVersion)
	mustDelete(t, c, "object")
	expectEvent(t, w, watch.Deleted, "object", "")
	mustCreate(t, c, newEndpoints("second"))
	if err := c.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	expectEvent(t, w, watch.Added, "second", "")
	expectEvent(t, w, watch.Deleted, "second", "")
	_, err = c.Get(t.Context(), "second", metav1.GetOptions{})
	checkStatus(t, "get of a deleted object", err, 404, metav1.StatusReasonNotFound)
}

// Every verb of the dynamic client, which knows no types.
func TestDynamicClient(t *testing.T) {
	t.Parallel()
	client, namespace, _ := sharedNamespace(t)
	dynamicClient, err := dynamic.NewForConfig(shared.config(t))
	if err != nil {
		t.Fatal(err)
	}
	objects := dynamicClient.Resource(endpointsResource).Namespace(namespace)
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(newEndpoints("object", "app", "x"))
	if err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{Object: content}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Endpoints"))
	created, err := objects.Create(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := objects.Watch(t.Context(), metav1.ListOptions{ResourceVersion: created.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	created.SetAnnotations(map[string]string{"step": "1"})
	updated, err := objects.Update(t.Context(), created, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	object.SetManagedFields(nil)
	object.SetLabels(map[string]string{"app": "z"})
	if _, err = objects.Apply(t.Context(), "object", object, metav1.ApplyOptions{FieldManager: "test", Force: true}); err != nil {
		t.Fatal(err)
	}
	list, err := objects.List(t.Context(), metav1.ListOptions{LabelSelector: "app=z"})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.GetKind() != "EndpointsList" || list.Items[0].GetKind() != "Endpoints" {
		t.Errorf("list: got a %s of %d items, want an EndpointsList of 1", list.GetKind(), len(list.Items))
	}
	if err := objects.Delete(t.Context(), "object", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []watch.EventType{watch.Modified, watch.Modified, watch.Deleted} {
		event := nextEvent(t, w)
		if event.Type != want {
			t.Errorf("event %d: got %s, want %s", i, describe(event), want)
		}
		if version := event.Object.(metav1.Object).GetResourceVersion(); i == 0 && version != updated.GetResourceVersion() {
			t.Errorf("the event of the update has version %s, want %s", version, updated.GetResourceVersion())
		}
	}
	if _, err := client.CoreV1().Endpoints(namespace).Get(t.Context(), "object", metav1.GetOptions{}); err == nil {
		t.Error("the object is still there")
	}
}

// The metadata client sees metadata alone, and changes it.
func TestMetadataClient(t *testing.T) {
	t.Parallel()
	_, namespace, endpoints := sharedNamespace(t)
	metadataClient, err := metadata.NewForConfig(shared.config(t))
	if err != nil {
		t.Fatal(err)
	}
	objects := metadataClient.Resource(endpointsResource).Namespace(namespace)
	created := mustCreate(t, endpoints, newEndpoints("object", "app", "x"))
	got, err := objects.Get(t.Context(), "object", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(created.ObjectMeta, got.ObjectMeta); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	list, err := objects.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Name != "object" || list.ResourceVersion == "" {
		t.Errorf("list: got %d items at version %q, want 1", len(list.Items), list.ResourceVersion)
	}
	w, err := objects.Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	patch := []byte(`{"metadata":{"labels":{"app":"y"}}}`)
	patched, err := objects.Patch(t.Context(), "object", types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	event := nextEvent(t, w)
	if partial, ok := event.Object.(*metav1.PartialObjectMetadata); !ok || event.Type != watch.Modified || partial.ResourceVersion != patched.ResourceVersion || partial.Labels["app"] != "y" {
		t.Errorf("got event %s of a %T, want the patched metadata", describe(event), event.Object)
	}
	uid := created.UID
	if err := objects.Delete(t.Context(), "object", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil {
		t.Fatal(err)
	}
	if event := nextEvent(t, w); event.Type != watch.Deleted {
		t.Errorf("got event %s, want the deletion", describe(event))
	}
}

// Fifty writers add to one object, each by reading, changing and writing it: whoever meets
// a conflict tries again, and nobody's part is lost.
func TestRetryOnConflict(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	mustCreate(t, endpoints, newEndpoints("counter"))
	const writers, rounds = 50, 2
	ctx := testContext(t)
	backoff := wait.Backoff{Steps: 10_000, Duration: 5 * time.Millisecond, Factor: 1, Jitter: 10}
	add := func(writer int) error {
		return retry.RetryOnConflict(backoff, func() error {
			object, err := endpoints.Get(ctx, "counter", metav1.GetOptions{})
			if err != nil {
				return err
			}
			count, _ := strconv.Atoi(object.Annotations["count"]) // none is 0
			metav1.SetMetaDataAnnotation(&object.ObjectMeta, "count", strconv.Itoa(count+1))
			key := fmt.Sprintf("writer-%d", writer)
			own, _ := strconv.Atoi(object.Annotations[key]) // as above
			object.Annotations[key] = strconv.Itoa(own + 1)
			_, err = endpoints.Update(ctx, object, metav1.UpdateOptions{})
			return err
		})
	}
	results := make(chan error, writers)
	for writer := range writers {
		go func() {
			var err error
			for range rounds {
				err = errors.Join(err, add(writer))
			}
			results <- err
		}()
	}
	for range writers {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	got, err := endpoints.Get(ctx, "counter", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"count": strconv.Itoa(writers * rounds)}
	for writer := range writers {
		want[fmt.Sprintf("writer-%d", writer)] = strconv.Itoa(rounds)
	}
	if diff := cmp.Diff(want, got.Annotations); diff != "" {
		t.Errorf("what the writers left (-want +got):\n%s", diff)
	}
}
