package clients

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// controller-runtime's client, which learns from discovery what there is.
func TestControllerRuntimeClient(t *testing.T) {
	t.Parallel()
	_, namespace, _ := sharedNamespace(t)
	c, err := client.New(shared.config(t), client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	object := newEndpoints("object", "app", "x")
	object.Namespace = namespace
	if err := c.Create(ctx, object); err != nil {
		t.Fatal(err)
	}
	key := client.ObjectKeyFromObject(object)
	got := &corev1.Endpoints{}
	if err := c.Get(ctx, key, got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(object, got); diff != "" {
		t.Errorf("get (-created +got):\n%s", diff)
	}
	got.Labels["app"] = "y"
	if err := c.Update(ctx, got); err != nil {
		t.Fatal(err)
	}
	stale := object.DeepCopy()
	stale.Labels["app"] = "z"
	if err := c.Update(ctx, stale); !apierrors.IsConflict(err) {
		t.Errorf("an update of an old version: got %v, want a conflict", err)
	}
	before := got.DeepCopy()
	got.Annotations = map[string]string{"patched": "yes"}
	if err := c.Patch(ctx, got, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		t.Fatal(err)
	}
	if err := c.Patch(ctx, got.DeepCopy(), client.StrategicMergeFrom(got, client.MergeFromWithOptimisticLock{})); err != nil {
		t.Errorf("an empty patch: %v", err)
	}
	apply := corev1ac.Endpoints("object", namespace).WithLabels(map[string]string{"applied": "yes"})
	if err := c.Apply(ctx, apply, client.FieldOwner("test")); err != nil {
		t.Fatal(err)
	}
	list := &corev1.EndpointsList{}
	if err := c.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{"app": "y", "applied": "yes"}, client.Limit(10)); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Annotations["patched"] != "yes" {
		t.Errorf("list after all changes: %+v", list.Items)
	}
	partial := &metav1.PartialObjectMetadata{}
	partial.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Endpoints"))
	if err := c.Get(ctx, key, partial); err != nil || partial.UID != object.UID {
		t.Errorf("get of the metadata: uid %q and error %v, want uid %q", partial.UID, err, object.UID)
	}
	dryRun := client.NewDryRunClient(c)
	if err := dryRun.Delete(ctx, got); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(ctx, key, got); err != nil {
		t.Errorf("get after a dry run of the deletion: %v", err)
	}
	if err := c.DeleteAllOf(ctx, &corev1.Endpoints{}, client.InNamespace(namespace), client.MatchingLabels{"app": "y"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(ctx, key, got); !apierrors.IsNotFound(err) {
		t.Errorf("get after the deletion: got %v, want that it is not found", err)
	}
}

// controller-runtime's cache reads from informers, with an index.
func TestControllerRuntimeCache(t *testing.T) {
	t.Parallel()
	_, namespace, endpoints := sharedNamespace(t)
	mustCreate(t, endpoints, newEndpoints("first", "app", "x"))
	objects, err := cache.New(shared.config(t), cache.Options{
		Scheme:            scheme.Scheme,
		DefaultNamespaces: map[string]cache.Config{namespace: {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = objects.IndexField(t.Context(), &corev1.Endpoints{}, "app", func(object client.Object) []string {
		return []string{object.GetLabels()["app"]}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- objects.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if !objects.WaitForCacheSync(ctx) {
		t.Fatal("the cache does not fill")
	}
	mustCreate(t, endpoints, newEndpoints("second", "app", "y"))
	mustDelete(t, endpoints, "first")
	want := []string{"second"}
	eventually(t, "the cache does not follow", func(ctx context.Context) error {
		list := &corev1.EndpointsList{}
		if err := objects.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return err
		}
		if diff := cmp.Diff(want, names(list)); diff != "" {
			return fmt.Errorf("list (-want +got):\n%s", diff)
		}
		return nil
	})
	list := &corev1.EndpointsList{}
	if err := objects.List(t.Context(), list, client.MatchingFields{"app": "y"}); err != nil || len(list.Items) != 1 {
		t.Errorf("list by the index: got %v and error %v, want one", names(list), err)
	}
	got := &corev1.Endpoints{}
	if err := objects.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: "first"}, got); !apierrors.IsNotFound(err) {
		t.Errorf("get of what was deleted: %v, want that it is not found", err)
	}
}
