package clients

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// The tests of this file follow test/e2e/apimachinery/namespace.go.

var errStillThere = errors.New("it is still there")

// waitGone waits until the namespace is not found.
func waitGone(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	eventually(t, "namespace "+name, func(ctx context.Context) error {
		_, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return err
		}
		return errStillThere
	})
}

// “Namespaces should ensure that all services are removed when a namespace is deleted”,
// for Endpoints: they go with it, and a namespace of the same name begins empty.
func TestNamespaceDeletion(t *testing.T) {
	t.Parallel()
	client, name, endpoints := sharedNamespace(t)
	w := openWatch(t, endpoints, metav1.ListOptions{})
	mustCreate(t, endpoints, newEndpoints("object"))
	expectEvent(t, w, watch.Added, "object", "")
	if err := client.CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitGone(t, client, name)
	expectEvent(t, w, watch.Deleted, "object", "")
	_, err := endpoints.Create(t.Context(), newEndpoints("object"), metav1.CreateOptions{})
	checkStatus(t, "a create in a namespace that is gone", err, 404, metav1.StatusReasonNotFound)

	again := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), again, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err := endpoints.List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 0 {
		t.Errorf("the namespace begins with %v and error %v, want nothing", names(list), err)
	}
	mustCreate(t, endpoints, newEndpoints("object"))
}

// While an object in it is held by a finalizer a namespace is Terminating and takes no new
// content, and a restart of the server changes nothing about that.
func TestNamespaceTerminating(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	client := server.client(t)
	const name = "dying"
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	endpoints := client.CoreV1().Endpoints(name)
	held := newEndpoints("held")
	held.Finalizers = []string{"example.com/hold"}
	mustCreate(t, endpoints, held)
	mustCreate(t, endpoints, newEndpoints("free"))
	if err := client.CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, signal := range []syscall.Signal{0, syscall.SIGKILL} {
		if signal != 0 {
			server.restart(t, signal)
		}
		_, err := endpoints.Create(t.Context(), newEndpoints("new"), metav1.CreateOptions{})
		checkStatus(t, "a create in a dying namespace", err, 403, metav1.StatusReasonForbidden)
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			t.Errorf("the refusal %v does not name its cause", err)
		}
		got, err := client.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || got.Status.Phase != corev1.NamespaceTerminating || got.DeletionTimestamp == nil {
			t.Fatalf("the namespace is %+v and error %v, want it Terminating", got, err)
		}
	}
	eventually(t, "the namespace is emptied as far as it can be", func(ctx context.Context) error {
		list, err := endpoints.List(ctx, metav1.ListOptions{})
		if err == nil && !cmp.Equal(names(list), []string{"held"}) || err == nil && list.Items[0].DeletionTimestamp == nil {
			err = errStillThere
		}
		return err
	})
	patch := []byte(`{"metadata":{"finalizers":null}}`)
	if _, err := endpoints.Patch(t.Context(), "held", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitGone(t, client, name)
}

// “Namespaces should patch a Namespace”, “… should apply an update to a Namespace”, “…
// should apply a finalizer to a Namespace” as far as metadata goes.
func TestNamespaceUpdate(t *testing.T) {
	t.Parallel()
	client, name, _ := sharedNamespace(t)
	namespaces := client.CoreV1().Namespaces()
	patched, err := namespaces.Patch(t.Context(), name, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"testLabel":"testValue"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patched.Labels[name] = "updated"
	updated, err := namespaces.Update(t.Context(), patched, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{corev1.LabelMetadataName: name, "testLabel": "testValue", name: "updated"}
	if diff := cmp.Diff(want, updated.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if updated.Status.Phase != corev1.NamespaceActive || !cmp.Equal(updated.Spec.Finalizers, []corev1.FinalizerName{corev1.FinalizerKubernetes}) {
		t.Errorf("namespace of phase %q with finalizers %v", updated.Status.Phase, updated.Spec.Finalizers)
	}
	list, err := namespaces.List(t.Context(), metav1.ListOptions{LabelSelector: name + "=updated"})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("list by label: got %d namespaces and error %v, want one", len(list.Items), err)
	}
}

// The namespaces that are always there, and names that none may have.
func TestNamespaceRules(t *testing.T) {
	t.Parallel()
	namespaces := shared.client(t).CoreV1().Namespaces()
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic} {
		err := namespaces.Delete(t.Context(), name, metav1.DeleteOptions{})
		checkStatus(t, "deletion of "+name, err, 403, metav1.StatusReasonForbidden)
	}
	for _, name := range []string{"Upper", "dots.not", strings.Repeat("x", 64)} {
		_, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		checkStatus(t, "a namespace named "+name, err, 422, metav1.StatusReasonInvalid)
	}
}
