package rbac

import (
	"fmt"
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
			all = append(all, fmt.Sprintf("%s%s.%s %q not found", strings.ToLower(ref.Kind), plural, rbacv1.GroupName, ref.Name))
		default:
			all = append(all, fmt.Sprintf("unsupported role reference kind: %q", ref.Kind))
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

// RulesFor returns the rules that the user has in the namespace, those of the whole server
// first, or with namespace "" those alone; what several bindings give is repeated. The rules must
// not be changed. The error is MissingRoles, beside the rules of the roles that are there.
func (a *Authorizer) RulesFor(user *auth.User, namespace string) ([]rbacv1.PolicyRule, error) {
	rules, missing := a.rulesFor(user, namespace, true)
	if len(missing) > 0 {
		return rules, missing
	}
	return rules, nil
}

// rulesFor is RulesFor; unless they are to be repeated, the rules of each role are there once.
func (a *Authorizer) rulesFor(user *auth.User, namespace string, repeat bool) (rules []rbacv1.PolicyRule, missing MissingRoles) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	namespaces := []string{"", namespace}
	if namespace == "" {
		namespaces = namespaces[:1]
	}
	for _, namespace := range namespaces {
		for r, bindings := range a.scopes[namespace].rolesOf(user) {
			if !r.exists {
				missing.add(r)
				continue
			}
			if !repeat {
				bindings = 1
			}
			for range bindings {
				rules = append(rules, r.rules...)
			}
		}
	}
	return rules, missing
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
// it is there.
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
	return r.rules, true
}
