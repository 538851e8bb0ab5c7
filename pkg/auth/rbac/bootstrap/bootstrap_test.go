package bootstrap

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The lists of every rule are sorted, every binding's role is there, and all carry what tells
// them from others.
func TestPolicy(t *testing.T) {
	var names []string
	for _, role := range ClusterRoles() {
		names = append(names, role.Name)
		if role.Labels[bootstrapping] != rbacDefaults || role.Annotations[rbacv1.AutoUpdateAnnotationKey] != "true" {
			t.Errorf("%s: %v, %v", role.Name, role.Labels, role.Annotations)
		}
		for _, rule := range role.Rules {
			for _, list := range [][]string{rule.Verbs, rule.APIGroups, rule.Resources, rule.NonResourceURLs} {
				if !slices.IsSorted(list) {
					t.Errorf("%s: %q is not sorted", role.Name, list)
				}
			}
		}
	}
	if unique := slices.Compact(slices.Sorted(slices.Values(names))); len(unique) != len(names) {
		t.Errorf("a role is there twice: %q", names)
	}
	for _, binding := range ClusterRoleBindings() {
		if !slices.Contains(names, binding.RoleRef.Name) {
			t.Errorf("%s is of no role", binding.Name)
		}
	}
}

func TestRole(t *testing.T) {
	want := clusterRole("r", on([]string{"get", "list"}, []string{""}, "a", "b"))
	stored := func(change func(*rbacv1.ClusterRole)) *rbacv1.ClusterRole {
		role := want.DeepCopy()
		role.ResourceVersion = "7"
		change(role)
		return role
	}
	aggregate := func(keys ...string) *rbacv1.AggregationRule {
		rule := &rbacv1.AggregationRule{}
		for _, key := range keys {
			rule.ClusterRoleSelectors = append(rule.ClusterRoleSelectors, metav1.LabelSelector{MatchLabels: map[string]string{key: "true"}})
		}
		return rule
	}
	for name, test := range map[string]struct{ is, next *rbacv1.ClusterRole }{
		"as it began": {stored(func(*rbacv1.ClusterRole) {}), nil},
		"more": {stored(func(r *rbacv1.ClusterRole) {
			r.Rules = append(r.Rules, on(write, []string{"x"}, "y"))
			r.Labels["mine"], r.Labels[bootstrapping] = "1", "changed"
		}), nil},
		"less": {
			stored(func(r *rbacv1.ClusterRole) {
				r.Rules, r.Labels = []rbacv1.PolicyRule{on([]string{"*"}, []string{""}, "a")}, map[string]string{"mine": "1"}
			}),
			stored(func(r *rbacv1.ClusterRole) {
				r.Rules = []rbacv1.PolicyRule{on([]string{"*"}, []string{""}, "a"), on([]string{"get"}, []string{""}, "b"), on([]string{"list"}, []string{""}, "b")}
				r.Labels["mine"] = "1"
			}),
		},
		"an aggregation": {stored(func(r *rbacv1.ClusterRole) { r.AggregationRule = aggregate("x") }), stored(func(*rbacv1.ClusterRole) {})},
	} {
		if diff := cmp.Diff(test.next, Role(test.is, want)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	sum := want.DeepCopy()
	sum.AggregationRule = aggregate("x", "y")
	got := Role(stored(func(r *rbacv1.ClusterRole) { r.AggregationRule = aggregate("z", "y") }), sum)
	if diff := cmp.Diff(aggregate("z", "y", "x"), got.AggregationRule); diff != "" {
		t.Errorf("selectors (-want +got)\n%s", diff)
	}
	if got := Role(stored(func(*rbacv1.ClusterRole) {}), sum); got == nil || len(got.AggregationRule.ClusterRoleSelectors) != 2 {
		t.Errorf("a role that did not aggregate becomes %v", got)
	}
}

func TestBinding(t *testing.T) {
	a, b := rbacv1.Subject{Kind: "Group", Name: "a"}, rbacv1.Subject{Kind: "Group", Name: "b"}
	want := clusterRoleBinding("r", a, b)
	is := want.DeepCopy()
	is.ResourceVersion, is.UID = "7", "u"
	if next, replace := Binding(is, want); next != nil || replace {
		t.Errorf("unchanged it becomes %v", next)
	}
	mine := rbacv1.Subject{Kind: "User", Name: "mine"}
	is.Subjects = []rbacv1.Subject{mine, b}
	next, replace := Binding(is, want)
	if diff := cmp.Diff([]rbacv1.Subject{mine, b, a}, next.Subjects); diff != "" || replace || next.ResourceVersion != "7" {
		t.Errorf("replace: %v, subjects (-want +got)\n%s", replace, diff)
	}
	is.RoleRef.Name = "mine"
	next, replace = Binding(is, want)
	if !replace || next.RoleRef != want.RoleRef || next.UID != "" || next.ResourceVersion != "" || len(next.Subjects) != 3 {
		t.Errorf("of another role: %v, %v", replace, next)
	}
}

func TestIsProtected(t *testing.T) {
	role := clusterRole("r")
	if IsProtected(role) {
		t.Error("a new one is")
	}
	if role.Annotations[rbacv1.AutoUpdateAnnotationKey] = "false"; !IsProtected(role) {
		t.Error("one that says so is not")
	}
}
