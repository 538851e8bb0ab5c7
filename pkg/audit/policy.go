package audit

import (
	"slices"
	"strings"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/berth-project/berth/pkg/auth"
)

// Level is how much is recorded of a request. Each one includes those below it.
type Level uint8

// The levels of audit.k8s.io.
const (
	None            Level = iota // nothing
	Metadata                     // who did what, when, and what came of it
	Request                      // the object or patch that was sent, too
	RequestResponse              // the object that was answered, too
)

// levelNames are in the order of the levels.
var levelNames = []auditv1.Level{auditv1.LevelNone, auditv1.LevelMetadata, auditv1.LevelRequest, auditv1.LevelRequestResponse}

// String returns the name that policies and events have for the level.
func (l Level) String() string { return string(levelNames[l]) }

// stageNames are the stages of audit.k8s.io, in the order of a request.
var stageNames = []auditv1.Stage{auditv1.StageRequestReceived, auditv1.StageResponseStarted, auditv1.StageResponseComplete, auditv1.StagePanic}

// Policy decides how much is recorded of a request. It is never changed.
type Policy struct {
	rules []rule
}

// rule is one of a policy's, with what the policy says for all of them.
type rule struct {
	auditv1.PolicyRule
	decision decision
}

// decision is what is recorded of a request.
type decision struct {
	level      Level
	omitStages []auditv1.Stage
	// omitManagedFields has metadata.managedFields left out of objects.
	omitManagedFields bool
}

// newPolicy returns the policy that p describes, which is valid.
func newPolicy(p *auditv1.Policy) *Policy {
	policy := &Policy{}
	for _, r := range p.Rules {
		d := decision{
			level:             Level(slices.Index(levelNames, r.Level)),
			omitStages:        slices.Concat(p.OmitStages, r.OmitStages),
			omitManagedFields: p.OmitManagedFields,
		}
		if r.OmitManagedFields != nil {
			d.omitManagedFields = *r.OmitManagedFields
		}
		policy.rules = append(policy.rules, rule{r, d})
	}
	return policy
}

// decide returns what the first rule says that fits the request; none of them: None. a.User is
// nil for a request that failed to authenticate.
func (p *Policy) decide(a *auth.Attributes) decision {
	for i := range p.rules {
		if p.rules[i].fits(a) {
			return p.rules[i].decision
		}
	}
	return decision{}
}

// fits reports whether all conditions of the rule hold. An empty one always does.
func (r *rule) fits(a *auth.Attributes) bool {
	switch {
	case len(r.Users) > 0 && (a.User == nil || !slices.Contains(r.Users, a.User.Name)),
		len(r.UserGroups) > 0 && (a.User == nil || !intersect(r.UserGroups, a.User.Groups)),
		len(r.Verbs) > 0 && !slices.Contains(r.Verbs, a.Verb):
		return false
	case len(r.Namespaces) > 0 || len(r.Resources) > 0:
		return a.ResourceRequest &&
			(len(r.Namespaces) == 0 || slices.Contains(r.Namespaces, a.Namespace)) &&
			(len(r.Resources) == 0 || slices.ContainsFunc(r.Resources, func(g auditv1.GroupResources) bool { return hasResource(&g, a) }))
	case len(r.NonResourceURLs) > 0:
		return !a.ResourceRequest && slices.ContainsFunc(r.NonResourceURLs, func(pattern string) bool { return hasPath(pattern, a.Path) })
	}
	return true
}

func intersect(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// hasResource reports whether the request is for one of the resources. Its name counts as it
// stands in the URL: that of a create is in its body.
func hasResource(g *auditv1.GroupResources, a *auth.Attributes) bool {
	switch {
	case g.Group != a.APIGroup && g.Group != "*":
		return false
	case len(g.Resources) == 0:
		return true
	case len(g.ResourceNames) > 0 && !slices.Contains(g.ResourceNames, a.Name):
		return false
	}
	return slices.ContainsFunc(g.Resources, func(pattern string) bool {
		if pattern == "*" {
			return true
		}
		resource, subresource, _ := strings.Cut(pattern, "/")
		switch {
		case resource == "*":
			return a.Subresource != "" && subresource == a.Subresource
		case subresource == "*": // fits the resource itself, too: so does kube-apiserver's
			return resource == a.Resource
		}
		return resource == a.Resource && subresource == a.Subresource
	})
}

// hasPath reports whether the pattern, which may end in a star, is about the path.
func hasPath(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(path, prefix)
	}
	return pattern == path
}
