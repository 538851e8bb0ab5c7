package rbac

import (
	"context"
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
	var missing MissingRoles
	found := a.scopes[""].find(user, &attrs, &missing)
	if found == nil && attrs.ResourceRequest && attrs.Namespace != "" {
		found = a.scopes[attrs.Namespace].find(user, &attrs, &missing)
	}
	if found != nil {
		return true, found.reasonFor(user), nil
	}
	if len(missing) > 0 {
		reason = "rbac: RBAC: " + missing.Error()
	}
	return false, reason, nil
}

// find returns what allows the request to the user, or nil. Roles that are missing it adds.
func (s *scope) find(user *auth.User, attrs *auth.Attributes, missing *MissingRoles) *given {
	if s == nil {
		return nil
	}
	if found := find(s.users[user.Name], attrs, missing); found != nil {
		return found
	}
	for _, group := range user.Groups {
		if found := find(s.groups[group], attrs, missing); found != nil {
			return found
		}
	}
	return nil
}

func find(grants []*grant, attrs *auth.Attributes, missing *MissingRoles) *given {
	for _, g := range grants {
		if !g.role.exists {
			missing.add(g.role)
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
