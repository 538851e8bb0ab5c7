package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/pkg/audit"
	"github.com/berth-project/berth/test/apitest"
	"github.com/berth-project/berth/test/harness"
)

const feed = "/feeds/prometheus"

// put creates or replaces an Endpoints of one address with two ports.
func put(t *testing.T, client *http.Client, server *apitest.Server, namespace, name, labels string) {
	t.Helper()
	body := `{"metadata":{"name":"` + name + `","labels":{` + labels + `}},"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"name":"metrics","port":9100},{"name":"http","port":80}]}]}`
	a := send(t, client, newRequest(t, server, http.MethodPut, endpointsPath(namespace, name), []byte(body)))
	if a.code != http.StatusOK && a.code != http.StatusCreated {
		t.Fatalf("%d %s", a.code, a.body)
	}
}

// fed returns the objects that a feed has targets of, as "namespace/name target", in their order.
func fed(t *testing.T, a *answer) []string {
	t.Helper()
	checkCode(t, a, http.StatusOK, "")
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	var groups []struct {
		Targets []string
		Labels  map[string]string
	}
	if err := json.Unmarshal(a.body, &groups); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	found := []string{}
	for _, group := range groups {
		for _, target := range group.Targets {
			found = append(found, group.Labels["namespace"]+"/"+group.Labels["endpoints"]+" "+target)
		}
	}
	return found
}

func TestFeed(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns, other := newNamespace(t, shared), newNamespace(t, shared)
		put(t, client, shared, ns, "db", `"app":"db"`)
		put(t, client, shared, ns, "web", `"app":"web"`)
		put(t, client, shared, other, "web", `"app":"web"`)
		get := func(query string, headers ...string) *answer {
			t.Helper()
			return send(t, client, newRequest(t, shared, http.MethodGet, feed+query, nil, headers...))
		}
		for query, want := range map[string][]string{
			"?namespace=" + ns:                                               {ns + "/db 10.0.0.1:9100", ns + "/db 10.0.0.1:80", ns + "/web 10.0.0.1:9100", ns + "/web 10.0.0.1:80"},
			"?port=metrics&namespace=" + ns:                                  {ns + "/db 10.0.0.1:9100", ns + "/web 10.0.0.1:9100"},
			"?port=metrics&labelSelector=app%3Dweb&namespace=" + ns:          {ns + "/web 10.0.0.1:9100"},
			"?port=http&fieldSelector=metadata.name%3Ddb&namespace=" + ns:    {ns + "/db 10.0.0.1:80"},
			"?port=other&namespace=" + ns:                                    {},
			"?namespace=no-such-namespace":                                   {},
			"?port=http&fieldSelector=metadata.namespace%3D" + other:         {other + "/web 10.0.0.1:80"},
			"?pretty=true&timeout=5s&port=http&namespace=" + other:           {other + "/web 10.0.0.1:80"},
			"?port=http&labelSelector=app+in+(web,db)&namespace=" + other:    {other + "/web 10.0.0.1:80"},
			"?port=http&labelSelector=app%21%3Dweb&namespace=" + ns:          {ns + "/db 10.0.0.1:80"},
			"?port=http&port=none&labelSelector=app%3Dweb&namespace=" + ns:   {ns + "/web 10.0.0.1:80"},
			"?port=http&labelSelector=app%3Dweb,tier%3Da&namespace=" + other: {},
		} {
			if got := fed(t, get(query)); !slices.Equal(got, want) {
				t.Errorf("%s: got %q, want %q", query, got, want)
			}
		}
		if all := fed(t, get("?port=http")); !slices.Contains(all, ns+"/web 10.0.0.1:80") || !slices.Contains(all, other+"/web 10.0.0.1:80") {
			t.Errorf("in all namespaces: %q", all)
		}
		for _, agent := range []string{"Prometheus/3.5.0", "curl/8.5.0"} { // it is the same for all
			a := get("?namespace="+ns, "User-Agent", agent, "Accept", "application/vnd.kubernetes.protobuf,application/json")
			if !bytes.Equal(a.body, get("?namespace="+ns).body) {
				t.Errorf("%s: %s", agent, a.body)
			}
		}
	})
}

func TestFeedErrors(t *testing.T) {
	for _, tc := range []struct {
		method, path, accept string
		code                 int
		message              string
	}{
		{"GET", feed + "?labelselector=a", "", 400, `unknown parameter "labelselector"`},
		{"GET", feed + "?watch=true", "", 400, `unknown parameter "watch"`},
		{"GET", feed + "?labelSelector=a%3D%3D%3D", "", 400, "found '=', expected: identifier"},
		{"GET", feed + "?fieldSelector=spec.a%3Db", "", 400, "spec.a"},
		{"GET", feed + "?namespace=a&namespace=b", "", 400, "the parameter namespace may be given once"},
		{"GET", feed + "?namespace=a/b", "", 400, "invalid namespace"},
		{"GET", feed + "?namespace=a;b", "", 400, "the query cannot be parsed"},
		{"GET", feed + "?timeout=soon", "", 400, "invalid timeout"},
		{"GET", feed, "application/vnd.kubernetes.protobuf", 406, "application/json"},
		{"GET", feed, "text/html", 406, "application/json"},
		{"POST", feed, "", 405, "does not allow this method"},
		{"DELETE", feed, "", 405, "does not allow this method"},
	} {
		a := send(t, shared.Client, newRequest(t, shared, tc.method, tc.path, nil, "Accept", tc.accept))
		status := &metav1.Status{}
		if tc.code == http.StatusNotAcceptable && tc.accept != "text/html" {
			status = decode[*metav1.Status](t, a)
		} else if err := json.Unmarshal(a.body, status); err != nil {
			t.Fatalf("%s %s: %v: %s", tc.method, tc.path, err, a.body)
		}
		if a.code != tc.code || int(status.Code) != tc.code || !strings.Contains(status.Message, tc.message) || a.header.Get("ETag") != "" {
			t.Errorf("%s %s: %d %v", tc.method, tc.path, a.code, status)
		}
	}
	for _, path := range []string{feed + "/", "/feeds", "//feeds/prometheus"} {
		if a := send(t, shared.Client, newRequest(t, shared, http.MethodGet, path, nil)); a.code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, a.code, a.body)
		}
	}
}

// The ETag stays for as long as the answer does, whatever else is written.
func TestFeedETag(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns, other := newNamespace(t, shared), newNamespace(t, shared)
		put(t, client, shared, ns, "db", `"app":"db"`)
		put(t, client, shared, ns, "web", `"app":"web"`)
		query := feed + "?labelSelector=app&namespace=" + ns
		get := func(method string, headers ...string) *answer {
			t.Helper()
			return send(t, client, newRequest(t, shared, method, query, nil, headers...))
		}
		a := get(http.MethodGet)
		tag := a.header.Get("ETag")
		if length := a.header.Get("Content-Length"); length != fmt.Sprint(len(a.body)) {
			t.Errorf("Content-Length %s of %d bytes", length, len(a.body))
		}
		head := get(http.MethodHead)
		if head.code != 200 || len(head.body) > 0 || head.header.Get("ETag") != tag || head.header.Get("Content-Length") != a.header.Get("Content-Length") || head.header.Get("Content-Type") != "application/json" {
			t.Errorf("HEAD: %d %v", head.code, head.header)
		}
		unchanged := func() {
			t.Helper()
			for _, value := range []string{tag, strings.TrimPrefix(tag, "W/"), `"x", ` + tag, "*"} {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					if a := get(method, "If-None-Match", value); a.code != http.StatusNotModified || len(a.body) > 0 || a.header.Get("ETag") != tag {
						t.Errorf("%s with %s: %d %v %s", method, value, a.code, a.header, a.body)
					}
				}
			}
		}
		unchanged()
		put(t, client, shared, other, "web", `"app":"web"`)
		put(t, client, shared, ns, "hidden", "")
		unchanged()
		known := map[string]bool{tag: true}
		for what, change := range map[string]func(){
			"update":     func() { put(t, client, shared, ns, "web", `"app":"web","tier":"a"`) },
			"create":     func() { put(t, client, shared, ns, "new", `"app":"web"`) },
			"unlabelled": func() { put(t, client, shared, ns, "db", "") },
			"delete": func() {
				checkCode(t, send(t, client, newRequest(t, shared, http.MethodDelete, endpointsPath(ns, "web"), nil)), 200, "")
			},
		} {
			change()
			a := get(http.MethodGet, "If-None-Match", tag)
			if next := a.header.Get("ETag"); a.code != 200 || known[next] {
				t.Errorf("after %s: %d, ETag %s", what, a.code, next)
			}
			tag = a.header.Get("ETag")
			known[tag] = true
		}
		unchanged()
		if a := send(t, client, newRequest(t, shared, http.MethodGet, query+"&port=http", nil, "If-None-Match", tag)); a.code != 200 {
			t.Errorf("of one port: %d", a.code)
		}
	})
}

func TestFeedCompressed(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns := newNamespace(t, shared)
		checkCode(t, send(t, client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), addressed("large", 10_000))), 201, "")
		path := feed + "?namespace=" + ns
		plain := send(t, client, newRequest(t, shared, http.MethodGet, path, nil))
		a := send(t, client, newRequest(t, shared, http.MethodGet, path, nil, "Accept-Encoding", "gzip"))
		if a.header.Get("Content-Encoding") != "gzip" || a.header.Get("Vary") != "Accept-Encoding" || a.header.Get("ETag") != plain.header.Get("ETag") {
			t.Fatalf("%d %v", a.code, a.header)
		}
		if got := unzip(t, a.body); !bytes.Equal(got, plain.body) || len(fed(t, plain)) != 10_000 {
			t.Errorf("unzipped %d bytes, plain are %d", len(got), len(plain.body))
		}
	})
}

// A value that cannot be read takes no target with it.
func TestFeedUnreadable(t *testing.T) {
	ns := newNamespace(t, shared)
	put(t, shared.Client, shared, ns, "web", "")
	if err := shared.PutInEtcd(t.Context(), "/registry/endpoints/"+ns+"/broken", "garbage"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		send(t, shared.Client, newRequest(t, shared, http.MethodDelete, endpointsPath(ns, "broken")+ignoring, nil))
	}()
	a := send(t, shared.Client, newRequest(t, shared, http.MethodGet, feed+"?port=http&namespace="+ns, nil))
	if got := fed(t, a); len(got) != 1 || !strings.Contains(a.header.Get("Warning"), ns+"/broken") {
		t.Errorf("got %q, Warning %q", got, a.header.Get("Warning"))
	}
}

func TestFeedLimits(t *testing.T) {
	query := feed + "?namespace=" + newNamespace(t, shared)
	get := func(headers ...string) *answer {
		t.Helper()
		return send(t, shared.Client, newRequest(t, shared, http.MethodGet, query, nil, headers...))
	}
	checkCode(t, get(), 200, "[]\n")
	checkCode(t, get("If-None-Match", "*"), 304, "")
	var refused *answer
	eventually(t, "a limit is met", func() bool {
		refused = get("X-Auth-Token", slowerToken, "If-None-Match", "*")
		return refused.code == http.StatusTooManyRequests
	})
	status := decode[*metav1.Status](t, refused)
	if refused.header.Get("Retry-After") == "" || !strings.Contains(status.Message, "(read-rate of user \"slower\": 0.5 a second, burst 1)") {
		t.Errorf("%v %s", refused.header, refused.body)
	}
	metrics := send(t, shared.Client, newRequest(t, shared, http.MethodGet, "/metrics", nil)).body
	for _, code := range []string{"200", "304", "429"} {
		series := `apiserver_request_total{code="` + code + `",component="apiserver",dry_run="",group="",resource="endpoints",scope="namespace",subresource="",verb="LIST",version="v1"}`
		if !bytes.Contains(metrics, []byte(series)) {
			t.Errorf("there is no %s", series)
		}
	}
}

// The feed has of each namespace what its user may list there, and no way around.
func TestFeedRights(t *testing.T) {
	server := startServer(t, apitest.Config{Tokens: tokens(), AuthorizationMode: apiserver.ModeRBAC})
	ours, theirs := newNamespace(t, server), newNamespace(t, server)
	for _, ns := range []string{ours, theirs} {
		put(t, server.Client, server, ns, "web", "")
		put(t, server.Client, server, ns, "db", "")
	}
	const api = "/apis/rbac.authorization.k8s.io/v1/"
	for path, body := range map[string]string{
		api + "namespaces/" + ours + "/rolebindings": `{"metadata":{"name":"alice"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"alice"}]}`,
		// What names the path itself gives nothing.
		api + "clusterroles":                           `{"metadata":{"name":"paths"},"rules":[{"verbs":["*"],"nonResourceURLs":["*"]}]}`,
		api + "clusterrolebindings":                    `{"metadata":{"name":"paths"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"paths"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"Group","name":"system:authenticated"}]}`,
		api + "namespaces/" + theirs + "/roles":        `{"metadata":{"name":"web"},"rules":[{"verbs":["list"],"apiGroups":[""],"resources":["endpoints"],"resourceNames":["web"]}]}`,
		api + "namespaces/" + theirs + "/rolebindings": `{"metadata":{"name":"slow"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"web"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"slow"}]}`,
	} {
		checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodPost, path, []byte(body))), http.StatusCreated, "")
	}
	get := func(token, query string, headers ...string) *answer {
		t.Helper()
		return send(t, server.Client, newRequest(t, server, http.MethodGet, feed+query, nil, append([]string{"X-Auth-Token", token}, headers...)...))
	}
	eventually(t, "alice may read", func() bool { return get(aliceToken, "?namespace="+ours).code == http.StatusOK })
	eventually(t, "slow may read", func() bool {
		return get(slowToken, "?fieldSelector=metadata.name%3Dweb&namespace="+theirs).code == http.StatusOK
	})
	if got := fed(t, get(aliceToken, "?port=http&namespace="+ours)); !slices.Equal(got, []string{ours + "/db 10.0.0.1:80", ours + "/web 10.0.0.1:80"}) {
		t.Errorf("alice reads %q", got)
	}
	if got := fed(t, get(slowToken, "?port=http&fieldSelector=metadata.name%3Dweb&namespace="+theirs)); !slices.Equal(got, []string{theirs + "/web 10.0.0.1:80"}) {
		t.Errorf("slow reads %q", got)
	}
	if got := fed(t, get(apitest.Token, "?port=http", "Impersonate-User", "nobody", "Impersonate-Group", "system:masters")); len(got) != 4 {
		t.Errorf("who is as good as an administrator reads %q", got)
	}
	for query, code := range map[string]int{
		"":                     403,
		"?namespace=":          403,
		"?namespace=" + theirs: 403,
		"?fieldSelector=metadata.namespace%3D" + ours:             403,
		"?namespace=" + theirs + "&namespace=" + ours:             403,
		"?namespace=" + ours + "&namespace=" + theirs:             400,
		"?namespace=" + ours + ";namespace=" + theirs:             403,
		"?Namespace=" + ours:                                      403,
		"?namespace=" + ours + "%2F..%2F" + theirs:                403,
		"?fieldSelector=metadata.name%3Dweb&namespace=" + theirs:  403,
		"?fieldSelector=metadata.name%3Dweb&nonsense=1":           403,
		"?labelSelector=%21%21&namespace=" + theirs:               403,
		"?namespace=" + theirs + "&timeout=soon&watch=1&limit=no": 403,
	} {
		for _, headers := range [][]string{nil, {"If-None-Match", "*"}} {
			a := get(aliceToken, query, headers...)
			if a.code != code || a.header.Get("ETag") != "" || bytes.Contains(a.body, []byte("10.0.0.1")) {
				t.Errorf("%s: %d %v %s", query, a.code, a.header, a.body)
			}
		}
	}
	a := get(aliceToken, "?namespace="+theirs)
	checkCode(t, a, 403, `endpoints is forbidden: User \"alice\" cannot list resource \"endpoints\" in API group \"\" in the namespace \"`+theirs+`\"`)
	checkCode(t, get(aliceToken, ""), 403, `cannot list resource \"endpoints\" in API group \"\" at the cluster scope`)
	checkCode(t, get(slowToken, "?namespace="+theirs), 403, "")
	checkCode(t, get(apitest.Token, "", "Impersonate-User", "alice"), 403, "")
	checkCode(t, get(noToken, "?namespace="+ours), 403, "system:anonymous")
}

// The audit log has a list of endpoints, and what was in it.
func TestFeedAudit(t *testing.T) {
	policy, err := audit.ParsePolicy([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- {level: RequestResponse, verbs: [list], resources: [{group: '', resources: [endpoints]}]}\n- {level: None}"))
	if err != nil {
		t.Fatal(err)
	}
	server, log, path := startAudited(t, policy)
	put(t, server.Client, server, "default", "web", "")
	const query = feed + "?namespace=default&port=http"
	checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodGet, query, nil)), 200, "")
	checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodGet, query, nil, "If-None-Match", "*")), 304, "")
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(harness.ReadFile(t, path)), "\n")
	if len(lines) != 2 {
		t.Fatalf("%q", lines)
	}
	for i, code := range []int{200, 304} {
		var event struct {
			Verb, RequestURI string
			ObjectRef        struct{ Resource, Namespace, APIVersion string }
			ResponseStatus   struct{ Code int }
			ResponseObject   *corev1.EndpointsList
		}
		if err := json.Unmarshal([]byte(lines[i]), &event); err != nil {
			t.Fatal(err)
		}
		if ref := event.ObjectRef; event.Verb != "list" || event.RequestURI != query || ref.Resource != "endpoints" || ref.Namespace != "default" || ref.APIVersion != "v1" || event.ResponseStatus.Code != code {
			t.Errorf("%s", lines[i])
		}
		if list := event.ResponseObject; (list != nil) != (code == 200) || list != nil && (len(list.Items) != 1 || list.Items[0].Name != "web") {
			t.Errorf("%s", lines[i])
		}
	}
}
