package rbac

import (
	"cmp"
	"slices"
	"strconv"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Aggregate returns the rules of a role with an aggregationRule: those of all other roles that
// one of its selectors selects, selector by selector, in the order of the roles' names and each
// rule once, as kube-controller-manager puts them together. changed is whether they are not what
// the role has. The rules are shared with the other roles.
func Aggregate(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) (rules []rbacv1.PolicyRule, changed bool) {
	seen := map[string]bool{}
	for _, other := range partsOf(role, all) {
		for _, rule := range other.Rules {
			if id := identity(&rule); !seen[id] {
				seen[id] = true
				rules = append(rules, rule)
			}
		}
	}
	return rules, !equality.Semantic.DeepEqual(rules, role.Rules)
}

// partsOf returns the roles that a role's aggregationRule selects, selector by selector.
func partsOf(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) (parts []*rbacv1.ClusterRole) {
	if role.AggregationRule == nil {
		return nil
	}
	sorted := slices.SortedFunc(slices.Values(all), func(a, b *rbacv1.ClusterRole) int { return cmp.Compare(a.Name, b.Name) })
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			continue // validation refuses it: another program has stored it
		}
		for _, other := range sorted {
			if other.Name != role.Name && selector.Matches(labels.Set(other.Labels)) {
				parts = append(parts, other)
			}
		}
	}
	return parts
}

// toBe returns the rules of a role and of all that become part of it. Between a write and its
// aggregation a role has none of them.
func toBe(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) (rules []rbacv1.PolicyRule) {
	seen := map[string]bool{role.Name: true}
	for found := []*rbacv1.ClusterRole{role}; len(found) > 0; found = found[1:] {
		rules = append(rules, found[0].Rules...)
		for _, part := range partsOf(found[0], all) {
			if !seen[part.Name] {
				seen[part.Name] = true
				found = append(found, part)
			}
		}
	}
	return rules
}

// identity tells rules apart.
func identity(rule *rbacv1.PolicyRule) string {
	var id []byte
	for _, list := range [][]string{rule.Verbs, rule.APIGroups, rule.Resources, rule.ResourceNames, rule.NonResourceURLs} {
		for _, entry := range list {
			id = strconv.AppendQuote(id, entry)
		}
		id = append(id, ';')
	}
	return string(id)
}
