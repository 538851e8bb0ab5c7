package registry_test

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A request whose time ends while the server itself is at work is told so: etcd was not asked,
// and is not to blame.
func TestDeadlineWhileWorking(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	s.create(t, ns, newEndpoints("a"))
	s.get(t, ns, "a") // whose cache has it from now on
	ctx, cancel := context.WithDeadline(t.Context(), metav1.Now().Time)
	defer cancel()
	<-ctx.Done()
	patchOptions := &metav1.PatchOptions{FieldManager: "test"}
	for name, work := range map[string]func() error{
		"an update": func() error {
			obj := newEndpoints("a")
			obj.Labels = map[string]string{"a": "b"}
			_, _, _, err := s.endpoints.Update(ctx, ns, "a", "", obj, updateOptions())
			return err
		},
		"a merge patch": func() error {
			_, _, err := patched(ctx, s.endpoints, ns, "a", "", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), patchOptions)
			return err
		},
		"an apply": func() error {
			_, _, err := patched(ctx, s.endpoints, ns, "a", "", types.ApplyYAMLPatchType, []byte(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"a","labels":{"a":"b"}}}`), patchOptions)
			return err
		},
		"an apply that creates": func() error {
			_, _, err := patched(ctx, s.endpoints, ns, "b", "", types.ApplyYAMLPatchType, []byte(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"b"}}`), patchOptions)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			checkStatus(t, work(), 504, "The time allotted to the request ended while the change was being computed.")
		})
	}
	_, _, err := s.endpoints.List(ctx, ns, &metav1.ListOptions{ResourceVersion: "0", LabelSelector: "a=b"})
	checkStatus(t, err, 504, "ended while objects were being selected")
}
