package apiserver

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/berth-project/berth/test/harness"
)

const (
	mine, other     = "/api/v1/namespaces/mine/", "/api/v1/namespaces/other/"
	myRoles         = rolesPath + "namespaces/mine/roles"
	myBindings      = rolesPath + "namespaces/mine/rolebindings"
	allClusterRoles = rolesPath + "clusterroles"
	everythingRules = `"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]`
)

// tenants makes two namespaces. In one of them mallory has edit, and the others odd parts of what
// an administrator has.
func tenants(t *testing.T) *replica {
	t.Helper()
	r, _ := startReplica(t, newEtcd(t), "")
	for _, namespace := range []string{"mine", "other"} {
		r.must(t, "POST", "/api/v1/namespaces", `{"metadata":{"name":"`+namespace+`"}}`)
		for i := range 3 {
			r.must(t, "POST", "/api/v1/namespaces/"+namespace+"/endpoints", fmt.Sprintf(`{"metadata":{"name":"%s-%d"}}`, namespace, i))
		}
	}
	bind := func(user, kind, role string) {
		r.must(t, "POST", myBindings, fmt.Sprintf(`{"metadata":{"name":%q},"roleRef":{"kind":%q,"name":%q},"subjects":[{"kind":"User","name":%q}]}`, user, kind, role, user))
	}
	bind("mallory", "ClusterRole", "edit")
	bind("owner", "ClusterRole", "admin")
	bind("existing", "ClusterRole", "view")
	const group = `"apiGroups":["rbac.authorization.k8s.io"]`
	for user, rules := range map[string]string{
		"target":  `{"verbs":["get"],"apiGroups":[""],"resources":["endpoints"]}`,
		"binder":  `{"verbs":["bind"],` + group + `,"resources":["roles"],"resourceNames":["target"]},{"verbs":["create","update"],` + group + `,"resources":["rolebindings"]}`,
		"updater": `{"verbs":["update"],` + group + `,"resources":["rolebindings"],"resourceNames":["existing"]}`,
		"patcher": `{"verbs":["patch"],"apiGroups":["*"],"resources":["endpoints","roles","rolebindings"]}`,
		"watcher": `{"verbs":["watch","list"],"apiGroups":[""],"resources":["endpoints"],"resourceNames":["mine-0"]}`,
		"part":    `{"verbs":["*"],"apiGroups":["*"],"resources":["*/status"]}`,
	} {
		r.must(t, "POST", myRoles, fmt.Sprintf(`{"metadata":{"name":%q},"rules":[%s]}`, user, rules))
		bind(user, "Role", user)
	}
	r.must(t, "POST", allClusterRoles, `{"metadata":{"name":"writer"},"rules":[{"verbs":["get","update","patch"],`+group+`,"resources":["clusterroles"],"resourceNames":["writer"]},{"verbs":["create"],`+group+`,"resources":["clusterroles"]}]}`)
	r.must(t, "POST", rolesPath+"clusterrolebindings", `{"metadata":{"name":"writer"},"roleRef":{"kind":"ClusterRole","name":"writer"},"subjects":[{"kind":"User","name":"writer"}]}`)
	harness.SettleRights(func(path string) { r.must(t, "GET", path, "") })
	return r
}

func binding(name, kind, role, user string) string {
	return fmt.Sprintf(`{"metadata":{"name":%q},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":%q,"name":%q},"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":%q}]}`, name, kind, role, user)
}

// What somebody tried for an hour who wanted more than was given. Nothing of it may reach another
// namespace, or give anybody a right.
func TestAttempts(t *testing.T) {
	r := tenants(t)
	before := r.granted(t)
	const apply = `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"%s"},` + everythingRules + `}`
	for _, try := range []struct {
		user, method, path, body string
		code                     int
	}{
		// Other namespaces, by odd paths and parameters.
		{"mallory", "GET", other + "endpoints", "", 403},
		{"mallory", "GET", other + "endpoints/other-0", "", 403},
		{"mallory", "GET", "/api/v1/endpoints?fieldSelector=metadata.namespace%3Dmine", "", 403},
		{"mallory", "GET", "/api/v1/namespaces//endpoints", "", 403},
		{"mallory", "GET", mine + "..%2Fother%2Fendpoints", "", 403},
		{"mallory", "GET", "//api/v1/namespaces/other/endpoints", "", 403},
		{"mallory", "GET", other + "endpoints" + strings.Repeat("/", 4200), "", 404},
		{"mallory", "GET", "/api/v1/watch/namespaces/other/endpoints/other-0?timeoutSeconds=1", "", 403},
		{"mallory", "GET", "/api/v1/namespaces?fieldSelector=metadata.name%3Dmine", "", 403},
		{"mallory", "DELETE", other + "endpoints", "", 403},
		{"mallory", "POST", mine + "endpoints", `{"metadata":{"name":"x","namespace":"other"}}`, 400},
		{"mallory", "POST", mine + "endpoints", `{"metadata":{"name":"../other/x"}}`, 422},
		{"mallory", "PUT", mine + "endpoints/mine-0", `{"metadata":{"name":"other-0"}}`, 400},
		{"mallory", "PATCH", mine + "endpoints/mine-0", `{"metadata":{"namespace":"other"}}`, 400},
		{"mallory", "PATCH", mine + "endpoints/mine-0", `{"kind":"Namespace"}`, 422},
		{"mallory", "PATCH", "/api/v1/namespaces/mine/status", `{"metadata":{"labels":{"a":"b"}}}`, 403},
		{"owner", "PUT", "/api/v1/namespaces/mine/finalize", `{"metadata":{"name":"mine"}}`, 403},
		{"part", "GET", mine + "endpoints/mine-0", "", 403},
		{"part", "PATCH", myRoles + "/part/status", `{` + everythingRules + `}`, 404},
		{"watcher", "GET", mine + "endpoints", "", 403},
		{"watcher", "GET", mine + "endpoints?fieldSelector=metadata.name!%3Dmine-1", "", 403},
		{"watcher", "GET", mine + "endpoints?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dmine-1", "", 403},
		{"watcher", "GET", mine + "endpoints/mine-0", "", 403},
		{"watcher", "GET", "/api/v1/watch/namespaces/mine/endpoints/mine-0?timeoutSeconds=1&fieldSelector=metadata.name%3Dmine-1", "", 400},
		{"watcher", "GET", "/api/v1/watch/namespaces/mine/endpoints/mine-0?fieldSelector=,&timeoutSeconds=1", "", 200},
		// More rights by roles.
		{"owner", "POST", myRoles, `{"metadata":{"name":"x"},` + everythingRules + `}`, 403},
		{"owner", "POST", myRoles + "?dryRun=All", `{"metadata":{"name":"x"},` + everythingRules + `}`, 403},
		{"owner", "PUT", myRoles + "/x", `{"metadata":{"name":"x"},` + everythingRules + `}`, 403},
		{"owner", "PATCH", myRoles + "/x?fieldManager=m", fmt.Sprintf(apply, "x"), 403},
		{"owner", "PATCH", myRoles + "/target?fieldManager=m&force=true", fmt.Sprintf(apply, "target"), 403},
		{"owner", "PATCH", myRoles + "/target", `{"metadata":{"finalizers":["a/b"]},` + everythingRules + `}`, 403},
		{"owner", "PATCH", myRoles + "/target", `{"rules":[{"verbs":["get"],"nonResourceURLs":["*"]}]}`, 403},
		{"owner", "PATCH", myRoles + "/target", `{"rules":[{"verbs":["*"],"apiGroups":[],"resources":["*"]}]}`, 422},
		{"owner", "POST", rolesPath + "namespaces/other/roles", `{"metadata":{"name":"x"}}`, 403},
		{"patcher", "PATCH", myRoles + "/patcher", `{` + everythingRules + `}`, 403},
		{"patcher", "PATCH", myRoles + "/target", `{"metadata":{"labels":{"a":"b"}}}`, 403},
		{"patcher", "PATCH", myRoles + "/x?fieldManager=m", fmt.Sprintf(apply, "x"), 403},
		{"writer", "PATCH", allClusterRoles + "/writer", `{"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"rbac.authorization.k8s.io/aggregate-to-admin":"true"}}]}}`, 403},
		{"writer", "PATCH", allClusterRoles + "/edit", `{"metadata":{"labels":{"a":"b"}}}`, 403},
		{"writer", "POST", allClusterRoles, `{"metadata":{"name":"x"},"aggregationRule":{"clusterRoleSelectors":[{}]}}`, 403},
		{"writer", "POST", allClusterRoles, `{"metadata":{"name":"x","labels":{"rbac.authorization.k8s.io/aggregate-to-edit":"true"}},` + everythingRules + `}`, 403},
		// And by bindings.
		{"mallory", "POST", myBindings, binding("x", "ClusterRole", "view", "mallory"), 403},
		{"owner", "POST", myBindings, binding("x", "ClusterRole", "cluster-admin", "owner"), 403},
		{"owner", "POST", myBindings, binding("x", "clusterrole", "cluster-admin", "owner"), 422},
		{"owner", "POST", myBindings, binding("x", "Role", "not there", "owner"), 404},
		{"owner", "POST", myBindings, strings.Replace(binding("x", "ClusterRole", "view", "owner"), `"apiGroup":"rbac`, `"apiGroup":"no`, 1), 422},
		{"owner", "PUT", myBindings + "/owner", binding("owner", "ClusterRole", "cluster-admin", "owner"), 403},
		{"owner", "PUT", myBindings + "/owner", binding("owner", "ClusterRole", "view", "owner"), 422},
		{"owner", "POST", rolesPath + "clusterrolebindings", binding("x", "ClusterRole", "view", "owner"), 403},
		{"binder", "POST", myBindings, binding("x", "Role", "patcher", "binder"), 403},
		{"binder", "POST", myBindings, binding("x", "ClusterRole", "target", "binder"), 404},
		{"binder", "POST", myBindings, binding("x", "ClusterRole", "edit", "binder"), 403},
		{"binder", "PUT", myBindings + "/existing", binding("existing", "ClusterRole", "view", "binder"), 403},
		{"updater", "PUT", myBindings + "/existing", binding("existing", "ClusterRole", "view", "updater"), 403},
		{"updater", "PUT", myBindings + "/existing", binding("mallory", "ClusterRole", "edit", "updater"), 400},
		{"updater", "PUT", myBindings + "/x", binding("x", "ClusterRole", "view", "updater"), 403},
		{"patcher", "PATCH", myBindings + "/mallory", `{"subjects":[{"kind":"User","name":"patcher"}]}`, 403},
		// Reviews of others.
		{"owner", "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", `{"spec":{"user":"admin"}}`, 403},
		{"owner", "POST", "/apis/authorization.k8s.io/v1/namespaces/mine/localsubjectaccessreviews", `{"spec":{"user":"x","resourceAttributes":{"namespace":"other","verb":"get","resource":"endpoints"}}}`, 422},
		{"owner", "POST", "/apis/authorization.k8s.io/v1/namespaces/other/localsubjectaccessreviews", `{"metadata":{"namespace":"mine"},"spec":{"user":"x"}}`, 403},
		{"mallory", "POST", "/apis/authentication.k8s.io/v1/tokenreviews", `{"spec":{"token":"admin"}}`, 403},
	} {
		code, answer := r.call(t, try.user, try.method, try.path, try.body)
		if code != try.code {
			t.Errorf("%s: %s %.100s %s: got %d, want %d: %.300s", try.user, try.method, try.path, try.body, code, try.code, answer)
		}
		if strings.Contains(answer, "other-1") || try.user == "watcher" && strings.Contains(answer, `"name":"mine-1","namespace"`) {
			t.Errorf("%s: %s %.100s shows %s", try.user, try.method, try.path, answer)
		}
	}
	if after := r.granted(t); !slices.Equal(before, after) {
		t.Errorf("the roles and bindings have become\n%s\nand were\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
}

// granted returns what all roles and bindings say, in order.
func (r *replica) granted(t *testing.T) (all []string) {
	t.Helper()
	var roles rbacv1.ClusterRoleList // which have the fields of the others, too
	var bindings rbacv1.ClusterRoleBindingList
	for path, into := range map[string]any{"roles": &roles, "clusterroles": &roles, "rolebindings": &bindings, "clusterrolebindings": &bindings} {
		if err := json.Unmarshal([]byte(r.must(t, "GET", rolesPath+path, "")), into); err != nil {
			t.Fatal(err)
		}
		for _, role := range roles.Items {
			all = append(all, fmt.Sprint(path, role.Namespace, role.Name, role.Labels, role.Finalizers, role.Rules, role.AggregationRule))
		}
		for _, b := range bindings.Items {
			all = append(all, fmt.Sprint(path, b.Namespace, b.Name, b.RoleRef, b.Subjects))
		}
		roles.Items, bindings.Items = nil, nil
	}
	slices.Sort(all)
	return all
}
