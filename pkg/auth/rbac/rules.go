package rbac

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/berth-project/berth/pkg/auth"
)

// maxMissing bounds the roles that a text names.
const maxMissing = 20

// MissingRoles are the roles that bindings of a user name and that are not there, each once. As
// an error it tells of them in kube-apiserver's words.
type MissingRoles []rbacv1.RoleRef

func (m *MissingRoles) add(r *role) {
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: r.kind, Name: r.name}
	if len(*m) <= maxMissing && !slices.Contains(*m, ref) {
		*m = append(*m, ref)
	}
}

// Error names the roles by their kinds, as refusals and reviews do.
func (m MissingRoles) Error() string { return m.text("") }

// byResource names the roles by their resources, as a refused grant does.
func (m MissingRoles) byResource() string { return m.text("s") }

// text names the roles; plural ends the name of a kind in lower case.
func (m MissingRoles) text(plural string) string {
	all := make([]string, 0, len(m))
	for _, ref := range m[:min(len(m), maxMissing)] {
		switch ref.Kind {
		case KindRole, KindClusterRole:
			all = append(all, fmt.Sprintf("%s%s.%s %q not found", strings.ToLower(ref.Kind), plural, rbacv1.GroupName, shortened(ref.Name)))
		default:
			all = append(all, fmt.Sprintf("unsupported role reference kind: %q", shortened(ref.Kind)))
		}
	}
	if len(m) > maxMissing {
		all = append(all, "and more")
	}
	if len(all) == 1 {
		return all[0]
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// maxListedBytes bounds what RulesFor returns, roughly as JSON: a user who may write bindings could
// have the same role a thousand times.
const maxListedBytes = 256 << 10

// RulesFor returns the rules that the user has in the namespace, those of the whole server
// first, or with namespace "" those alone; what several bindings give is repeated. incomplete says
// that there are more than are returned. The rules must not be changed. The error is MissingRoles,
// beside the rules of the roles that are there.
func (a *Authorizer) RulesFor(user *auth.User, namespace string) (rules []rbacv1.PolicyRule, incomplete bool, err error) {
	size := 0
	missing := a.visitRoles(user, namespace, func(r *role, bindings int) {
		weight := weigh(r.rules)
		for range bindings {
			if size += weight; size > maxListedBytes {
				incomplete = true
				return
			}
			rules = append(rules, r.rules...)
		}
	})
	if len(missing) > 0 {
		err = missing
	}
	return rules, incomplete, err
}

// weigh returns how many bytes the rules are as JSON, roughly.
func weigh(rules []rbacv1.PolicyRule) int {
	const ruleBytes, entryBytes = 100, 3
	size := 0
	for i := range rules {
		r := &rules[i]
		size += ruleBytes
		for _, list := range [][]string{r.Verbs, r.APIGroups, r.Resources, r.ResourceNames, r.NonResourceURLs} {
			for _, entry := range list {
				size += entryBytes + len(entry)
			}
		}
	}
	return size
}

// heldBy returns the rules that the user has in the namespace, and at the scope of the whole
// server, those of each role once.
func (a *Authorizer) heldBy(user *auth.User, namespace string) (rules []rbacv1.PolicyRule, missing MissingRoles) {
	missing = a.visitRoles(user, namespace, func(r *role, _ int) { rules = append(rules, r.rules...) })
	return rules, missing
}

// visitRoles calls visit for each role that the user has in the namespace, those of the whole
// server first, with the number of bindings that give it. It returns those that are not there.
func (a *Authorizer) visitRoles(user *auth.User, namespace string, visit func(r *role, bindings int)) (missing MissingRoles) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	namespaces := []string{"", namespace}
	if namespace == "" {
		namespaces = namespaces[:1]
	}
	for _, namespace := range namespaces {
		for r, bindings := range a.scopes[namespace].rolesOf(user) {
			if r.exists {
				visit(r, bindings)
			} else {
				missing.add(r)
			}
		}
	}
	return missing
}

// rolesOf returns the roles that the user has in the scope, and by how many bindings.
func (s *scope) rolesOf(user *auth.User) func(yield func(*role, int) bool) {
	return func(yield func(*role, int) bool) {
		if s == nil {
			return
		}
		var order []*role
		by := map[*role]map[*binding]bool{}
		collect := func(grants []*grant) {
			for _, g := range grants {
				if by[g.role] == nil {
					by[g.role], order = map[*binding]bool{}, append(order, g.role)
				}
				for _, one := range g.by {
					by[g.role][one.binding] = true // perhaps as the user and as one of the group
				}
			}
		}
		collect(s.users[user.Name])
		for _, group := range user.Groups {
			collect(s.groups[group])
		}
		for _, r := range order {
			if !yield(r, len(by[r])) {
				return
			}
		}
	}
}

// rulesOf returns the rules of the role that a binding in the namespace refers to, and whether
// it is there. A role with an aggregationRule has those already that it will be put together of.
func (a *Authorizer) rulesOf(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, bool) {
	k := key{ref.Kind, "", ref.Name}
	if ref.Kind == KindRole {
		k.namespace = namespace
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	r := a.roles[k]
	if r == nil || !r.exists {
		return nil, false
	}
	if whole := a.cluster[k.name]; k.kind == KindClusterRole && whole != nil && whole.AggregationRule != nil {
		return toBe(whole, slices.Collect(maps.Values(a.cluster))), true
	}
	return r.rules, true
}
