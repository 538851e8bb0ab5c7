// Package tenants holds what users may do against what their roles say, request by request.
package tenants

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/test/apitest"
	"github.com/berth-project/berth/test/harness"
)

var seed = flag.Uint64("seed", 0, "seed of the roles and requests; 0 is one of the day")

const (
	users, groups, namespaces = 30, 6, 6
	roles, bindings           = 40, 60
	objects                   = 3 // in each namespace, of each resource
	requests                  = 5000
	senders                   = 8
	// listenFor is how long a watch is listened to.
	listenFor = 100 * time.Millisecond
)

// resource is one that the requests are about.
type resource struct{ group, version, name, kind, spec string }

var resourcesUsed = []resource{
	{"", "v1", "endpoints", "Endpoints", `"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":80}]}]`},
	{"coordination.k8s.io", "v1", "leases", "Lease", `"spec":{"holderIdentity":"x"}`},
	{"rbac.authorization.k8s.io", "v1", "roles", "Role", `"rules":[]`},
}

// world is the roles and bindings of a run, and the server that has them.
type world struct {
	*apitest.Server
	random *rand.Rand
	roles  map[string][]rbacv1.PolicyRule // by "namespace/name"; cluster roles are "/name"
	bound  []bound
}

// bound is a binding: its namespace is "" if it is one of the cluster.
type bound struct {
	namespace, role string
	subjects        []rbacv1.Subject
}

// TestTenants sends random requests of users with random rights, and holds the answers against the
// rules as they are written: a request is refused with 403 or not, and no answer has anything of a
// namespace that it is not about.
func TestTenants(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().Unix() / (24 * 60 * 60))
	}
	t.Logf("-seed=%d", *seed)
	w := &world{random: rand.New(rand.NewPCG(*seed, 1)), roles: map[string][]rbacv1.PolicyRule{}}
	w.start(t)
	w.fill(t)
	w.grant(t)
	w.settle(t)
	asked := make(chan request)
	var sending sync.WaitGroup
	var mutex sync.Mutex
	outcomes := map[string]int{}
	for range senders {
		sending.Go(func() {
			for r := range asked {
				outcome := w.check(t, r)
				mutex.Lock()
				outcomes[r.verb+" "+outcome]++
				mutex.Unlock()
			}
		})
	}
	for range requests {
		asked <- w.request()
	}
	close(asked)
	sending.Wait()
	for _, verb := range verbs {
		if outcomes[verb+" allowed"] == 0 || outcomes[verb+" refused"] == 0 {
			t.Errorf("%s: %d were allowed and %d refused, which proves nothing", verb, outcomes[verb+" allowed"], outcomes[verb+" refused"])
		}
	}
	t.Log(outcomes)
}

func (w *world) start(t *testing.T) {
	t.Helper()
	var tokens strings.Builder
	tokens.WriteString(apitest.Token + ",admin,,system:masters\n")
	for i := range users {
		fmt.Fprintf(&tokens, "token-of-user-%d,user-%d,,\"group-%d,group-%d\"\n", i, i, i%groups, (i/groups)%groups)
	}
	everybody := &ratelimit.Config{Overrides: []ratelimit.Override{{Groups: []string{"system:authenticated"}, Exempt: true}}}
	server, err := apitest.Start(apitest.Config{Tokens: tokens.String(), RateLimits: everybody, AuthorizationMode: apiserver.ModeRBAC})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Client.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	w.Server = server
}

func inGroups(user int) []string {
	return []string{fmt.Sprintf("group-%d", user%groups), fmt.Sprintf("group-%d", (user/groups)%groups), "system:authenticated"}
}

// create creates an object as the admin.
func (w *world) create(t testing.TB, path, object string) {
	t.Helper()
	w.ask(t, apitest.Token, http.MethodPost, path, object, http.StatusCreated)
}

// ask sends a request, and fails the test unless the answer has the code.
func (w *world) ask(t testing.TB, token, method, path, body string, want int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", token)
	answer, err := w.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != want {
		t.Fatalf("%s %s %s: %d %s, %v", method, path, body, answer.StatusCode, text, err)
	}
}

func (r *resource) path(namespace, name string) string {
	path := "/api/" + r.version
	if r.group != "" {
		path = "/apis/" + r.group + "/" + r.version
	}
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	path += "/" + r.name
	if name != "" {
		path += "/" + name
	}
	return path
}

// object is one whose annotation tells which namespace it is of.
func (r *resource) object(namespace, name string) string {
	apiVersion := strings.TrimPrefix(r.group+"/"+r.version, "/")
	return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":%q,"annotations":{"of":"secret-of-%s"}},%s}`, apiVersion, r.kind, name, namespace, r.spec)
}

var secret = regexp.MustCompile(`secret-of-space-\d+|space-\d+`)

func space(i int) string { return fmt.Sprintf("space-%d", i) }

func named(i int) string { return fmt.Sprintf("object-%d", i) }

// fill creates the namespaces and what is in them.
func (w *world) fill(t *testing.T) {
	t.Helper()
	for i := range namespaces {
		w.create(t, "/api/v1/namespaces", fmt.Sprintf(`{"metadata":{"name":%q}}`, space(i)))
		for _, r := range resourcesUsed {
			for j := range objects {
				w.create(t, r.path(space(i), ""), r.object(space(i), named(j)))
			}
		}
	}
}

const rbacPath = "/apis/rbac.authorization.k8s.io/v1"

// grant creates roles and bindings.
func (w *world) grant(t *testing.T) {
	t.Helper()
	var names []string
	for i := range roles {
		namespace, name := "", fmt.Sprintf("role-%d", i)
		if i%2 == 1 {
			namespace = space(w.random.IntN(namespaces))
		}
		rules := w.rules(namespace == "")
		kind, path := "ClusterRole", rbacPath+"/clusterroles"
		if namespace != "" {
			kind, path = "Role", rbacPath+"/namespaces/"+namespace+"/roles"
		}
		w.create(t, path, marshal(t, map[string]any{"kind": kind, "apiVersion": rbacv1.SchemeGroupVersion.String(), "metadata": metav1.ObjectMeta{Name: name}, "rules": rules}))
		w.roles[namespace+"/"+name] = rules
		names = append(names, namespace+"/"+name)
	}
	for i := range bindings {
		role := names[w.random.IntN(len(names))]
		namespace, name, _ := strings.Cut(role, "/")
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}
		if namespace == "" {
			ref.Kind = "ClusterRole"
			if w.random.IntN(3) > 0 {
				namespace = space(w.random.IntN(namespaces))
			}
		}
		kind, path := "RoleBinding", rbacPath+"/namespaces/"+namespace+"/rolebindings"
		if namespace == "" {
			kind, path = "ClusterRoleBinding", rbacPath+"/clusterrolebindings"
		}
		b := bound{namespace, role, w.subjects()}
		w.create(t, path, marshal(t, map[string]any{
			"kind": kind, "apiVersion": rbacv1.SchemeGroupVersion.String(),
			"metadata": metav1.ObjectMeta{Name: fmt.Sprintf("binding-%d", i)}, "roleRef": ref, "subjects": b.subjects,
		}))
		w.bound = append(w.bound, b)
	}
}

// settle waits until all rights count.
func (w *world) settle(t testing.TB) {
	t.Helper()
	harness.SettleRights(func(path string) { w.ask(t, apitest.Token, http.MethodGet, path, "", http.StatusOK) })
}

func marshal(t *testing.T, object any) string {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// some returns a few of the choices.
func (w *world) some(most int, choices ...string) []string {
	var chosen []string
	for range 1 + w.random.IntN(most) {
		chosen = append(chosen, choices[w.random.IntN(len(choices))])
	}
	return chosen
}

// verbs are those of requests.
var verbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "path"}

// rules are those of a role.
func (w *world) rules(ofCluster bool) []rbacv1.PolicyRule {
	var rules []rbacv1.PolicyRule
	for range 1 + w.random.IntN(3) {
		rule := rbacv1.PolicyRule{
			Verbs:     w.some(4, append(verbs[:8:8], "*")...),
			APIGroups: w.some(2, "", "coordination.k8s.io", "rbac.authorization.k8s.io", "*"),
			Resources: w.some(2, "endpoints", "leases", "roles", "endpoints/status", "*/status", "*"),
		}
		if w.random.IntN(3) == 0 {
			rule.ResourceNames = w.some(2, named(0), named(1), "absent")
		}
		rules = append(rules, rule)
	}
	if ofCluster && w.random.IntN(2) == 0 {
		rules = append(rules, rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: w.some(1, "/metrics", "/debug/*", "/nothing")})
	}
	return rules
}

func (w *world) subjects() []rbacv1.Subject {
	var subjects []rbacv1.Subject
	for range 1 + w.random.IntN(2) {
		s := rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: fmt.Sprintf("user-%d", w.random.IntN(users))}
		if w.random.IntN(4) == 0 {
			s.Kind, s.Name = "Group", fmt.Sprintf("group-%d", w.random.IntN(groups))
		}
		subjects = append(subjects, s)
	}
	return subjects
}

// request is one of a user; path is that of no resource, and of no namespace.
type request struct {
	user            int
	verb            string
	resource        resource
	namespace, name string
	creates         bool // of an update or a patch: there is no such object
	method, path    string
	body, mediaType string
	accept          string
}

// accepts are the forms of answers.
var accepts = []string{
	"application/json", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf",
	"application/json;as=Table;g=meta.k8s.io;v=v1", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
}

// request returns a random one. Those that write are dry runs.
func (w *world) request() request {
	r := request{
		user: w.random.IntN(users), verb: verbs[w.random.IntN(len(verbs))], resource: resourcesUsed[w.random.IntN(len(resourcesUsed))],
		namespace: space(w.random.IntN(namespaces)), accept: accepts[w.random.IntN(len(accepts))], mediaType: "application/json",
	}
	const dryRun = "?dryRun=All"
	switch r.verb {
	case "get":
		r.method, r.name = http.MethodGet, named(w.random.IntN(objects))
		r.path = r.resource.path(r.namespace, r.name)
	case "list", "watch":
		w.collection(&r)
	case "create":
		r.method, r.body = http.MethodPost, r.resource.object(r.namespace, "new")
		r.path = r.resource.path(r.namespace, "") + dryRun
	case "update", "patch":
		r.name = named(w.random.IntN(objects))
		if r.creates = w.random.IntN(3) == 0; r.creates {
			r.name = "absent"
		}
		r.path, r.body = r.resource.path(r.namespace, r.name)+dryRun, r.resource.object(r.namespace, r.name)
		r.method = http.MethodPut
		if r.verb == "patch" {
			r.method, r.mediaType = http.MethodPatch, "application/apply-patch+yaml"
			r.path += "&fieldManager=tenant&force=true"
		}
	case "delete":
		r.method, r.name = http.MethodDelete, named(w.random.IntN(objects))
		r.path = r.resource.path(r.namespace, r.name) + dryRun
	case "deletecollection":
		r.method, r.path = http.MethodDelete, r.resource.path(r.namespace, "")+dryRun
	case "path":
		r.method, r.namespace, r.accept = http.MethodGet, "", "*/*"
		r.path = []string{"/metrics", "/debug/nothing", "/nothing"}[w.random.IntN(3)]
	}
	return r
}

// collection makes a request a list or a watch, perhaps of all namespaces, or of one name.
func (w *world) collection(r *request) {
	r.method = http.MethodGet
	if w.random.IntN(4) == 0 {
		r.namespace = ""
	}
	r.path = r.resource.path(r.namespace, "") + "?limit=100"
	if r.verb == "watch" {
		r.path = r.resource.path(r.namespace, "") + "?watch=true"
		r.accept = accepts[w.random.IntN(2)]
	}
	if w.random.IntN(4) == 0 {
		r.name = named(w.random.IntN(objects))
		r.path += "&fieldSelector=metadata.name%3D" + r.name
	}
}

// check sends a request and checks its answer. It returns whether that was allowed or refused.
func (w *world) check(t *testing.T, r request) string {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, w.URL+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Error(err)
		return ""
	}
	req.Header.Set("X-Auth-Token", fmt.Sprintf("token-of-user-%d", r.user))
	req.Header.Set("Content-Type", r.mediaType)
	req.Header.Set("Accept", r.accept)
	answer, err := w.Client.Do(req)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer answer.Body.Close()
	if r.verb == "watch" && answer.StatusCode == http.StatusOK {
		defer time.AfterFunc(listenFor, cancel).Stop()
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil && ctx.Err() == nil {
		t.Error(err)
	}
	allowed := w.allows(&r)
	if (answer.StatusCode == http.StatusForbidden) == allowed || answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= 500 {
		t.Errorf("user-%d %s %s: got %d %.300s, allowed: %v", r.user, r.method, r.path, answer.StatusCode, body, allowed)
	}
	for _, found := range secret.FindAllString(string(body)+fmt.Sprint(answer.Header), -1) {
		of := strings.TrimPrefix(found, "secret-of-")
		if isSecret := of != found; of != r.namespace && (r.namespace != "" || !allowed || r.verb == "path") || isSecret && !allowed {
			t.Errorf("user-%d %s %s: the answer %d tells of %s: %.1000s", r.user, r.method, r.path, answer.StatusCode, found, body)
			break
		}
	}
	if !allowed {
		return "refused"
	}
	return "allowed"
}

// allows reports whether the rules allow the request, as one reads them.
func (w *world) allows(r *request) bool {
	if r.creates && !w.has(r, "create") {
		return false
	}
	return w.has(r, r.verb)
}

func (w *world) has(r *request, verb string) bool {
	user := fmt.Sprintf("user-%d", r.user)
	for _, b := range w.bound {
		if b.namespace != "" && b.namespace != r.namespace {
			continue
		}
		isBound := slices.ContainsFunc(b.subjects, func(s rbacv1.Subject) bool {
			return s.Kind == "User" && s.Name == user || s.Kind == "Group" && slices.Contains(inGroups(r.user), s.Name)
		})
		if isBound && slices.ContainsFunc(w.roles[b.role], func(rule rbacv1.PolicyRule) bool { return fits(&rule, r, verb) }) {
			return true
		}
	}
	return false
}

func fits(rule *rbacv1.PolicyRule, r *request, verb string) bool {
	either := func(list []string, one string) bool { return slices.Contains(list, one) || slices.Contains(list, "*") }
	if verb == "path" {
		return either(rule.Verbs, "get") && slices.ContainsFunc(rule.NonResourceURLs, func(url string) bool {
			prefix, isPrefix := strings.CutSuffix(url, "*")
			return url == r.path || isPrefix && strings.HasPrefix(r.path, prefix)
		})
	}
	return either(rule.Verbs, verb) && either(rule.APIGroups, r.resource.group) && either(rule.Resources, r.resource.name) &&
		(rule.ResourceNames == nil || slices.Contains(rule.ResourceNames, r.name))
}
