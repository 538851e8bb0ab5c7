package ownership_test

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Whatever managed fields a client has written, updates and applies go on, or say what is wrong.
func FuzzManagedFields(f *testing.F) {
	m := newManager(f, endpointsKind, converter)
	f.Add(`{"f:subsets":{"i:0":{"f:addresses":{}}},"f:metadata":{"f:labels":{".":{},"f:a":{}}}}`, "v1", "Apply")
	f.Add(`{"k:{\"port\":80}":{},"v:\"x\"":{},"i:-1":{},"f:":null}`, "v2", "Update")
	f.Add(`[1]`, "x/y/z", "")
	f.Fuzz(func(t *testing.T, fields, apiVersion, operation string) {
		if !json.Valid([]byte(fields)) {
			t.Skip("no decoder takes it")
		}
		live := large(2, "10.0.0.1")
		live.ManagedFields = []metav1.ManagedFieldsEntry{{
			Manager: "m", Operation: metav1.ManagedFieldsOperationType(operation), APIVersion: apiVersion,
			FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields),
		}}
		next := live.DeepCopy()
		next.Labels = map[string]string{"a": "b"}
		if err := m.Update(large(2, "10.0.0.1"), next, "n"); err != nil && !apierrors.IsInvalid(err) {
			t.Errorf("update: %v", err)
		}
		config := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Endpoints", "metadata": map[string]any{"name": live.Name, "labels": map[string]any{"a": "c"}},
		}}
		applied, err := m.Apply(live, config, "o", true)
		if err != nil {
			if !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) {
				t.Errorf("apply: %v", err)
			}
			return
		}
		if got := applied.(*corev1.Endpoints).Labels["a"]; got != "c" {
			t.Errorf("label a is %q", got)
		}
	})
}
