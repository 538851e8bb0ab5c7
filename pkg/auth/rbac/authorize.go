package rbac

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/berth-project/berth/pkg/auth"
)

var _ auth.Authorizer = (*Authorizer)(nil)

// Authorize allows what a rule of a role allows that the user is bound to, and everything to
// system:masters. The reason is in kube-apiserver's words: which binding allows it, or for a
// refusal which roles are missing. There is never an error.
func (a *Authorizer) Authorize(_ context.Context, attrs auth.Attributes) (allowed bool, reason string, err error) {
	user := attrs.User
	if user == nil {
		return false, "", nil
	}
	if slices.Contains(user.Groups, auth.SystemPrivilegedGroup) {
		return true, "", nil
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	d := decision{left: maxRules}
	found := d.find(a.scopes[""], user, &attrs)
	if found == nil && attrs.ResourceRequest && attrs.Namespace != "" {
		found = d.find(a.scopes[attrs.Namespace], user, &attrs)
	}
	switch {
	case found != nil:
		return true, found.reasonFor(user), nil
	case d.left < 0:
		return false, fmt.Sprintf("rbac: the user is bound to more than %d rules, and no others are looked at", maxRules), nil
	case len(d.missing) > 0:
		return false, "rbac: RBAC: " + d.missing.Error(), nil
	}
	return false, "", nil
}

// maxRules bounds the rules that are looked at for a decision: that many take about half a
// millisecond. Whoever may write roles in one namespace could have each of its requests, and each of its
// watches at every change of roles, take seconds.
const maxRules = 20_000

// decision is what is known while it is being found out whether a request is allowed.
type decision struct {
	left    int // how many more rules may be looked at; below 0: there are more
	missing MissingRoles
}

// find returns what allows the request to the user, or nil. Roles that are missing it notes.
func (d *decision) find(s *scope, user *auth.User, attrs *auth.Attributes) *given {
	if s == nil {
		return nil
	}
	if found := d.among(s.users[user.Name], attrs); found != nil {
		return found
	}
	for _, group := range user.Groups {
		if found := d.among(s.groups[group], attrs); found != nil {
			return found
		}
	}
	return nil
}

func (d *decision) among(grants []*grant, attrs *auth.Attributes) *given {
	for _, g := range grants {
		if d.left -= g.role.cost; d.left < 0 {
			return nil
		}
		if !g.role.exists {
			d.missing.add(g.role)
			continue
		}
		for i := range g.role.rules {
			if allows(&g.role.rules[i], attrs) {
				return g.by[0]
			}
		}
	}
	return nil
}

// costOf returns as how many rules of ordinary size it counts to look at the rules of a role.
func costOf(rules []rbacv1.PolicyRule) int {
	const ordinary = 16 // entries
	return 1 + len(rules) + int(entries(rules))/ordinary
}

// reasonFor is the reason as it names the first of the binding's subjects that is the user.
func (g *given) reasonFor(user *auth.User) string {
	b := g.binding
	for i := range g.subject {
		if b.subjectIs(&b.subjects[i], user) {
			return b.because(i)
		}
	}
	return g.because()
}

// subjectIs reports whether the subject is the user, or a group that he is in.
func (b *binding) subjectIs(sub *rbacv1.Subject, user *auth.User) bool {
	switch sub.Kind {
	case rbacv1.UserKind:
		return sub.Name == user.Name
	case rbacv1.GroupKind:
		return slices.Contains(user.Groups, sub.Name)
	case rbacv1.ServiceAccountKind:
		return strings.HasPrefix(user.Name, "system:serviceaccount:") && b.serviceAccount(sub) == user.Name
	}
	return false
}

// allows reports whether the rule allows the request, by upstream's rules: everything is
// compared as it is written, and "*" is the only wildcard, except at the end of a URL.
func allows(rule *rbacv1.PolicyRule, attrs *auth.Attributes) bool {
	if !hasOrAll(rule.Verbs, attrs.Verb, rbacv1.VerbAll) {
		return false
	}
	if !attrs.ResourceRequest {
		return allowsPath(rule.NonResourceURLs, attrs.Path)
	}
	return hasOrAll(rule.APIGroups, attrs.APIGroup, rbacv1.APIGroupAll) &&
		allowsResource(rule.Resources, attrs.Resource, attrs.Subresource) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, attrs.Name))
}

// hasOrAll reports whether one or all is in the list.
func hasOrAll(list []string, one, all string) bool {
	for _, entry := range list {
		if entry == one || entry == all {
			return true
		}
	}
	return false
}

// allowsResource reports whether an entry is "*", the resource, or for a subresource both with a
// slash or "*/subresource".
func allowsResource(entries []string, resource, subresource string) bool {
	for _, entry := range entries {
		if entry == rbacv1.ResourceAll {
			return true
		}
		if subresource == "" {
			if entry == resource {
				return true
			}
			continue
		}
		head, ok := strings.CutSuffix(entry, subresource)
		if !ok {
			continue
		}
		if head, ok = strings.CutSuffix(head, "/"); ok && (head == resource || head == "*") {
			return true
		}
	}
	return false
}

// allowsPath reports whether an entry is "*", the path, or ends in "*" and is a prefix of it
// without the asterisks at its end.
func allowsPath(entries []string, path string) bool {
	for _, entry := range entries {
		if entry == rbacv1.NonResourceAll || entry == path {
			return true
		}
		if strings.HasSuffix(entry, "*") && strings.HasPrefix(path, strings.TrimRight(entry, "*")) {
			return true
		}
	}
	return false
}
