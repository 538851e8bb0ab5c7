package namespaces

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
)

// statusStrategy is for writes of the status, which change nothing of spec.
type statusStrategy struct{}

var _ registry.UpdateStrategy = statusStrategy{}

func (statusStrategy) PrepareForUpdate(obj, old runtime.Object) {
	ns, stored := obj.(*corev1.Namespace), old.(*corev1.Namespace)
	ns.Spec.Finalizers = slices.Clone(stored.Spec.Finalizers)
	labelWithName(ns)
}

func (statusStrategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	ns, stored := obj.(*corev1.Namespace), old.(*corev1.Namespace)
	errs := objectmeta.ValidateUpdate(&ns.ObjectMeta, &stored.ObjectMeta, false, validation.ValidateNamespaceName)
	path := field.NewPath("status", "Phase") // as kube-apiserver spells it
	switch {
	case ns.DeletionTimestamp == nil && ns.Status.Phase != corev1.NamespaceActive:
		errs = append(errs, field.Invalid(path, ns.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty"))
	case ns.DeletionTimestamp != nil && ns.Status.Phase != corev1.NamespaceTerminating:
		errs = append(errs, field.Invalid(path, ns.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"))
	}
	return errs
}

func (statusStrategy) Warnings(_, _ runtime.Object) []string { return nil }

// finalizeStrategy is for writes of the finalizers in spec, which change nothing of the
// status.
type finalizeStrategy struct{}

var _ registry.UpdateStrategy = finalizeStrategy{}

func (finalizeStrategy) PrepareForUpdate(obj, old runtime.Object) {
	ns, stored := obj.(*corev1.Namespace), old.(*corev1.Namespace)
	ns.Status = *stored.Status.DeepCopy()
	labelWithName(ns)
}

func (finalizeStrategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	ns, stored := obj.(*corev1.Namespace), old.(*corev1.Namespace)
	errs := objectmeta.ValidateUpdate(&ns.ObjectMeta, &stored.ObjectMeta, false, validation.ValidateNamespaceName)
	path := field.NewPath("spec", "finalizers")
	for i, finalizer := range ns.Spec.Finalizers {
		errs = append(errs, validateFinalizer(finalizer, path.Index(i))...)
	}
	return errs
}

func (finalizeStrategy) Warnings(_, _ runtime.Object) []string { return nil }
