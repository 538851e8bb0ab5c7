// Package namespaces holds the rules for core/v1 Namespace. They are kube-apiserver's, down
// to the texts and the order of faults.
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

// Strategy is the registry.Strategy of Namespace. Its objects are *corev1.Namespace.
type Strategy struct{}

var _ registry.Strategy = Strategy{}

// Default makes a namespace Active that is in no phase, and sets the label
// kubernetes.io/metadata.name to the name, over whatever a client says. A namespace that has no
// name yet gets no label; PrepareForCreate follows up.
func (Strategy) Default(obj runtime.Object) {
	ns := obj.(*corev1.Namespace)
	if ns.Status.Phase == "" {
		ns.Status.Phase = corev1.NamespaceActive
	}
	labelWithName(ns)
}

// PrepareForCreate makes the namespace Active, adds the finalizer that holds it until it
// is empty, and sets the label of a namespace whose name was generated.
func (Strategy) PrepareForCreate(obj runtime.Object) {
	ns := obj.(*corev1.Namespace)
	ns.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		ns.Spec.Finalizers = append(ns.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
	labelWithName(ns)
}

// PrepareForUpdate keeps status and spec.finalizers, which only the namespace's life cycle
// changes, and the label kubernetes.io/metadata.name.
func (Strategy) PrepareForUpdate(obj, old runtime.Object) {
	ns, stored := obj.(*corev1.Namespace), old.(*corev1.Namespace)
	ns.Spec.Finalizers = slices.Clone(stored.Spec.Finalizers)
	ns.Status = *stored.Status.DeepCopy()
	labelWithName(ns)
}

// Validate returns every fault of a new namespace. Its name is a DNS label.
func (Strategy) Validate(obj runtime.Object) field.ErrorList {
	ns := obj.(*corev1.Namespace)
	errs := objectmeta.Validate(&ns.ObjectMeta, false, validation.ValidateNamespaceName)
	return append(errs, validateSpec(&ns.Spec)...)
}

// ValidateUpdate returns every fault of obj as the successor of old. There is no rule for
// the phase: PrepareForUpdate keeps it.
func (Strategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	ns, stored := obj.(*corev1.Namespace), old.(*corev1.Namespace)
	errs := objectmeta.ValidateUpdate(&ns.ObjectMeta, &stored.ObjectMeta, false, validation.ValidateNamespaceName)
	return append(errs, validateSpec(&ns.Spec)...)
}

// Warnings returns nil.
func (Strategy) Warnings(_, _ runtime.Object) []string { return nil }

func validateSpec(spec *corev1.NamespaceSpec) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec", "finalizers")
	for _, finalizer := range spec.Finalizers {
		errs = append(errs, validateFinalizer(finalizer, path)...)
	}
	return errs
}

func validateFinalizer(finalizer corev1.FinalizerName, path *field.Path) field.ErrorList {
	errs := validation.ValidateFinalizerName(string(finalizer), path)
	if err := objectmeta.ValidateFinalizerName(string(finalizer), path); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func labelWithName(ns *corev1.Namespace) {
	if ns.Name == "" || ns.Labels[corev1.LabelMetadataName] == ns.Name {
		return
	}
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
}
