package rbac_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/auth/rbac"
)

// rule is a rule in short: lists parted by spaces, where _ is "".
func rule(verbs, groups, resources string) rbacv1.PolicyRule {
	list := func(s string) []string {
		all := strings.Fields(s)
		for i, entry := range all {
			if entry == "_" {
				all[i] = ""
			}
		}
		return all
	}
	return rbacv1.PolicyRule{Verbs: list(verbs), APIGroups: list(groups), Resources: list(resources)}
}

func role(namespace, name string, rules ...rbacv1.PolicyRule) metav1.Object {
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
	if namespace == "" {
		return &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}
	}
	return &rbacv1.Role{ObjectMeta: meta, Rules: rules}
}

// bind makes a binding. The role is Role/name or ClusterRole/name, subjects are User/u, Group/g
// or ServiceAccount/name[/namespace].
func bind(namespace, name, to string, subjects ...string) metav1.Object {
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
	kind, roleName, _ := strings.Cut(to, "/")
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: roleName}
	var all []rbacv1.Subject
	for _, s := range subjects {
		kind, name, _ := strings.Cut(s, "/")
		one := rbacv1.Subject{Kind: kind, Name: name}
		if kind == rbacv1.ServiceAccountKind {
			one.Name, one.Namespace, _ = strings.Cut(name, "/")
		}
		all = append(all, one)
	}
	if namespace == "" {
		return &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: all}
	}
	return &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: all}
}

func with(objs ...metav1.Object) *rbac.Authorizer {
	a := rbac.New()
	for _, obj := range objs {
		a.Set(obj)
	}
	return a
}

// get asks whether the user may get an Endpoints web in the namespace.
func get(a *rbac.Authorizer, user *auth.User, namespace string) (bool, string) {
	allowed, reason, _ := a.Authorize(nil, auth.Attributes{ //nolint:staticcheck // no decision waits
		User: user, Verb: "get", ResourceRequest: true, Resource: "endpoints", Namespace: namespace, Name: "web",
	})
	return allowed, reason
}

func TestReasons(t *testing.T) {
	reader := rule("get", "_", "endpoints")
	a := with(
		role("n", "r", reader), role("", "c", reader),
		bind("n", "user", "Role/r", "User/alice"),
		bind("n", "group", "ClusterRole/c", "Group/staff"),
		bind("n", "account", "Role/r", "ServiceAccount/bot", "ServiceAccount/far/away"),
		bind("", "all", "ClusterRole/c", "Group/ops", "User/root"),
		bind("", "nobody", "ClusterRole/c", "ServiceAccount/lost"),
		bind("n", "gone", "Role/gone", "User/bob", "User/carol"),
		bind("n", "gone too", "ClusterRole/gone", "User/bob"),
		bind("n", "odd", "Thing/x", "User/dan"),
	)
	for _, test := range []struct {
		user    auth.User
		want    bool
		because string
	}{
		{auth.User{Name: "alice"}, true, `RBAC: allowed by RoleBinding "user/n" of Role "r" to User "alice"`},
		{auth.User{Name: "x", Groups: []string{"a", "staff"}}, true, `RBAC: allowed by RoleBinding "group/n" of ClusterRole "c" to Group "staff"`},
		{auth.User{Name: "system:serviceaccount:n:bot"}, true, `RBAC: allowed by RoleBinding "account/n" of Role "r" to ServiceAccount "bot/n"`},
		{auth.User{Name: "system:serviceaccount:away:far"}, true, `RBAC: allowed by RoleBinding "account/n" of Role "r" to ServiceAccount "far/away"`},
		{auth.User{Name: "system:serviceaccount::lost"}, false, ""},
		{auth.User{Name: "x", Groups: []string{"ops"}}, true, `RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "c" to Group "ops"`},
		{auth.User{Name: "root", Groups: []string{"ops"}}, true, `RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "c" to Group "ops"`},
		{auth.User{Name: "carol"}, false, `rbac: RBAC: role.rbac.authorization.k8s.io "gone" not found`},
		{auth.User{Name: "bob"}, false, `rbac: RBAC: [role.rbac.authorization.k8s.io "gone" not found, clusterrole.rbac.authorization.k8s.io "gone" not found]`},
		{auth.User{Name: "dan"}, false, `rbac: RBAC: unsupported role reference kind: "Thing"`},
		{auth.User{Name: "Alice"}, false, ""},
		{auth.User{Name: "x", Groups: []string{auth.SystemPrivilegedGroup}}, true, ""},
	} {
		if got, reason := get(a, &test.user, "n"); got != test.want || reason != test.because {
			t.Errorf("%+v: %v, %q; want %v, %q", test.user, got, reason, test.want, test.because)
		}
	}
	if allowed, _ := get(a, &auth.User{Name: "alice"}, "other"); allowed {
		t.Error("a RoleBinding counts in another namespace")
	}
	if allowed, _ := get(a, nil, "n"); allowed {
		t.Error("nobody is allowed")
	}
}

// A refusal stays of a size, however many roles are missing.
func TestManyMissingRoles(t *testing.T) {
	a := rbac.New()
	for i := range 1000 {
		a.Set(bind("", fmt.Sprint("b", i), fmt.Sprint("ClusterRole/gone", i), "User/u"))
	}
	_, reason := get(a, &auth.User{Name: "u"}, "n")
	if len(reason) > 2000 || !strings.HasSuffix(reason, ", and more]") {
		t.Errorf("the reason has %d bytes: %q", len(reason), reason)
	}
}

func TestObjectsChange(t *testing.T) {
	reader, none := rule("get", "_", "endpoints"), rule("list", "_", "endpoints")
	alice := &auth.User{Name: "alice", Groups: []string{"g"}}
	a := rbac.New()
	for _, step := range []struct {
		name string
		do   func()
		want bool
	}{
		{"nothing", func() {}, false},
		{"a binding to no role", func() { a.Set(bind("n", "b", "Role/r", "User/alice", "User/alice")) }, false},
		{"the role", func() { a.Set(role("n", "r", reader)) }, true},
		{"the role without the right", func() { a.Set(role("n", "r", none)) }, false},
		{"with it again", func() { a.Set(role("n", "r", reader)) }, true},
		{"another subject", func() { a.Set(bind("n", "b", "Role/r", "User/bob")) }, false},
		{"her group", func() { a.Set(bind("n", "b", "Role/r", "User/bob", "Group/g")) }, true},
		{"a second binding", func() { a.Set(bind("n", "c", "Role/r", "User/alice")) }, true},
		{"the first deleted", func() { a.Delete(rbac.KindRoleBinding, "n", "b") }, true},
		{"the second deleted", func() { a.Delete(rbac.KindRoleBinding, "n", "c") }, false},
		{"deleted again", func() { a.Delete(rbac.KindRoleBinding, "n", "c") }, false},
		{"by the whole server", func() { a.Set(bind("", "b", "ClusterRole/r", "User/alice")) }, false},
		{"whose role comes", func() { a.Set(role("", "r", reader)) }, true},
		{"the role deleted", func() { a.Delete(rbac.KindClusterRole, "", "r") }, false},
		{"and back", func() { a.Replace(rbac.KindClusterRole, []metav1.Object{role("", "r", reader)}) }, true},
		{"replaced by others", func() { a.Replace(rbac.KindClusterRole, []metav1.Object{role("", "s", reader)}) }, false},
		{"and back", func() { a.Replace(rbac.KindClusterRole, []metav1.Object{role("", "r", reader)}) }, true},
		{"no bindings of another kind", func() { a.Replace(rbac.KindRoleBinding, nil) }, true},
		{"no bindings", func() { a.Replace(rbac.KindClusterRoleBinding, nil) }, false},
	} {
		changed := a.Changed()
		step.do()
		if got, reason := get(a, alice, "n"); got != step.want {
			t.Errorf("%s: allowed %v (%s)", step.name, got, reason)
		}
		select {
		case <-changed:
		default:
			if step.name != "nothing" {
				t.Errorf("%s: nobody is told", step.name)
			}
		}
	}
	for kind := range strings.SplitSeq("Role ClusterRole RoleBinding ClusterRoleBinding", " ") {
		a.Replace(kind, nil)
	}
	if n := a.Len(); n != 0 {
		t.Errorf("%d entries are left of nothing", n)
	}
}

func TestRulesFor(t *testing.T) {
	one, two := rule("get", "_", "endpoints"), rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics"}}
	a := with(
		role("n", "r", one), role("", "c", two),
		bind("n", "a", "Role/r", "User/u", "Group/g"), bind("n", "b", "Role/r", "User/u"), bind("n", "c", "Role/gone", "User/u"),
		bind("", "c", "ClusterRole/c", "Group/g"),
	)
	u := &auth.User{Name: "u", Groups: []string{"g"}}
	rules, _, missing := a.RulesFor(u, "n")
	if got := fmt.Sprint(rules); got != fmt.Sprint([]rbacv1.PolicyRule{two, one, one}) {
		t.Errorf("got %v", got)
	}
	if missing == nil || missing.Error() != `role.rbac.authorization.k8s.io "gone" not found` {
		t.Errorf("missing %v", missing)
	}
	if rules, incomplete, missing := a.RulesFor(u, ""); incomplete || len(rules) != 1 || missing != nil {
		t.Errorf("in no namespace: %v, %v", rules, missing)
	}
}

// words are what random rules and requests are made of.
var words = struct{ verbs, groups, resources, subs, names, paths, urls, users, teams, namespaces []string }{
	[]string{"get", "list", "create", "*", "GET", ""}, []string{"", "apps", "*", "a.b"},
	[]string{"endpoints", "roles", "*", "*/status", "endpoints/status", "endpoints/*", "*/*", "/", ""},
	[]string{"", "", "status", "*", "a/b"}, []string{"", "web", "db", "*"},
	[]string{"/", "/a", "/a/", "/a/b", "/metrics", "*", ""}, []string{"*", "/a*", "/a/**", "/a/b", "/*/b", "", "**", "/metrics"},
	[]string{"ann", "ben", "system:serviceaccount:n:bot", "system:serviceaccount:m:bot", "system:anonymous", ""},
	[]string{"dev", "ops", "system:authenticated"}, []string{"n", "m", "o"},
}

// TestAgainstNaive holds random decisions against those of a matcher that knows no index: it
// goes through all bindings, and looks at every rule.
func TestAgainstNaive(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	for round := range rounds {
		r := rand.New(rand.NewPCG(uint64(round), 1))
		a, objs := rbac.New(), map[string]metav1.Object{}
		for range 60 {
			change(r, a, objs)
		}
		for range 100 {
			attrs := randomRequest(r)
			got, reason, err := a.Authorize(t.Context(), attrs)
			if want := naive(objs, attrs); err != nil || got != want {
				t.Fatalf("round %d: allowed %v (%q, %v), want %v: %+v by %+v", round, got, reason, err, want, attrs, attrs.User)
			}
			if !got && strings.Contains(reason, "allowed by") || got && !strings.HasPrefix(reason, "RBAC: allowed by ") {
				t.Fatalf("allowed %v because %q", got, reason)
			}
		}
	}
}

func some(r *rand.Rand, from []string, most int) (list []string) {
	for range r.IntN(most + 1) {
		list = append(list, from[r.IntN(len(from))])
	}
	return list
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

// change makes a random change to an authorizer and to the objects that it should know.
func change(r *rand.Rand, a *rbac.Authorizer, objs map[string]metav1.Object) {
	namespace := pick(r, append([]string{""}, words.namespaces...))
	name := fmt.Sprint(r.IntN(6))
	var obj metav1.Object
	if r.IntN(2) == 0 {
		var rules []rbacv1.PolicyRule
		for range r.IntN(4) {
			rules = append(rules, rbacv1.PolicyRule{
				Verbs: some(r, words.verbs, 3), APIGroups: some(r, words.groups, 3), Resources: some(r, words.resources, 3),
				ResourceNames: some(r, words.names, 1), NonResourceURLs: some(r, words.urls, 2),
			})
		}
		obj = role(namespace, name, rules...)
	} else {
		to := pick(r, []string{"Role/", "ClusterRole/"}) + fmt.Sprint(r.IntN(6))
		var subjects []string
		for range r.IntN(4) {
			subjects = append(subjects, pick(r, []string{
				"User/" + pick(r, words.users), "Group/" + pick(r, words.teams), "ServiceAccount/bot", "ServiceAccount/bot/m", "Thing/ann",
			}))
		}
		obj = bind(namespace, name, to, subjects...)
	}
	kind := strings.TrimPrefix(fmt.Sprintf("%T", obj), "*v1.")
	at := fmt.Sprint(kind, "/", namespace, "/", name)
	switch r.IntN(10) {
	case 0:
		delete(objs, at)
		a.Delete(kind, namespace, name)
	case 1:
		objs[at] = obj
		var all []metav1.Object
		for at, obj := range objs {
			if strings.HasPrefix(at, kind+"/") {
				all = append(all, obj)
			}
		}
		a.Replace(kind, all)
	default:
		objs[at] = obj
		a.Set(obj)
	}
}

func randomRequest(r *rand.Rand) auth.Attributes {
	attrs := auth.Attributes{
		User: &auth.User{Name: pick(r, words.users), Groups: some(r, words.teams, 3)},
		Verb: pick(r, words.verbs),
	}
	if r.IntN(4) == 0 {
		attrs.Path = pick(r, words.paths)
		return attrs
	}
	attrs.ResourceRequest = true
	attrs.APIGroup, attrs.Resource, attrs.Subresource = pick(r, words.groups), pick(r, words.resources), pick(r, words.subs)
	attrs.Name, attrs.Namespace = pick(r, words.names), pick(r, append([]string{""}, words.namespaces...))
	return attrs
}

// naive decides by all objects.
func naive(objs map[string]metav1.Object, attrs auth.Attributes) bool {
	for _, obj := range objs {
		var ref rbacv1.RoleRef
		var subjects []rbacv1.Subject
		switch obj := obj.(type) {
		case *rbacv1.RoleBinding:
			if !attrs.ResourceRequest || attrs.Namespace == "" || attrs.Namespace != obj.Namespace {
				continue
			}
			ref, subjects = obj.RoleRef, obj.Subjects
		case *rbacv1.ClusterRoleBinding:
			ref, subjects = obj.RoleRef, obj.Subjects
		default:
			continue
		}
		applies := slices.ContainsFunc(subjects, func(s rbacv1.Subject) bool {
			namespace := s.Namespace
			if namespace == "" {
				namespace = obj.GetNamespace()
			}
			return s.Kind == "User" && s.Name == attrs.User.Name || s.Kind == "Group" && slices.Contains(attrs.User.Groups, s.Name) ||
				s.Kind == "ServiceAccount" && namespace != "" && attrs.User.Name == "system:serviceaccount:"+namespace+":"+s.Name
		})
		if !applies {
			continue
		}
		var rules []rbacv1.PolicyRule
		switch role := objs[ref.Kind+"/"+map[bool]string{true: obj.GetNamespace()}[ref.Kind == "Role"]+"/"+ref.Name].(type) {
		case *rbacv1.Role:
			rules = role.Rules
		case *rbacv1.ClusterRole:
			rules = role.Rules
		}
		if slices.ContainsFunc(rules, func(rule rbacv1.PolicyRule) bool { return naiveAllows(rule, attrs) }) {
			return true
		}
	}
	return false
}

func naiveAllows(rule rbacv1.PolicyRule, attrs auth.Attributes) bool {
	has := func(list []string, entries ...string) bool {
		return slices.ContainsFunc(entries, func(entry string) bool { return slices.Contains(list, entry) })
	}
	if !has(rule.Verbs, attrs.Verb, "*") {
		return false
	}
	if !attrs.ResourceRequest {
		return slices.ContainsFunc(rule.NonResourceURLs, func(url string) bool {
			return url == attrs.Path || strings.HasSuffix(url, "*") && strings.HasPrefix(attrs.Path, strings.TrimRight(url, "*"))
		})
	}
	resources := []string{"*", attrs.Resource}
	if attrs.Subresource != "" {
		resources = []string{"*", attrs.Resource + "/" + attrs.Subresource, "*/" + attrs.Subresource}
	}
	return has(rule.APIGroups, attrs.APIGroup, "*") && has(rule.Resources, resources...) &&
		(len(rule.ResourceNames) == 0 || has(rule.ResourceNames, attrs.Name))
}

// FuzzRule holds the matching of a rule against the naive one.
func FuzzRule(f *testing.F) {
	f.Add("get", "", "endpoints", "status", "web", "/a/b", "get", "", "*/status", "web", "/a*", true)
	f.Add("get", "", "endpoints", "", "", "/", "*", "*", "*", "", "**", false)
	f.Fuzz(func(t *testing.T, verb, group, resource, sub, name, path, verbs, groups, resources, names, urls string, onResource bool) {
		rule := rbacv1.PolicyRule{
			Verbs: strings.Split(verbs, " "), APIGroups: strings.Split(groups, " "), Resources: strings.Split(resources, " "),
			ResourceNames: strings.Fields(names), NonResourceURLs: strings.Split(urls, " "),
		}
		attrs := auth.Attributes{User: &auth.User{Name: "u"}, Verb: verb, ResourceRequest: onResource}
		if onResource {
			attrs.APIGroup, attrs.Resource, attrs.Subresource, attrs.Name = group, resource, sub, name
		} else {
			attrs.Path = path
		}
		a := with(role("", "r", rule), bind("", "b", "ClusterRole/r", "User/u"))
		got, _, _ := a.Authorize(t.Context(), attrs)
		if want := naiveAllows(rule, attrs); got != want {
			t.Errorf("%+v by %+v: %v, want %v", attrs, rule, got, want)
		}
	})
}

// BenchmarkAuthorize decides with 5,000 bindings: 50 namespaces of 90 bindings each, and 500 of
// the whole server.
func BenchmarkAuthorize(b *testing.B) {
	a := rbac.New()
	verbs := "get list watch create update patch delete deletecollection"
	for i := range 40 {
		a.Set(role("", fmt.Sprint("c", i), rule("get list watch", "_ discovery.k8s.io", fmt.Sprint("r", i, " endpointslices")), rule(verbs, "_", fmt.Sprint("endpoints", i))))
	}
	a.Set(role("", "edit", rule("get list watch", "_", "configmaps services events namespaces"), rule(verbs, "_ discovery.k8s.io", "endpoints endpointslices")))
	for i := range 500 {
		a.Set(bind("", fmt.Sprint("b", i), fmt.Sprint("ClusterRole/c", i%40), fmt.Sprint("User/u", i%30), fmt.Sprint("Group/g", i%10)))
	}
	for n := range 50 {
		for i := range 90 {
			a.Set(bind(fmt.Sprint("n", n), fmt.Sprint("b", i), fmt.Sprint("ClusterRole/c", i%40), fmt.Sprint("User/u", i%30), fmt.Sprint("Group/g", i%10)))
		}
		a.Set(bind(fmt.Sprint("n", n), "edit", "ClusterRole/edit", "Group/writers"))
	}
	for _, of := range []struct {
		name  string
		user  auth.User
		allow bool
	}{
		{"allowed", auth.User{Name: "u1", Groups: []string{"g1", "writers", auth.AllAuthenticated}}, true},
		{"denied", auth.User{Name: "u1", Groups: []string{"g1", auth.AllAuthenticated}}, false},
		{"stranger", auth.User{Name: "x", Groups: []string{auth.AllAuthenticated}}, false},
	} {
		b.Run(of.name, func(b *testing.B) {
			attrs := auth.Attributes{User: &of.user, Verb: "update", ResourceRequest: true, Resource: "endpoints", Namespace: "n7", Name: "web"}
			b.ReportAllocs()
			for b.Loop() {
				if allowed, _, _ := a.Authorize(b.Context(), attrs); allowed != of.allow {
					b.Fatal("wrong")
				}
			}
		})
	}
}
