// Package rbac holds the rules for the roles and bindings of rbac.authorization.k8s.io/v1. They
// are kube-apiserver's, down to the texts and the order of faults. What roles and bindings mean
// is known to pkg/auth/rbac.
package rbac

import (
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
)

// Resources describes rbac.authorization.k8s.io/v1: roles and bindings in namespaces, and those
// of the whole server.
func Resources() []*registry.Resource {
	roles := describe("Role", "roles", true, "7FuwZcIIItM=")
	roles.New = func() registry.APIObject { return &rbacv1.Role{} }
	roles.Strategy = roleStrategy{}
	clusterRoles := describe("ClusterRole", "clusterroles", false, "bYE5ZWDrJ44=")
	clusterRoles.New = func() registry.APIObject { return &rbacv1.ClusterRole{} }
	clusterRoles.Strategy = clusterRoleStrategy{}
	for _, resource := range []*registry.Resource{roles, clusterRoles} {
		resource.Columns, resource.Cells = roleColumns, roleCells
	}
	bindings := describe("RoleBinding", "rolebindings", true, "eGsCzGH6b1g=")
	bindings.New = func() registry.APIObject { return &rbacv1.RoleBinding{} }
	bindings.Columns = bindingColumns("roleBinding", rbacv1.RoleBinding{}.SwaggerDoc()["roleRef"])
	bindings.Strategy = bindingStrategy{namespaced: true}
	clusterBindings := describe("ClusterRoleBinding", "clusterrolebindings", false, "48tpQ8gZHFc=")
	clusterBindings.New = func() registry.APIObject { return &rbacv1.ClusterRoleBinding{} }
	clusterBindings.Columns = bindingColumns("clusterRoleBinding", rbacv1.ClusterRoleBinding{}.SwaggerDoc()["roleRef"])
	clusterBindings.Strategy = bindingStrategy{}
	bindings.Cells, clusterBindings.Cells = bindingCells, bindingCells
	return []*registry.Resource{clusterBindings, clusterRoles, bindings, roles}
}

func describe(kind, name string, namespaced bool, hash string) *registry.Resource {
	return &registry.Resource{
		API: metav1.APIResource{
			Group: rbacv1.GroupName, Version: "v1", Kind: kind, Name: name, SingularName: strings.ToLower(kind),
			Namespaced: namespaced, StorageVersionHash: hash,
		},
		AddToScheme: rbacv1.AddToScheme,
	}
}

// roleColumns show when a role was created rather than its age, as kube-apiserver does.
var roleColumns = []metav1.TableColumnDefinition{
	registry.NameColumn,
	{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
}

func roleCells(obj runtime.Object) []any {
	role := obj.(metav1.Object)
	return []any{role.GetName(), role.GetCreationTimestamp().UTC().Format(time.RFC3339)}
}

func bindingColumns(kind, role string) []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		registry.NameColumn,
		// kube-apiserver has the text of an older version, which does not say this.
		{Name: "Role", Type: "string", Description: strings.TrimSuffix(role, " This field is immutable.")},
		registry.AgeColumn,
		{Name: "Users", Type: "string", Priority: 1, Description: "Users in the " + kind},
		{Name: "Groups", Type: "string", Priority: 1, Description: "Groups in the " + kind},
		{Name: "ServiceAccounts", Type: "string", Priority: 1, Description: "ServiceAccounts in the " + kind},
	}
}

func bindingCells(obj runtime.Object) []any {
	b := fieldsOf(obj)
	var users, groups, accounts []string
	for _, subject := range *b.subjects {
		switch subject.Kind {
		case rbacv1.UserKind:
			users = append(users, subject.Name)
		case rbacv1.GroupKind:
			groups = append(groups, subject.Name)
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, subject.Namespace+"/"+subject.Name)
		}
	}
	list := func(names []string) string { return strings.Join(names, ", ") }
	return []any{b.meta.Name, b.roleRef.Kind + "/" + b.roleRef.Name, registry.Age, list(users), list(groups), list(accounts)}
}

// binding is what a RoleBinding and a ClusterRoleBinding have in common.
type binding struct {
	meta     *metav1.ObjectMeta
	roleRef  *rbacv1.RoleRef
	subjects *[]rbacv1.Subject
}

func fieldsOf(obj runtime.Object) binding {
	switch obj := obj.(type) {
	case *rbacv1.RoleBinding:
		return binding{&obj.ObjectMeta, &obj.RoleRef, &obj.Subjects}
	case *rbacv1.ClusterRoleBinding:
		return binding{&obj.ObjectMeta, &obj.RoleRef, &obj.Subjects}
	}
	panic("rbac: not a binding")
}

// setDefaults fills in the API groups that a client may leave out.
func (b *binding) setDefaults() {
	if b.roleRef.APIGroup == "" {
		b.roleRef.APIGroup = rbacv1.GroupName
	}
	owned := false
	for i, subject := range *b.subjects {
		if subject.APIGroup != "" || subject.Kind != rbacv1.UserKind && subject.Kind != rbacv1.GroupKind {
			continue
		}
		if !owned { // another object may have the list, too
			*b.subjects, owned = slices.Clone(*b.subjects), true
		}
		(*b.subjects)[i].APIGroup = rbacv1.GroupName
	}
}
