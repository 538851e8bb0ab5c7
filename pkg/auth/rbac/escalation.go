package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/component-helpers/auth/rbac/validation"

	"github.com/berth-project/berth/pkg/auth"
)

const (
	// maxSingleRules bounds the single rules, of one verb, resource and name each, that a write
	// may grant.
	maxSingleRules = 10_000
	// maxComparisons bounds how many entries of the user's own rules all of them are compared
	// with: this many take about a second.
	maxComparisons = 10_000_000
	// comparedAtOnce is how many single rules are compared before the time is looked at.
	comparedAtOnce = 100
	// maxLines bounds the lines of a refusal that say what is not held, and the verbs in one of them;
	// maxLinesBytes all of them together.
	maxLines      = 100
	maxLinesBytes = 128 << 10
)

// Write is a role or a binding that is to be stored.
type Write struct {
	// User is who writes. Namespace and Name are those of the request's path; Name is "" for
	// a POST.
	User            *auth.User
	Namespace, Name string
	// New is the object, a *rbacv1.Role, RoleBinding, ClusterRole or ClusterRoleBinding, and Old
	// what it replaces: nil if nothing.
	New, Old metav1.Object
}

// CheckWrite returns why the user may not make the write, nil if he may: nobody grants more than
// he holds, unless he may escalate the role, or bind to it. The rules and their order are
// kube-apiserver's.
//
// Errors: Forbidden, in kube-apiserver's words; NotFound for a role to bind to that is not there;
// and ctx's. A binding to an unknown kind of role is left to validation, which refuses it.
func (a *Authorizer) CheckWrite(ctx context.Context, w Write) error {
	if slices.Contains(w.User.Groups, auth.SystemPrivilegedGroup) {
		return nil
	}
	switch obj := w.New.(type) {
	case *rbacv1.Role:
		return a.checkRole(ctx, w, "roles", obj.Rules, false)
	case *rbacv1.ClusterRole:
		old, _ := w.Old.(*rbacv1.ClusterRole)
		aggregates := obj.AggregationRule != nil || old != nil && old.AggregationRule != nil
		return a.checkRole(ctx, w, "clusterroles", obj.Rules, aggregates)
	case *rbacv1.RoleBinding:
		return a.checkBinding(ctx, w, "rolebindings", obj.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		return a.checkBinding(ctx, w, "clusterrolebindings", obj.RoleRef)
	}
	return nil
}

// everything is what nobody holds but who may do everything.
var everything = []rbacv1.PolicyRule{
	{APIGroups: []string{rbacv1.APIGroupAll}, Resources: []string{rbacv1.ResourceAll}, Verbs: []string{rbacv1.VerbAll}},
	{NonResourceURLs: []string{rbacv1.NonResourceAll}, Verbs: []string{rbacv1.VerbAll}},
}

func (a *Authorizer) checkRole(ctx context.Context, w Write, resource string, rules []rbacv1.PolicyRule, aggregates bool) error {
	if a.may(ctx, w, "escalate", resource, w.Name) || w.leavesRightsAlone() {
		return nil
	}
	if err := a.checkHeld(ctx, w, resource, rules); err != nil {
		return err
	}
	if aggregates && a.checkHeld(ctx, w, resource, everything) != nil {
		return forbidden(resource, w.New.GetName(), "must have cluster-admin privileges to use the aggregationRule")
	}
	return nil
}

func (a *Authorizer) checkBinding(ctx context.Context, w Write, resource string, ref rbacv1.RoleRef) error {
	var roles string
	switch ref.Kind {
	case KindRole:
		roles = "roles"
	case KindClusterRole:
		roles = "clusterroles"
	default:
		return nil
	}
	if a.may(ctx, w, "bind", roles, ref.Name) || w.leavesRightsAlone() {
		return nil
	}
	rules, ok := a.rulesOf(ref, w.Namespace)
	if !ok { // under the binding's resource, as kube-apiserver says it
		return apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: resource}, ref.Name)
	}
	return a.checkHeld(ctx, w, resource, rules)
}

// may reports whether the user may do verb to the role of that name.
func (a *Authorizer) may(ctx context.Context, w Write, verb, resource, name string) bool {
	allowed, _, _ := a.Authorize(ctx, auth.Attributes{
		User: w.User, Verb: verb, ResourceRequest: true,
		APIGroup: rbacv1.GroupName, Resource: resource, Namespace: w.Namespace, Name: name,
	})
	return allowed
}

// leavesRightsAlone reports whether the write changes nothing but what the garbage collection
// of a cluster may change.
func (w *Write) leavesRightsAlone() bool {
	if w.Old == nil {
		return false
	}
	stripped := func(obj metav1.Object) runtime.Object {
		copied := obj.(runtime.Object).DeepCopyObject()
		accessor := copied.(metav1.Object)
		accessor.SetOwnerReferences(nil)
		accessor.SetFinalizers(nil)
		accessor.SetManagedFields(nil)
		accessor.SetSelfLink("")
		copied.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		return copied
	}
	return equality.Semantic.DeepEqual(stripped(w.New), stripped(w.Old))
}

// checkHeld refuses rules that the user does not hold.
func (a *Authorizer) checkHeld(ctx context.Context, w Write, resource string, rules []rbacv1.PolicyRule) error {
	held, missing := a.heldBy(w.User, w.Namespace)
	name := w.New.GetName()
	singles := singleRules(rules)
	if singles > maxSingleRules || singles*entries(held) > maxComparisons {
		return forbidden(resource, name, fmt.Sprintf(
			"user %q is granting permissions too many to compare with those currently held: the rules make %.0f of one verb, resource and name each, of %d that they may make, and all comparisons are at most %d; write several smaller roles",
			w.User.Name, singles, maxSingleRules, maxComparisons))
	}
	lacking, err := lacks(ctx, held, rules)
	if err != nil || len(lacking) == 0 {
		return err
	}
	text := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s", w.User.Name, w.User.Groups, lines(lacking))
	if len(missing) > 0 {
		text += "; resolution errors: [" + missing.byResource() + "]"
	}
	return forbidden(resource, name, text)
}

func forbidden(resource, name, text string) error {
	return apierrors.NewForbidden(schema.GroupResource{Group: rbacv1.GroupName, Resource: resource}, name, errors.New(text))
}

// singleRules returns of how many single rules the rules are made. It may be more than an
// integer holds.
func singleRules(rules []rbacv1.PolicyRule) float64 {
	sum := 0.0
	for i := range rules {
		r := &rules[i]
		verbs := float64(len(r.Verbs))
		sum += verbs*float64(len(r.APIGroups))*float64(len(r.Resources))*float64(max(1, len(r.ResourceNames))) + verbs*float64(len(r.NonResourceURLs))
	}
	return sum
}

// entries returns how many entries the lists of the rules have.
func entries(rules []rbacv1.PolicyRule) float64 {
	sum := 0
	for i := range rules {
		r := &rules[i]
		sum += len(r.Verbs) + len(r.APIGroups) + len(r.Resources) + len(r.ResourceNames) + len(r.NonResourceURLs)
	}
	return float64(sum)
}

// lacks returns the single rules of rules that held does not cover. Its error is ctx's.
func lacks(ctx context.Context, held, rules []rbacv1.PolicyRule) (lacking []rbacv1.PolicyRule, err error) {
	for _, rule := range rules {
		for part := range slices.Chunk(validation.BreakdownRule(rule), comparedAtOnce) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			_, uncovered := validation.Covers(held, part)
			lacking = append(lacking, uncovered...)
		}
	}
	return lacking, nil
}

// lines writes single rules as kube-apiserver does: those that differ in the verb alone in one
// line, sorted. However long the entries are, it needs little more memory than for the rules.
func lines(rules []rbacv1.PolicyRule) string {
	var order []string
	verbs := map[string][]string{}
	for _, rule := range rules {
		line := "{"
		for _, part := range []struct {
			name string
			list []string
		}{
			{"APIGroups", rule.APIGroups},
			{"Resources", rule.Resources},
			{"NonResourceURLs", rule.NonResourceURLs},
			{"ResourceNames", rule.ResourceNames},
		} {
			if len(part.list) > 0 {
				line += fmt.Sprintf("%s:%q, ", part.name, allShortened(part.list))
			}
		}
		if len(rule.NonResourceURLs) > 0 { // a line for each verb
			line += fmt.Sprintf("Verbs:%q}", allShortened(rule.Verbs))
			verbs[line] = nil
		} else if known := verbs[line]; len(known) < maxLines && !slices.Contains(known, rule.Verbs[0]) {
			verbs[line] = append(known, allShortened(rule.Verbs)...)
		}
	}
	for line, list := range verbs {
		if list != nil {
			line += fmt.Sprintf("Verbs:%q}", list)
		}
		order = append(order, line)
	}
	slices.Sort(order)
	if more := len(order) - maxLines; more > 0 {
		order = append(order[:maxLines], fmt.Sprintf("and %d more", more))
	}
	text := strings.Join(order, "\n")
	if len(text) > maxLinesBytes {
		return strings.ToValidUTF8(text[:maxLinesBytes], "") + "…"
	}
	return text
}

// allShortened returns the entries of a rule as texts have them.
func allShortened(entries []string) []string {
	short := slices.Clone(entries)
	for i, entry := range short {
		short[i] = shortened(entry)
	}
	return short
}
