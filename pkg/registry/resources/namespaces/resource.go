package namespaces

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
)

// Always are the namespaces that exist from the first start on and cannot be deleted.
var Always = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic}

// Resource describes core/v1 Namespace.
func Resource() *registry.Resource {
	resource := &registry.Resource{
		API: metav1.APIResource{
			Version: "v1", Kind: "Namespace", Name: registry.Namespaces, SingularName: "namespace",
			ShortNames: []string{"ns"}, StorageVersionHash: "Q3oi5N2YM8M=",
			Verbs: metav1.Verbs{"create", "delete", "get", "list", "patch", "update", "watch"},
		},
		New:              func() registry.APIObject { return &corev1.Namespace{} },
		AddToScheme:      corev1.AddToScheme,
		Strategy:         Strategy{},
		Fields:           []string{"status.phase"},
		FieldSynonyms:    map[string]string{"name": "metadata.name"},
		Reset:            []string{"status"},
		NoCreateOnUpdate: true,
		DeletesByUpdate:  true,
		Subresources: []registry.Subresource{
			{
				API:      metav1.APIResource{Name: "namespaces/status", Kind: "Namespace", Verbs: metav1.Verbs{"get", "patch", "update"}},
				Strategy: statusStrategy{},
				Reset:    []string{"spec"},
			},
			{
				API:      metav1.APIResource{Name: "namespaces/finalize", Kind: "Namespace", Verbs: metav1.Verbs{"update"}},
				Strategy: finalizeStrategy{},
				Reset:    []string{"status"},
			},
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn,
			{Name: "Status", Type: "string", Description: "The status of the namespace"},
			registry.AgeColumn,
		},
		Cells: func(obj runtime.Object) []any {
			namespace := obj.(*corev1.Namespace)
			return []any{namespace.Name, string(namespace.Status.Phase), registry.Age}
		},
	}
	resource.BeforeDelete = func(obj runtime.Object) error {
		namespace := obj.(*corev1.Namespace)
		if slices.Contains(Always, namespace.Name) {
			return apierrors.NewForbidden(resource.GroupResource(), namespace.Name, errors.New("this namespace may not be deleted"))
		}
		now := metav1.Now() // without a grace period, as in kube-apiserver
		namespace.DeletionTimestamp = &now
		namespace.Status.Phase = corev1.NamespaceTerminating
		return nil
	}
	resource.Holds = func(obj runtime.Object) bool {
		return len(obj.(*corev1.Namespace).Spec.Finalizers) > 0
	}
	return resource
}

// EnsureAlways creates those of Always that do not exist yet.
func EnsureAlways(ctx context.Context, objects *registry.Registry) error {
	store := objects.Namespaces()
	for _, name := range Always {
		// Creating needs the schema of ownership, which most starts can do without.
		exists, err := store.Exists(ctx, "", name)
		if err != nil {
			return err
		}
		if exists {
			continue
		}
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		_, _, err = store.Create(ctx, "", namespace, &metav1.CreateOptions{FieldManager: "berth"})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}
