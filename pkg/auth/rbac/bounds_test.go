package rbac_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/auth/rbac"
)

// allocated returns how many bytes run allocates.
func allocated(run func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A role that names one long resource and thousands of objects is refused in few words, and with
// little memory: its rules are thousands, each with the long name.
func TestRefusalOfLongNames(t *testing.T) {
	a := granting()
	names := make([]string, 9_000)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	long := strings.Repeat("é", 1<<19)
	for what, rule := range map[string]rbacv1.PolicyRule{
		"a resource": {Verbs: []string{"get"}, APIGroups: []string{"x"}, Resources: []string{long}, ResourceNames: names},
		"a group":    {Verbs: []string{"get"}, APIGroups: []string{long}, Resources: names},
		"a verb":     {Verbs: []string{long}, APIGroups: []string{""}, Resources: names},
		"verbs":      {Verbs: append(names[:1000:1000], long), APIGroups: []string{""}, Resources: []string{"x", "y"}},
		"a URL":      {Verbs: names, NonResourceURLs: []string{long}},
	} {
		var err error
		bytes := allocated(func() {
			err = a.CheckWrite(t.Context(), rbac.Write{User: &auth.User{Name: "granter"}, Namespace: "n", New: role("n", "x", rule)})
		})
		if !apierrors.IsForbidden(err) || len(err.Error()) > 200<<10 {
			t.Errorf("%s: %d bytes: %.300v", what, len(err.Error()), err)
		}
		if bytes > 100<<20 {
			t.Errorf("%s: %d MB were allocated", what, bytes>>20)
		}
	}
}

// What a user is told of its rights does not grow with the bindings that give them.
func TestRulesForIsBounded(t *testing.T) {
	fat := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"endpoints"}, ResourceNames: []string{strings.Repeat("x", 50_000)}}
	small := make([]rbacv1.PolicyRule, 1000)
	for i := range small {
		small[i] = rule("get", "_", "endpoints")
	}
	objs := rbac.New()
	objs.Set(role("n", "fat", fat))
	objs.Set(role("n", "small", small...))
	for i := range 5_000 {
		objs.Set(bind("n", fmt.Sprint("a", i), "Role/fat", "User/fat"))
		objs.Set(bind("n", fmt.Sprint("b", i), "Role/small", "User/small"))
	}
	for _, user := range []string{"fat", "small"} {
		var rules []rbacv1.PolicyRule
		incomplete := false
		bytes := allocated(func() { rules, incomplete, _ = objs.RulesFor(&auth.User{Name: user}, "n") })
		if !incomplete || len(rules) == 0 || len(rules) > 3000 || bytes > 20<<20 {
			t.Errorf("%s: %d rules, incomplete: %v, %d MB", user, len(rules), incomplete, bytes>>20)
		}
	}
}

// Names of objects may be long, and those of a binding and of its role stand in what everybody is
// told whom it concerns.
func TestReasonsOfLongNames(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	everybody := &auth.User{Name: "u", Groups: []string{"g"}}
	a := with(role("n", long, rule("get", "_", "endpoints")), bind("n", long, "Role/"+long, "Group/g", "User/u"))
	if allowed, reason := get(a, everybody, "n"); !allowed || len(reason) > 1000 || !strings.Contains(reason, "xxx…") {
		t.Errorf("allowed: %v, with %d bytes", allowed, len(reason))
	}
	a.Delete(rbac.KindRole, "n", long)
	if allowed, reason := get(a, everybody, "n"); allowed || len(reason) > 1000 || !strings.Contains(reason, "xxx…") {
		t.Errorf("allowed: %v, with %d bytes", allowed, len(reason))
	}
}

// A decision looks at so many rules, whatever a user has been bound to, and refuses the rest. What
// the whole server allows is looked at first.
func TestDecisionsAreBounded(t *testing.T) {
	fat := func(name string) metav1.Object {
		rules := make([]rbacv1.PolicyRule, 9_990)
		for i := range rules {
			rules[i] = rule("get", "_", "services")
		}
		return role("n", name, rules...)
	}
	names := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"endpoints"}}
	for i := range 400_000 {
		names.ResourceNames = append(names.ResourceNames, fmt.Sprint(i))
	}
	a := with(
		role("n", "one", rule("get", "_", "endpoints")), role("", "one", rule("get", "_", "endpoints")), role("n", "names", names),
		bind("n", "z", "Role/one", "User/early"), bind("", "z", "ClusterRole/one", "User/reader"), bind("n", "names", "Role/names", "User/named"),
	)
	for i := range 300 {
		a.Set(fat(fmt.Sprint(i)))
		a.Set(bind("n", fmt.Sprint(i), fmt.Sprint("Role/", i), "User/early", "User/late", "Group/g"))
	}
	a.Set(bind("n", "zz", "Role/one", "User/late"))
	for name, want := range map[string]bool{"early": true, "reader": true, "late": false, "named": false} {
		user := &auth.User{Name: name, Groups: []string{"g"}}
		allowed, reason := get(a, user, "n")
		if allowed != want || !want && reason != "rbac: the user is bound to more than 20000 rules, and no others are looked at" {
			t.Errorf("%s: %v, %s", name, allowed, reason)
		}
		began := time.Now()
		for range 10 {
			get(a, user, "n")
		}
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("%s: ten decisions took %v", name, took)
		}
	}
}
