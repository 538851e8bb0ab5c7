package iam

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/berth-project/berth/pkg/auth"
)

// ScopeAuthorizer gives the scope of a token a meaning where another Authorizer would allow
// everything. It denies what is beyond the scope, and leaves the rest to Next:
//
//   - a project's token reaches the project's namespaces, and what every user may read;
//   - the role reader alone only reads;
//   - a token for the domain reads everything; an administrator's may do everything;
//   - a token without a scope reaches what every user may read.
//
// Users that the token service does not know are Next's alone.
type ScopeAuthorizer struct {
	Service *Service
	Next    auth.Authorizer
}

// Authorize implements auth.Authorizer.
func (z *ScopeAuthorizer) Authorize(ctx context.Context, a auth.Attributes) (allowed bool, reason string, err error) {
	if a.User != nil && a.User.Extra[extraDomainID] != nil && !slices.Contains(a.User.Groups, auth.SystemPrivilegedGroup) {
		if reason := z.beyond(a); reason != "" {
			return false, reason, nil
		}
	}
	return z.Next.Authorize(ctx, a)
}

// Changed implements auth.Changing: a project's namespaces change with the file.
func (z *ScopeAuthorizer) Changed() <-chan struct{} {
	z.Service.mu.RLock()
	defer z.Service.mu.RUnlock()
	return z.Service.loaded
}

var _ auth.Changing = (*ScopeAuthorizer)(nil)

// writes are the verbs that change objects. Others, such as impersonate on service accounts, would
// lead out of the scope.
var writes = []string{"create", "update", "patch", "delete", "deletecollection", "unsafe-delete-ignore-read-errors"}

// reads reports whether the verb changes nothing.
func reads(verb string) bool { return verb == "get" || verb == "list" || verb == "watch" }

// beyond returns why the scope of the token does not reach a, "" if it does.
func (z *ScopeAuthorizer) beyond(a auth.Attributes) string {
	if forEverybody(a) {
		return ""
	}
	projects, roles := a.User.Extra[extraProjectID], a.User.Extra[extraRoles]
	switch {
	case len(projects) == 0 && len(roles) == 0:
		return "the token has no scope: log in with a project"
	case len(projects) == 0 && reads(a.Verb):
		return "" // an auditor of the domain
	case len(projects) == 0:
		return "a token for the domain only reads, without the role " + AdminRole
	case !a.ResourceRequest:
		return "the path is beyond the token's project"
	}
	p := z.Service.current().projectByID(projects[0])
	switch {
	case p == nil || a.Namespace == "" || !slices.Contains(p.namespaces, a.Namespace):
		return fmt.Sprintf("the token is for project %q, %s", strings.Join(a.User.Extra[extraProjectName], ""), p.reach())
	case reads(a.Verb):
		return ""
	case !slices.Contains(writes, a.Verb):
		return "the token's scope does not include the verb"
	case a.APIGroup == "" && a.Resource == "namespaces":
		return "a project's namespaces are made and deleted by administrators"
	case a.APIGroup == "rbac.authorization.k8s.io":
		return "roles and bindings, which count once RBAC is on, are made by administrators"
	case !slices.ContainsFunc(roles, func(role string) bool { return role != readerRole }):
		return "the role " + readerRole + " only reads"
	}
	return ""
}

// reach says in words where a project's tokens are good for.
func (p *project) reach() string {
	if p == nil || len(p.namespaces) == 0 {
		return "which has no namespaces"
	}
	return "whose namespaces are " + strings.Join(p.namespaces[:min(len(p.namespaces), 10)], ", ")
}

// selfReviews are what every user may ask about themselves, by their groups.
var selfReviews = map[string][]string{
	"authentication.k8s.io": {"selfsubjectreviews"},
	"authorization.k8s.io":  {"selfsubjectaccessreviews", "selfsubjectrulesreviews"},
}

// forEverybody reports whether a is what every user may do: discovery, health, the version, one's
// own limits, and reviews of oneself.
func forEverybody(a auth.Attributes) bool {
	if a.ResourceRequest {
		return a.Verb == "create" && a.Subresource == "" && slices.Contains(selfReviews[a.APIGroup], a.Resource)
	}
	if a.Verb != "get" && a.Verb != "head" && a.Verb != "options" {
		return false
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(a.Path, "/"), "/")
	switch first {
	case "", "api", "apis", "openapi", "version", "healthz", "livez", "readyz":
		return true
	}
	return a.Path == "/debug/limits"
}
