package clients

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// The tests of this file follow test/e2e/apimachinery/apply.go, and test/integration/
// apiserver/apply where it is named.

// applyConfiguration is what managers apply.
type applyConfiguration = corev1ac.EndpointsApplyConfiguration //nolint:staticcheck // deprecated elsewhere, the main resource here

// applied is what a manager applies: labels given as key and value in turn, and subsets
// of one address each.
func applied(ips []string, keysAndValues ...string) *applyConfiguration {
	labels := map[string]string{}
	for i := 0; i+1 < len(keysAndValues); i += 2 {
		labels[keysAndValues[i]] = keysAndValues[i+1]
	}
	apply := corev1ac.Endpoints("object", "")
	apply.Namespace = nil
	if len(labels) > 0 {
		apply = apply.WithLabels(labels)
	}
	for _, ip := range ips {
		apply = apply.WithSubsets(corev1ac.EndpointSubset().WithAddresses(corev1ac.EndpointAddress().WithIP(ip)))
	}
	return apply
}

func mustApply(t *testing.T, client typedcorev1.EndpointsInterface, manager string, force bool, apply *applyConfiguration) *corev1.Endpoints {
	t.Helper()
	got, err := client.Apply(t.Context(), apply, metav1.ApplyOptions{FieldManager: manager, Force: force})
	if err != nil {
		t.Fatalf("apply as %s: %v", manager, err)
	}
	return got
}

// owners are who owns what, as manager/operation: fields.
func owners(endpoints *corev1.Endpoints) map[string]string {
	all := map[string]string{}
	for _, entry := range endpoints.ManagedFields {
		all[entry.Manager+"/"+string(entry.Operation)] = string(entry.FieldsV1.GetRawBytes())
	}
	return all
}

// “ServerSideApply should create an applied object if it does not already exist”.
func TestApplyCreates(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	got := mustApply(t, endpoints, "one", false, applied([]string{"10.0.0.1"}, "app", "x"))
	want := map[string]string{"one/Apply": `{"f:metadata":{"f:labels":{"f:app":{}}},"f:subsets":{}}`}
	if diff := cmp.Diff(want, owners(got)); diff != "" || got.UID == "" {
		t.Errorf("owners of %+v (-want +got):\n%s", got, diff)
	}
	// integration: TestNoOpUpdateSameResourceVersion, for apply.
	if again := mustApply(t, endpoints, "one", false, applied([]string{"10.0.0.1"}, "app", "x")); again.ResourceVersion != got.ResourceVersion {
		t.Errorf("an apply that changes nothing made version %s of %s", again.ResourceVersion, got.ResourceVersion)
	}
}

// “ServerSideApply should remove a field if it is owned but removed in the apply request”.
func TestApplyRemoves(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	mustApply(t, endpoints, "one", false, applied([]string{"10.0.0.1"}, "app", "x", "tier", "y"))
	got := mustApply(t, endpoints, "one", false, applied(nil, "app", "x"))
	if diff := cmp.Diff(map[string]string{"app": "x"}, got.Labels); diff != "" || got.Subsets != nil {
		t.Errorf("subsets are %v, want none; labels (-want +got):\n%s", got.Subsets, diff)
	}
}

// “ServerSideApply should not remove a field if an owner unsets the field but other
// managers still have ownership of the field”.
func TestApplyShared(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	mustApply(t, endpoints, "one", false, applied(nil, "app", "x", "own", "1"))
	mustApply(t, endpoints, "two", false, applied(nil, "app", "x"))
	got := mustApply(t, endpoints, "one", false, applied(nil, "own", "1"))
	if diff := cmp.Diff(map[string]string{"app": "x", "own": "1"}, got.Labels); diff != "" {
		t.Errorf("labels after one of two owners gave one up (-want +got):\n%s", diff)
	}
	got = mustApply(t, endpoints, "two", false, applied(nil))
	if diff := cmp.Diff(map[string]string{"own": "1"}, got.Labels); diff != "" {
		t.Errorf("labels after the last owner gave one up (-want +got):\n%s", diff)
	}
}

// “ServerSideApply should ignore conflict errors if force apply is used”.
func TestApplyConflict(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	mustApply(t, endpoints, "one", false, applied([]string{"10.0.0.1"}, "app", "x"))
	apply := applied([]string{"10.0.0.2"}, "app", "y")
	_, err := endpoints.Apply(t.Context(), apply, metav1.ApplyOptions{FieldManager: "two"})
	checkStatus(t, "apply of fields of another's", err, 409, metav1.StatusReasonConflict)
	status := err.(apierrors.APIStatus).Status()
	if want := "Apply failed with 2 conflicts: conflicts with \"one\":\n- .subsets\n- .metadata.labels.app"; status.Message != want {
		t.Errorf("conflict: got %q, want %q", status.Message, want)
	}
	var fields []string
	for _, cause := range status.Details.Causes {
		fields = append(fields, string(cause.Type)+" "+cause.Field)
	}
	if diff := cmp.Diff([]string{"FieldManagerConflict .subsets", "FieldManagerConflict .metadata.labels.app"}, fields); diff != "" {
		t.Errorf("causes (-want +got):\n%s", diff)
	}
	got := mustApply(t, endpoints, "two", true, apply)
	if got.Labels["app"] != "y" || got.Subsets[0].Addresses[0].IP != "10.0.0.2" {
		t.Errorf("after a forced apply: %+v", got)
	}
	want := map[string]string{"two/Apply": `{"f:metadata":{"f:labels":{"f:app":{}}},"f:subsets":{}}`}
	if diff := cmp.Diff(want, owners(got)); diff != "" {
		t.Errorf("owners after a forced apply (-want +got):\n%s", diff)
	}
}

// “ServerSideApply should give up ownership of a field if forced applied by a controller”.
func TestApplyGivesUp(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	mustApply(t, endpoints, "user", false, applied([]string{"10.0.0.1"}, "app", "x"))
	mustApply(t, endpoints, "controller", true, applied([]string{"10.0.0.2"}))
	got := mustApply(t, endpoints, "user", false, applied(nil, "app", "x"))
	if got.Subsets[0].Addresses[0].IP != "10.0.0.2" {
		t.Errorf("subsets of the controller's after the user gave them up: %+v", got.Subsets)
	}
	want := map[string]string{
		"user/Apply":       `{"f:metadata":{"f:labels":{"f:app":{}}}}`,
		"controller/Apply": `{"f:subsets":{}}`,
	}
	if diff := cmp.Diff(want, owners(got)); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
}

// An update takes what it changes, and integration: TestClearManagedFieldsWithUpdate.
func TestApplyAndUpdate(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	object := mustApply(t, endpoints, "one", false, applied([]string{"10.0.0.1"}, "app", "x"))
	object.Labels["app"] = "y"
	updated, err := endpoints.Update(t.Context(), object, metav1.UpdateOptions{FieldManager: "updater"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"one/Apply":      `{"f:subsets":{}}`,
		"updater/Update": `{"f:metadata":{"f:labels":{"f:app":{}}}}`,
	}
	if diff := cmp.Diff(want, owners(updated)); diff != "" {
		t.Errorf("owners after an update (-want +got):\n%s", diff)
	}
	extract, err := corev1ac.ExtractEndpoints(updated, "one")
	if err != nil || len(extract.Subsets) != 1 || len(extract.Labels) != 0 {
		t.Errorf("what one owns: %+v and error %v, want a subset and no label", extract, err)
	}
	updated.ManagedFields = []metav1.ManagedFieldsEntry{{}}
	cleared, err := endpoints.Update(t.Context(), updated, metav1.UpdateOptions{FieldManager: "updater"})
	if err != nil {
		t.Fatal(err)
	}
	if len(cleared.ManagedFields) != 0 {
		t.Errorf("owners after they were cleared: %v", owners(cleared))
	}
	if got := mustApply(t, endpoints, "one", false, applied(nil, "app", "y")); owners(got)["before-first-apply/Update"] == "" {
		t.Errorf("owners after an apply to an object that had none: %v, want before-first-apply among them", owners(got))
	}
}

// integration: TestCreateOnApplyFailsWithUID, TestApplyRequiresFieldManager,
// TestApplyManagedFields (managedFields must be nil), TestApplyDoesNotStealOwnership of a
// version that has passed.
func TestApplyRefusals(t *testing.T) {
	t.Parallel()
	_, namespace, endpoints := sharedNamespace(t)
	_, err := endpoints.Apply(t.Context(), applied(nil).WithUID("08675309-9376-9376-9376-086753099999"), metav1.ApplyOptions{FieldManager: "one"})
	checkStatus(t, "an apply with a uid that creates", err, 409, metav1.StatusReasonConflict)
	_, err = endpoints.Patch(t.Context(), "object", types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"Endpoints"}`), metav1.PatchOptions{})
	checkStatus(t, "an apply without a manager", err, 422, metav1.StatusReasonInvalid)
	object := mustApply(t, endpoints, "one", false, applied([]string{"10.0.0.1"}))
	for what, test := range map[string]struct {
		body   map[string]any
		code   int32
		reason metav1.StatusReason
	}{
		"managedFields":       {map[string]any{"managedFields": []any{map[string]any{"manager": "x", "operation": "Apply"}}}, 400, metav1.StatusReasonBadRequest},
		"an old version":      {map[string]any{"resourceVersion": "1"}, 409, metav1.StatusReasonConflict},
		"another name":        {map[string]any{"name": "other"}, 400, metav1.StatusReasonBadRequest},
		"another namespace":   {map[string]any{"namespace": namespace + "x"}, 400, metav1.StatusReasonBadRequest},
		"another object's id": {map[string]any{"uid": "08675309-9376-9376-9376-086753099999"}, 422, metav1.StatusReasonInvalid},
	} {
		body, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Endpoints", "metadata": test.body})
		if err != nil {
			t.Fatal(err)
		}
		_, err = endpoints.Patch(t.Context(), "object", types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "one"})
		checkStatus(t, "an apply with "+what, err, test.code, test.reason)
	}
	got, err := endpoints.Get(t.Context(), "object", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(object, got); diff != "" {
		t.Errorf("the object after refusals (-want +got):\n%s", diff)
	}
}

// integration: TestApplyUpdateApplyConflictForced and the cap on updating managers: the
// oldest of more than ten are put together.
func TestApplyManyUpdaters(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	mustApply(t, endpoints, "one", false, applied(nil, "app", "x"))
	var object *corev1.Endpoints
	for i := range 15 {
		patch := fmt.Sprintf(`{"metadata":{"labels":{"l%d":"1"}}}`, i)
		var err error
		object, err = endpoints.Patch(t.Context(), "object", types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: fmt.Sprintf("updater-%d", i)})
		if err != nil {
			t.Fatal(err)
		}
	}
	updaters := 0
	for owner := range owners(object) {
		if strings.HasSuffix(owner, "/Update") {
			updaters++
		}
	}
	if updaters != 10 || owners(object)["ancient-changes/Update"] == "" {
		t.Errorf("%d updating managers, want ten with ancient-changes among them: %v", updaters, owners(object))
	}
}
