package rbac_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/auth/rbac"
)

// granter holds a little, and editor may escalate and bind what is named.
func granting() *rbac.Authorizer {
	urls := rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/a*"}}
	named := func(verb, resource, name string) rbacv1.PolicyRule {
		r := rule(verb, rbacv1.GroupName, resource)
		r.ResourceNames = []string{name}
		return r
	}
	return with(
		role("n", "held", rule("get list", "_", "endpoints"), named("get", "x", "a")),
		role("n", "more", rule("get delete", "_", "endpoints")),
		role("", "urls", urls),
		role("", "special", named("escalate", "roles", "special"), named("bind", "roles", "more"), named("escalate", "clusterroles", "sum")),
		role("", "all", rule("*", "*", "*")),
		role("", "all urls", rbacv1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}),
		bind("n", "held", "Role/held", "User/granter"), bind("", "urls", "ClusterRole/urls", "User/granter"), bind("n", "gone", "Role/gone", "User/lost"),
		bind("", "special", "ClusterRole/special", "User/editor"),
		bind("", "all", "ClusterRole/all", "User/almost", "User/root"), bind("", "all urls", "ClusterRole/all urls", "User/root"),
	)
}

func aggregating(name string) metav1.Object {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{}}}}
}

func labelled(obj metav1.Object) metav1.Object {
	obj.SetLabels(map[string]string{"a": "b"})
	return obj
}

func finalized(obj metav1.Object) metav1.Object {
	obj.SetFinalizers([]string{"a/b"})
	obj.SetOwnerReferences([]metav1.OwnerReference{{Name: "x"}})
	obj.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "m"}})
	obj.SetSelfLink("/x")
	return obj
}

func TestCheckWrite(t *testing.T) {
	a := granting()
	const head = ` is attempting to grant RBAC permissions not currently held:` + "\n"
	more := rule("get delete", "_", "endpoints")
	urls := rbacv1.PolicyRule{Verbs: []string{"get", "post"}, NonResourceURLs: []string{"/ab*", "/b"}}
	for name, test := range map[string]struct {
		user, namespace, name string // name is the path's
		obj, old              metav1.Object
		want                  string // how the error ends; "": there is none
	}{
		"what is held":        {"granter", "n", "", role("n", "x", rule("list", "_", "endpoints")), nil, ""},
		"nothing":             {"granter", "n", "", role("n", "x"), nil, ""},
		"a verb more":         {"granter", "n", "", role("n", "x", more), nil, `roles.rbac.authorization.k8s.io "x" is forbidden: user "granter" (groups=["g" "h"])` + head + `{APIGroups:[""], Resources:["endpoints"], Verbs:["delete"]}`},
		"elsewhere":           {"granter", "m", "", role("m", "x", rule("get list", "_", "endpoints")), nil, `{APIGroups:[""], Resources:["endpoints"], Verbs:["get" "list"]}`},
		"sorted, verbs as is": {"granter", "n", "", role("n", "x", rule("watch bind", "b a", "z y"), rule("bind list", "a", "y")), nil, head + `{APIGroups:["a"], Resources:["y"], Verbs:["watch" "bind" "list"]}` + "\n" + `{APIGroups:["a"], Resources:["z"], Verbs:["watch" "bind"]}` + "\n" + `{APIGroups:["b"], Resources:["y"], Verbs:["watch" "bind"]}` + "\n" + `{APIGroups:["b"], Resources:["z"], Verbs:["watch" "bind"]}`},
		"URLs":                {"granter", "", "", role("", "x", urls), nil, head + `{NonResourceURLs:["/ab*"], Verbs:["post"]}` + "\n" + `{NonResourceURLs:["/b"], Verbs:["get"]}` + "\n" + `{NonResourceURLs:["/b"], Verbs:["post"]}`},
		"a role is missing":   {"lost", "n", "", role("n", "x", rule("get", "_", "y")), nil, `Verbs:["get"]}; resolution errors: [roles.rbac.authorization.k8s.io "gone" not found]`},
		"a finalizer":         {"granter", "n", "more", finalized(role("n", "more", more)), role("n", "more", more), ""},
		"a label":             {"granter", "n", "more", labelled(role("n", "more", more)), role("n", "more", more), `Verbs:["delete"]}`},
		"a rule less":         {"granter", "n", "more", role("n", "more", more), role("n", "more", more, more), `Verbs:["delete"]}`},
		"escalate by name":    {"editor", "n", "special", role("n", "special", more), nil, ""},
		"not by POST":         {"editor", "n", "", role("n", "special", more), nil, `Verbs:["get" "delete"]}`},
		"bind what is held":   {"granter", "n", "", bind("n", "b", "Role/held", "User/x"), nil, ""},
		"bind more":           {"granter", "n", "", bind("n", "b", "Role/more"), nil, `rolebindings.rbac.authorization.k8s.io "b" is forbidden: user "granter" (groups=["g" "h"])` + head + `{APIGroups:[""], Resources:["endpoints"], Verbs:["delete"]}`},
		"bind by name":        {"editor", "n", "", bind("n", "b", "Role/more"), nil, ""},
		"bind what is not":    {"granter", "n", "", bind("n", "b", "Role/none"), nil, `rolebindings.rbac.authorization.k8s.io "none" not found`},
		"everywhere":          {"granter", "", "", bind("", "b", "ClusterRole/all"), nil, `clusterrolebindings.rbac.authorization.k8s.io "b" is forbidden: user "granter" (groups=["g" "h"])` + head + `{APIGroups:["*"], Resources:["*"], Verbs:["*"]}`},
		"left to validation":  {"granter", "n", "", bind("n", "b", "Thing/x"), nil, ""},
		"aggregation":         {"granter", "", "", aggregating("x"), nil, `clusterroles.rbac.authorization.k8s.io "x" is forbidden: must have cluster-admin privileges to use the aggregationRule`},
		"removed aggregation": {"granter", "", "x", role("", "x"), aggregating("x"), `must have cluster-admin privileges to use the aggregationRule`},
		"all but URLs":        {"almost", "", "", aggregating("x"), nil, ""}, // * holds escalate
		"all":                 {"root", "", "", aggregating("x"), nil, ""},
		"escalated":           {"editor", "", "sum", aggregating("sum"), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := a.CheckWrite(t.Context(), rbac.Write{User: &auth.User{Name: test.user, Groups: []string{"g", "h"}}, Namespace: test.namespace, Name: test.name, New: test.obj, Old: test.old})
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.HasSuffix(err.Error(), test.want)):
				t.Errorf("got %v\nwant %s", err, test.want)
			case strings.HasSuffix(test.want, "not found") && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err):
				t.Errorf("got %v", err)
			}
			masters := &auth.User{Name: "x", Groups: []string{auth.SystemPrivilegedGroup}}
			if err := a.CheckWrite(t.Context(), rbac.Write{User: masters, Namespace: test.namespace, New: test.obj}); err != nil {
				t.Errorf("system:masters: %v", err)
			}
		})
	}
}

// What a role would cost to compare is known before anything is compared, and what is compared
// ends with the request.
func TestCheckWriteIsBounded(t *testing.T) {
	a := granting()
	granter := &auth.User{Name: "granter"}
	many := make([]string, 200_000)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	huge := rbacv1.PolicyRule{Verbs: many, APIGroups: many, Resources: many, ResourceNames: many}
	err := a.CheckWrite(t.Context(), rbac.Write{User: granter, Namespace: "n", New: role("n", "x", huge)})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "write several smaller roles") {
		t.Errorf("got %v", err)
	}
	wide := rbacv1.PolicyRule{Verbs: many[:100], APIGroups: []string{""}, Resources: many[:90]}
	err = a.CheckWrite(t.Context(), rbac.Write{User: granter, Namespace: "n", New: role("n", "x", wide, rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: many[:500], Resources: []string{"x"}})})
	if !apierrors.IsForbidden(err) || len(err.Error()) > 300_000 || !strings.HasSuffix(err.Error(), "\nand 490 more") {
		t.Errorf("got %d bytes: %.300s", len(err.Error()), err.Error())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.CheckWrite(ended, rbac.Write{User: granter, Namespace: "n", New: role("n", "x", wide)}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

// Who may bind to a role that is put together of others holds what is in them, before it is put
// together, too.
func TestBindToAggregated(t *testing.T) {
	a := granting()
	part := labelled(role("", "part", rule("get delete", "_", "endpoints")))
	inner := aggregating("inner").(*rbacv1.ClusterRole)
	inner.AggregationRule.ClusterRoleSelectors[0].MatchLabels = part.GetLabels()
	inner.Labels = map[string]string{"inner": "yes"}
	outer := aggregating("outer").(*rbacv1.ClusterRole)
	outer.AggregationRule.ClusterRoleSelectors[0].MatchLabels = inner.Labels
	inner.AggregationRule.ClusterRoleSelectors = append(inner.AggregationRule.ClusterRoleSelectors, metav1.LabelSelector{MatchLabels: map[string]string{"outer": "yes"}})
	outer.Labels = map[string]string{"outer": "yes"} // each is a part of the other
	a.Set(inner)
	a.Set(outer)
	bindTo := func(user, role string) error {
		return a.CheckWrite(t.Context(), rbac.Write{User: &auth.User{Name: user}, Namespace: "n", New: bind("n", "x", "ClusterRole/"+role, "User/u")})
	}
	if err := bindTo("granter", "outer"); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	a.Set(part)
	for _, role := range []string{"inner", "outer"} {
		if err := bindTo("granter", role); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `Verbs:["delete"]`) {
			t.Errorf("%s: got %v", role, err)
		}
		if err := bindTo("almost", role); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
	a.Delete(rbac.KindClusterRole, "", "part")
	if err := bindTo("granter", "outer"); err != nil {
		t.Errorf("of nothing any more: %v", err)
	}
}

func TestAggregate(t *testing.T) {
	one, two, three := rule("get", "_", "a"), rule("get", "_", "b"), rule("get", "_", "c")
	labelled := func(name, key string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{key: "true"}}, Rules: rules}
	}
	all := []*rbacv1.ClusterRole{labelled("z", "x", three, one), labelled("m", "x", one, two), labelled("a", "y", three), labelled("other", "n", rule("*", "*", "*"))}
	sum := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "sum", Labels: map[string]string{"x": "true"}}, Rules: []rbacv1.PolicyRule{rule("own", "_", "d")}}
	sum.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
		{MatchLabels: map[string]string{"x": "true"}}, {MatchLabels: map[string]string{"not a label": "-"}}, {MatchLabels: map[string]string{"y": "true"}},
	}}
	rules, changed := rbac.Aggregate(sum, append(all, sum))
	if got, want := fmt.Sprint(rules), fmt.Sprint([]rbacv1.PolicyRule{one, two, three}); got != want || !changed {
		t.Errorf("got %s (changed: %v), want %s", got, changed, want)
	}
	sum.Rules = rules
	if _, changed := rbac.Aggregate(sum, all); changed {
		t.Error("the rules change again")
	}
	if rules, changed := rbac.Aggregate(&rbacv1.ClusterRole{AggregationRule: sum.AggregationRule}, nil); len(rules) != 0 || changed {
		t.Errorf("of nothing: %v, %v", rules, changed)
	}
}
