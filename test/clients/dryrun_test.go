package clients

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// test/integration/dryrun/dryrun_test.go: TestDryRun, for every verb. The answer is that of
// the real call, and nothing is stored.
func TestDryRun(t *testing.T) {
	t.Parallel()
	client, namespace, endpoints := sharedNamespace(t)
	all := []string{metav1.DryRunAll}
	stored := mustCreate(t, endpoints, newEndpoints("stored", "app", "x"))
	before := wholeList(t, endpoints)

	created, err := endpoints.Create(t.Context(), newEndpoints("new"), metav1.CreateOptions{DryRun: all})
	if err != nil || created.UID == "" || created.CreationTimestamp.IsZero() || created.ResourceVersion != "" {
		t.Errorf("create: got %+v and error %v, want an object with a uid and no version", created, err)
	}
	generated, err := endpoints.Create(t.Context(), &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{GenerateName: "gen-"}}, metav1.CreateOptions{DryRun: all})
	if err != nil || len(generated.Name) != len("gen-")+5 {
		t.Errorf("create with generateName: got name %q and error %v", generated.Name, err)
	}
	_, err = endpoints.Create(t.Context(), newEndpoints("stored"), metav1.CreateOptions{DryRun: all})
	checkStatus(t, "create of what is there", err, 409, metav1.StatusReasonAlreadyExists)
	bad := newEndpoints("bad")
	bad.Subsets[0].Addresses[0].IP = "127.0.0.1"
	_, err = endpoints.Create(t.Context(), bad, metav1.CreateOptions{DryRun: all})
	checkStatus(t, "create of an invalid object", err, 422, metav1.StatusReasonInvalid)

	changed := stored.DeepCopy()
	changed.Labels["app"] = "y"
	updated, err := endpoints.Update(t.Context(), changed, metav1.UpdateOptions{DryRun: all})
	if err != nil || updated.Labels["app"] != "y" || updated.ResourceVersion != stored.ResourceVersion {
		t.Errorf("update: got %+v and error %v, want the change at version %s", updated, err, stored.ResourceVersion)
	}
	changed.ResourceVersion = "1"
	_, err = endpoints.Update(t.Context(), changed, metav1.UpdateOptions{DryRun: all})
	checkStatus(t, "update of an old version", err, 409, metav1.StatusReasonConflict)
	if _, err = endpoints.Update(t.Context(), newEndpoints("absent"), metav1.UpdateOptions{DryRun: all}); err != nil {
		t.Errorf("update that creates: %v", err)
	}
	for patchType, patch := range map[types.PatchType]string{
		types.JSONPatchType:           `[{"op":"replace","path":"/metadata/labels/app","value":"y"}]`,
		types.MergePatchType:          `{"metadata":{"labels":{"app":"y"}}}`,
		types.StrategicMergePatchType: `{"metadata":{"labels":{"app":"y"}}}`,
		types.ApplyPatchType:          `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"stored","labels":{"app":"y"}}}`,
	} {
		opts := metav1.PatchOptions{DryRun: all}
		if patchType == types.ApplyPatchType {
			opts.FieldManager, opts.Force = "test", new(true)
		}
		patched, err := endpoints.Patch(t.Context(), "stored", patchType, []byte(patch), opts)
		if err != nil || patched.Labels["app"] != "y" {
			t.Errorf("%s: got labels %v and error %v", patchType, patched.Labels, err)
		}
		if patchType != types.ApplyPatchType {
			continue
		}
		if _, err := endpoints.Patch(t.Context(), "absent", patchType, []byte(strings.Replace(patch, "stored", "absent", 1)), opts); err != nil {
			t.Errorf("apply that creates: %v", err)
		}
	}
	if err := endpoints.Delete(t.Context(), "stored", metav1.DeleteOptions{DryRun: all}); err != nil {
		t.Errorf("delete: %v", err)
	}
	err = endpoints.Delete(t.Context(), "absent", metav1.DeleteOptions{DryRun: all})
	checkStatus(t, "delete of what is not there", err, 404, metav1.StatusReasonNotFound)
	if err := endpoints.DeleteCollection(t.Context(), metav1.DeleteOptions{DryRun: all}, metav1.ListOptions{}); err != nil {
		t.Errorf("delete of a collection: %v", err)
	}
	if err := client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{DryRun: all}); err != nil {
		t.Errorf("delete of the namespace: %v", err)
	}
	if diff := cmp.Diff(before, wholeList(t, endpoints)); diff != "" {
		t.Errorf("dry runs changed what is stored (-before +after):\n%s", diff)
	}
	mustCreate(t, endpoints, newEndpoints("new")) // the namespace is not being deleted
}

// wholeList is everything that is stored, without the version of the list, which other
// tests' writes move on.
func wholeList(t *testing.T, client typedcorev1.EndpointsInterface) []corev1.Endpoints {
	t.Helper()
	list, err := client.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}
