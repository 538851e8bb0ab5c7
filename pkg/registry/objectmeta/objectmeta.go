// Package objectmeta has the rules for the metadata that every resource has. They are
// kube-apiserver's, down to the texts and the order of faults.
package objectmeta

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var metadataPath = field.NewPath("metadata")

// Validate returns every fault in the metadata of a new object. Its name must satisfy nameFn,
// which every DNS label does, and whose second argument is true where the name is a
// generateName.
func Validate(meta *metav1.ObjectMeta, namespaced bool, nameFn validation.ValidateNameFunc) field.ErrorList {
	errs := validation.ValidateObjectMeta(meta, namespaced, nameFn, metadataPath)
	errs = append(errs, ValidateFinalizerNames(meta.Finalizers)...)
	if len(errs) == 0 && meta.GenerateName != "" {
		// Prefix rules of name functions forgive what precedes a final dash.
		for _, msg := range content.IsPathSegmentPrefix(meta.GenerateName) {
			errs = append(errs, field.Invalid(metadataPath.Child("generateName"), meta.GenerateName, msg))
		}
	}
	return errs
}

// ValidateAny returns the faults in the metadata of a new object by the rules for all resources,
// which leave names and finalizers nearly free.
func ValidateAny(meta *metav1.ObjectMeta, namespaced bool) field.ErrorList {
	return validation.ValidateObjectMeta(meta, namespaced, PathSegmentName, metadataPath)
}

// ValidateAnyUpdate returns the faults of meta as the successor of old by the rules of
// ValidateAny, each once.
func ValidateAnyUpdate(meta, old *metav1.ObjectMeta, namespaced bool) field.ErrorList {
	errs := ValidateAny(meta, namespaced)
	return withoutRepetitions(append(errs, validation.ValidateObjectMetaUpdate(meta, old, metadataPath)...))
}

// ValidateUpdate returns every fault of meta as the successor of old, each
// once, by kube-apiserver's rules and in its order. The arguments are those of
// Validate.
func ValidateUpdate(meta, old *metav1.ObjectMeta, namespaced bool, nameFn validation.ValidateNameFunc) field.ErrorList {
	errs := validation.ValidateObjectMeta(meta, namespaced, PathSegmentName, metadataPath)
	errs = append(errs, validation.ValidateObjectMetaUpdate(meta, old, metadataPath)...)
	errs = append(errs, ValidateFinalizerNames(meta.Finalizers)...)
	if meta.GenerateName != "" {
		for _, msg := range nameFn(meta.GenerateName, true) {
			errs = append(errs, field.Invalid(metadataPath.Child("generateName"), meta.GenerateName, msg))
		}
	}
	for _, msg := range nameFn(meta.Name, false) {
		errs = append(errs, field.Invalid(metadataPath.Child("name"), meta.Name, msg))
	}
	return withoutRepetitions(errs)
}

// Hold reports whether one of the finalizers keeps a deleted object from being removed. Those
// that wait for dependents do not: nothing here depends on owners, so that nobody would ever
// take them away.
func Hold(finalizers []string) bool {
	return slices.ContainsFunc(finalizers, func(finalizer string) bool {
		return finalizer != metav1.FinalizerDeleteDependents && finalizer != metav1.FinalizerOrphanDependents
	})
}

// ValidateFinalizerName returns the fault of a finalizer without a domain that is not one
// of the three that Kubernetes itself uses, nil when it has none.
func ValidateFinalizerName(name string, path *field.Path) *field.Error {
	if strings.Contains(name, "/") || slices.Contains(standardFinalizers, name) {
		return nil
	}
	return field.Invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified")
}

var standardFinalizers = []string{"kubernetes", metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents}

// ValidateFinalizerNames returns the faults of an object's finalizers.
func ValidateFinalizerNames(names []string) field.ErrorList {
	var errs field.ErrorList
	for i, name := range names {
		if err := ValidateFinalizerName(name, metadataPath.Child("finalizers").Index(i)); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// PathSegmentName is the rule for the name of any object, as an argument for Validate.
func PathSegmentName(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

// withoutRepetitions keeps the first of each fault: the rules for a new object and those
// for an update overlap.
func withoutRepetitions(errs field.ErrorList) field.ErrorList {
	if len(errs) < 2 {
		return errs
	}
	seen := make(map[string]bool, len(errs))
	return slices.DeleteFunc(errs, func(err *field.Error) bool {
		text := err.Error()
		repeated := seen[text]
		seen[text] = true
		return repeated
	})
}
