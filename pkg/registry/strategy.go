package registry

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Strategy is what a resource does differently from the others. Its methods are pure:
// they keep no state, wait for nothing and may run at the same time. An obj is of the
// resource's Go type; any other is a programmer's error and panics. No method keeps obj
// or old, or changes old.
type Strategy interface {
	UpdateStrategy
	// Default fills in what a client may leave out, right after decoding. A second call
	// changes nothing.
	Default(obj runtime.Object)
	// PrepareForCreate sets what only the server may set on a new object (after field
	// ownership was computed). The object has its name, a generated one too.
	PrepareForCreate(obj runtime.Object)
	// Validate returns every fault of a new object, metadata included, in the order in
	// which a client is told of them; nil or empty when there is none.
	Validate(obj runtime.Object) field.ErrorList
}

// UpdateStrategy is the part of a Strategy that updates need. What Strategy promises holds
// for it, too.
type UpdateStrategy interface {
	// PrepareForUpdate keeps from old what an update must not change. It leaves
	// metadata that every resource has to the caller, and replaces maps and lists rather
	// than to change what is in them.
	PrepareForUpdate(obj, old runtime.Object)
	// ValidateUpdate returns every fault of obj as the successor of old, metadata
	// included, each once. An obj without a resourceVersion or with another uid or
	// creationTimestamp than old's is at fault, so the caller fills in what the client
	// left out.
	ValidateUpdate(obj, old runtime.Object) field.ErrorList
	// Warnings returns what is accepted but ill-advised; they become Warning headers.
	// It is for objects that Validate or ValidateUpdate found valid. There may be as
	// many as the object has fields: whoever writes headers bounds them.
	Warnings(obj runtime.Object) []string
}

var metadataPath = field.NewPath("metadata")

// ValidateObjectMeta returns every fault in the metadata of a new object, by
// kube-apiserver's rules. Its name must satisfy nameFn, which every DNS label does, and whose
// second argument is true where the name is a generateName.
func ValidateObjectMeta(meta *metav1.ObjectMeta, namespaced bool, nameFn validation.ValidateNameFunc) field.ErrorList {
	errs := validation.ValidateObjectMeta(meta, namespaced, nameFn, metadataPath)
	errs = append(errs, validateFinalizerNames(meta.Finalizers)...)
	if len(errs) == 0 && meta.GenerateName != "" {
		// Prefix rules of name functions forgive what precedes a final dash.
		for _, msg := range content.IsPathSegmentPrefix(meta.GenerateName) {
			errs = append(errs, field.Invalid(metadataPath.Child("generateName"), meta.GenerateName, msg))
		}
	}
	return errs
}

// ValidateObjectMetaUpdate returns every fault of meta as the successor of old, each
// once, by kube-apiserver's rules and in its order. The arguments are those of
// ValidateObjectMeta.
func ValidateObjectMetaUpdate(meta, old *metav1.ObjectMeta, namespaced bool, nameFn validation.ValidateNameFunc) field.ErrorList {
	errs := validation.ValidateObjectMeta(meta, namespaced, pathSegmentName, metadataPath)
	errs = append(errs, validation.ValidateObjectMetaUpdate(meta, old, metadataPath)...)
	errs = append(errs, validateFinalizerNames(meta.Finalizers)...)
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

// ValidateFinalizerName returns the fault of a finalizer without a domain that is not one
// of the three that Kubernetes itself uses, nil when it has none.
func ValidateFinalizerName(name string, path *field.Path) *field.Error {
	if strings.Contains(name, "/") || slices.Contains(standardFinalizers, name) {
		return nil
	}
	return field.Invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified")
}

var standardFinalizers = []string{"kubernetes", metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents}

func validateFinalizerNames(names []string) field.ErrorList {
	var errs field.ErrorList
	for i, name := range names {
		if err := ValidateFinalizerName(name, metadataPath.Child("finalizers").Index(i)); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// pathSegmentName is the rule for the name of any resource.
func pathSegmentName(name string, prefix bool) []string {
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
