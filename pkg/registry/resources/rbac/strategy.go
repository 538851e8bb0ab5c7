package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
)

var (
	_ registry.Strategy = roleStrategy{}
	_ registry.Strategy = clusterRoleStrategy{}
	_ registry.Strategy = bindingStrategy{}
)

// name is the rule for the names of all four kinds: a segment of a path, whatever is in it.
func name(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

// roleStrategy is the registry.Strategy of Role. Its objects are *rbacv1.Role.
type roleStrategy struct{}

// Default does nothing: no field has a default.
func (roleStrategy) Default(runtime.Object) {}

// PrepareForCreate makes null of an empty list of rules.
func (roleStrategy) PrepareForCreate(obj runtime.Object) {
	if role := obj.(*rbacv1.Role); len(role.Rules) == 0 {
		role.Rules = nil
	}
}

// PrepareForUpdate does what PrepareForCreate does.
func (s roleStrategy) PrepareForUpdate(obj, _ runtime.Object) { s.PrepareForCreate(obj) }

// Validate returns every fault of a new role.
func (roleStrategy) Validate(obj runtime.Object) field.ErrorList {
	role := obj.(*rbacv1.Role)
	errs := objectmeta.Validate(&role.ObjectMeta, true, name)
	return append(errs, validateRules(role.Rules, true)...)
}

// ValidateUpdate returns every fault of obj as the successor of old.
func (roleStrategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	role := obj.(*rbacv1.Role)
	errs := objectmeta.ValidateUpdate(&role.ObjectMeta, &old.(*rbacv1.Role).ObjectMeta, true, name)
	return append(errs, validateRules(role.Rules, true)...)
}

// Warnings returns nil.
func (roleStrategy) Warnings(_, _ runtime.Object) []string { return nil }

// clusterRoleStrategy is the registry.Strategy of ClusterRole. Its objects are
// *rbacv1.ClusterRole.
type clusterRoleStrategy struct{}

// Default does nothing: no field has a default.
func (clusterRoleStrategy) Default(runtime.Object) {}

// PrepareForCreate makes null of an empty list of rules.
func (clusterRoleStrategy) PrepareForCreate(obj runtime.Object) {
	if role := obj.(*rbacv1.ClusterRole); len(role.Rules) == 0 {
		role.Rules = nil
	}
}

// PrepareForUpdate does what PrepareForCreate does.
func (s clusterRoleStrategy) PrepareForUpdate(obj, _ runtime.Object) { s.PrepareForCreate(obj) }

// Validate returns every fault of a new role.
func (clusterRoleStrategy) Validate(obj runtime.Object) field.ErrorList {
	role := obj.(*rbacv1.ClusterRole)
	errs := objectmeta.Validate(&role.ObjectMeta, false, name)
	return append(errs, validateClusterRole(role, nil)...)
}

// ValidateUpdate returns every fault of obj as the successor of old.
func (clusterRoleStrategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	role, stored := obj.(*rbacv1.ClusterRole), old.(*rbacv1.ClusterRole)
	errs := objectmeta.ValidateUpdate(&role.ObjectMeta, &stored.ObjectMeta, false, name)
	return append(errs, validateClusterRole(role, stored)...)
}

// Warnings returns nil.
func (clusterRoleStrategy) Warnings(_, _ runtime.Object) []string { return nil }

// bindingStrategy is the registry.Strategy of RoleBinding and ClusterRoleBinding. Its objects
// are *rbacv1.RoleBinding where they are namespaced, and *rbacv1.ClusterRoleBinding.
type bindingStrategy struct{ namespaced bool }

// Default fills in the API groups of the role and of users and groups.
func (bindingStrategy) Default(obj runtime.Object) {
	b := fieldsOf(obj)
	b.setDefaults()
}

// PrepareForCreate drops an empty list of subjects.
func (bindingStrategy) PrepareForCreate(obj runtime.Object) {
	if b := fieldsOf(obj); len(*b.subjects) == 0 {
		*b.subjects = nil
	}
}

// PrepareForUpdate does what PrepareForCreate does.
func (s bindingStrategy) PrepareForUpdate(obj, _ runtime.Object) { s.PrepareForCreate(obj) }

// Validate returns every fault of a new binding.
func (s bindingStrategy) Validate(obj runtime.Object) field.ErrorList {
	b := fieldsOf(obj)
	errs := objectmeta.Validate(b.meta, s.namespaced, name)
	return append(errs, s.validate(b, nil)...)
}

// ValidateUpdate returns every fault of obj as the successor of old, whose role it keeps.
func (s bindingStrategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	b, stored := fieldsOf(obj), fieldsOf(old)
	errs := objectmeta.ValidateUpdate(b.meta, stored.meta, s.namespaced, name)
	return append(errs, s.validate(b, stored.roleRef)...)
}

// Warnings returns nil.
func (bindingStrategy) Warnings(_, _ runtime.Object) []string { return nil }
