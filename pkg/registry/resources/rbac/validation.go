package rbac

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// faults are those of an object. kube-apiserver finds some by the markers of its types: they
// come behind all others, and say no more than what is required.
type faults struct {
	errs, last field.ErrorList
}

func (f *faults) add(errs ...*field.Error) { f.errs = append(f.errs, errs...) }

func (f *faults) require(path *field.Path) { f.last = append(f.last, field.Required(path, "")) }

func (f *faults) all() field.ErrorList { return append(f.errs, f.last...) }

func validateRules(rules []rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var f faults
	f.rules(rules, namespaced)
	return f.all()
}

func (f *faults) rules(rules []rbacv1.PolicyRule, namespaced bool) {
	for i := range rules {
		rule, path := &rules[i], field.NewPath("rules").Index(i)
		if len(rule.Verbs) == 0 {
			f.require(path.Child("verbs"))
		}
		if urls := rule.NonResourceURLs; len(urls) > 0 {
			at := path.Child("nonResourceURLs")
			if namespaced {
				f.add(field.Invalid(at, urls, "namespaced rules cannot apply to non-resource URLs"))
			}
			if len(rule.APIGroups) > 0 || len(rule.Resources) > 0 || len(rule.ResourceNames) > 0 {
				f.add(field.Invalid(at, urls, "rules cannot apply to both regular resources and non-resource URLs"))
			}
			continue
		}
		if len(rule.APIGroups) == 0 {
			f.add(field.Required(path.Child("apiGroups"), "resource rules must supply at least one api group"))
		}
		if len(rule.Resources) == 0 {
			f.add(field.Required(path.Child("resources"), "resource rules must supply at least one resource"))
		}
	}
}

// validateClusterRole returns the faults of a role behind its metadata; old is what it replaces,
// or nil.
func validateClusterRole(role, old *rbacv1.ClusterRole) field.ErrorList {
	var f faults
	f.rules(role.Rules, false)
	if role.AggregationRule == nil {
		return f.all()
	}
	path := field.NewPath("aggregationRule", "clusterRoleSelectors")
	selectors := role.AggregationRule.ClusterRoleSelectors
	if len(selectors) == 0 {
		f.add(field.Required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
	}
	opts := metav1validation.LabelSelectorValidationOptions{
		AllowInvalidLabelValueInSelector: old != nil && old.AggregationRule != nil && hasInvalidValue(old.AggregationRule.ClusterRoleSelectors),
	}
	for i := range selectors {
		f.add(metav1validation.ValidateLabelSelector(&selectors[i], opts, path.Index(i))...)
		if selector, err := metav1.LabelSelectorAsSelector(&selectors[i]); err != nil {
			f.add(field.Invalid(path.Index(i), selector, "invalid label selector."))
		}
	}
	return f.all()
}

// hasInvalidValue reports whether a selector that is stored has a value that no label has, which
// is no fault of its successor.
func hasInvalidValue(selectors []metav1.LabelSelector) bool {
	strict := metav1validation.LabelSelectorValidationOptions{}
	loose := metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: true}
	return slices.ContainsFunc(selectors, func(s metav1.LabelSelector) bool {
		return len(metav1validation.ValidateLabelSelector(&s, strict, nil)) > len(metav1validation.ValidateLabelSelector(&s, loose, nil))
	})
}

// validate returns the faults of a binding behind its metadata; old is the role of the binding
// that it replaces, or nil.
func (s bindingStrategy) validate(b binding, old *rbacv1.RoleRef) field.ErrorList {
	var f faults
	ref, path := b.roleRef, field.NewPath("roleRef")
	if ref.APIGroup != rbacv1.GroupName {
		f.add(field.NotSupported(path.Child("apiGroup"), ref.APIGroup, []string{rbacv1.GroupName}))
	}
	kinds := []string{"ClusterRole"}
	if s.namespaced {
		kinds = []string{"Role", "ClusterRole"}
	}
	if !slices.Contains(kinds, ref.Kind) {
		f.add(field.NotSupported(path.Child("kind"), ref.Kind, kinds))
	}
	changed := old != nil && *old != *ref
	switch {
	case ref.Name == "" && changed: // the markers say no more of a reference that may not change
		f.add(field.Required(path.Child("name"), ""))
	case ref.Name == "":
		f.require(path.Child("name"))
	default:
		for _, msg := range name(ref.Name, false) {
			f.add(field.Invalid(path.Child("name"), ref.Name, msg))
		}
	}
	for i := range *b.subjects {
		f.subject(&(*b.subjects)[i], s.namespaced, field.NewPath("subjects").Index(i))
	}
	if changed {
		// The value is shown by the names of Go's fields.
		f.add(field.Invalid(path, struct{ APIGroup, Kind, Name string }(*ref), validation.FieldImmutableErrorMsg))
	}
	return f.all()
}

func (f *faults) subject(subject *rbacv1.Subject, namespaced bool, path *field.Path) {
	if subject.Name == "" {
		f.require(path.Child("name"))
	}
	group := ""
	switch subject.Kind {
	case rbacv1.ServiceAccountKind:
		if subject.Name != "" {
			for _, msg := range validation.ValidateServiceAccountName(subject.Name, false) {
				f.add(field.Invalid(path.Child("name"), subject.Name, msg))
			}
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		group = rbacv1.GroupName
	default:
		f.add(field.NotSupported(path.Child("kind"), subject.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
		return
	}
	if subject.APIGroup != group {
		f.add(field.NotSupported(path.Child("apiGroup"), subject.APIGroup, []string{group}))
	}
	if subject.Kind == rbacv1.ServiceAccountKind && !namespaced && subject.Namespace == "" {
		f.add(field.Required(path.Child("namespace"), ""))
	}
}
