package bootstrap

import (
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// IsProtected reports whether the annotation autoupdate of an object says that it is to be left
// as it is.
func IsProtected(obj metav1.Object) bool {
	return obj.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] == "false"
}

// Role returns the successor of a role that has to become what want is at least, or nil where it
// may stay as it is: what it lacks is added, and what it has besides stays. Missing rules come
// behind the others, one for each verb, resource and name, as kube-apiserver adds them.
func Role(is, want *rbacv1.ClusterRole) *rbacv1.ClusterRole {
	next := is.DeepCopy()
	addMetadata(next, want)
	if _, missing := validation.Covers(is.Rules, want.Rules); len(missing) > 0 {
		next.Rules = append(next.Rules, missing...)
	}
	switch {
	case want.AggregationRule == nil:
		next.AggregationRule = nil
	case next.AggregationRule == nil:
		next.AggregationRule = want.AggregationRule.DeepCopy()
	default:
		for _, selector := range want.AggregationRule.ClusterRoleSelectors {
			has := slices.ContainsFunc(is.AggregationRule.ClusterRoleSelectors, func(one metav1.LabelSelector) bool {
				return equality.Semantic.DeepEqual(one, selector)
			})
			if !has {
				next.AggregationRule.ClusterRoleSelectors = append(next.AggregationRule.ClusterRoleSelectors, *selector.DeepCopy())
			}
		}
	}
	if equality.Semantic.DeepEqual(is, next) {
		return nil
	}
	return next
}

// Binding returns the successor of a binding, as Role does of a role. A binding to another role
// cannot be updated: replace has it deleted, and its successor created.
func Binding(is, want *rbacv1.ClusterRoleBinding) (next *rbacv1.ClusterRoleBinding, replace bool) {
	next = is.DeepCopy()
	addMetadata(next, want)
	for _, subject := range want.Subjects {
		if !slices.Contains(next.Subjects, subject) {
			next.Subjects = append(next.Subjects, subject)
		}
	}
	if is.RoleRef != want.RoleRef {
		next.RoleRef = want.RoleRef
		next.ResourceVersion, next.UID = "", ""
		return next, true
	}
	if equality.Semantic.DeepEqual(is, next) {
		return nil, false
	}
	return next, false
}

// addMetadata gives obj the labels and annotations of want that it does not have.
func addMetadata(obj, want metav1.Object) {
	obj.SetLabels(union(want.GetLabels(), obj.GetLabels()))
	obj.SetAnnotations(union(want.GetAnnotations(), obj.GetAnnotations()))
}

// union has the entries of both; those of over count.
func union(m, over map[string]string) map[string]string {
	all := maps.Clone(m)
	maps.Copy(all, over)
	return all
}
