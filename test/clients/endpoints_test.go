package clients

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// TestEndpointsLifecycle follows test/e2e/network/endpoints.go, “Endpoints should test the
// lifecycle of an Endpoint”.
func TestEndpointsLifecycle(t *testing.T) {
	t.Parallel()
	client, namespace, endpoints := sharedNamespace(t)
	const name = "testservice"
	label := "test-endpoint-static=" + namespace
	version := currentVersion(t, endpoints)

	object := newEndpoints(name, "test-endpoint-static", namespace)
	object.Subsets[0].Ports[0].Protocol = ""
	created := mustCreate(t, endpoints, object)
	if got := created.Subsets[0].Ports[0].Protocol; got != corev1.ProtocolTCP {
		t.Errorf("protocol of the created object: got %q, want the default TCP", got)
	}
	w := openWatch(t, endpoints, metav1.ListOptions{LabelSelector: label, ResourceVersion: version})
	expectEvent(t, w, watch.Added, name, created.ResourceVersion)

	all, err := client.CoreV1().Endpoints(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{LabelSelector: label})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]corev1.Endpoints{*created}, all.Items); diff != "" {
		t.Errorf("list of all namespaces (-want +got):\n%s", diff)
	}

	created.Labels["test-service"] = "updated"
	updated := mustUpdate(t, endpoints, created)
	if got := expectEvent(t, w, watch.Modified, name, updated.ResourceVersion); got.Labels["test-service"] != "updated" {
		t.Errorf("labels in the event of the update: %v", got.Labels)
	}
	got, err := endpoints.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(updated, got); diff != "" {
		t.Errorf("get after the update (-want +got):\n%s", diff)
	}

	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"labels": map[string]string{"test-service": "patched"}},
		"subsets": []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "10.0.0.25"}},
			Ports:     []corev1.EndpointPort{{Name: "http-test", Port: 8080}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	patched, err := endpoints.Patch(t.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: "10.0.0.25"}},
		Ports:     []corev1.EndpointPort{{Name: "http-test", Port: 8080, Protocol: corev1.ProtocolTCP}},
	}}
	if diff := cmp.Diff(want, expectEvent(t, w, watch.Modified, name, patched.ResourceVersion).Subsets); diff != "" {
		t.Errorf("subsets in the event of the patch, which replaces them whole (-want +got):\n%s", diff)
	}

	err = endpoints.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		t.Fatal(err)
	}
	expectEvent(t, w, watch.Deleted, name, "")
	_, err = endpoints.Get(t.Context(), name, metav1.GetOptions{})
	checkStatus(t, "get after the deletion", err, 404, metav1.StatusReasonNotFound)
}
