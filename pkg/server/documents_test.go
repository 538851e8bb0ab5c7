package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/transport"

	"github.com/berth-project/berth/pkg/auth"
)

const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

func coreResources() []Resource {
	return []Resource{
		&fakeResource{api: metav1.APIResource{
			Version: "v1", Kind: "Endpoints", Name: "endpoints", SingularName: "endpoints", Namespaced: true, ShortNames: []string{"ep"},
		}},
		&fakeResource{api: metav1.APIResource{
			Version: "v1", Kind: "Namespace", Name: "namespaces", SingularName: "namespace", ShortNames: []string{"ns"},
			Verbs: metav1.Verbs{"create", "delete", "get", "list", "patch", "update", "watch"},
		}},
	}
}

// startDocuments serves the documents of the resources over HTTP/2.
func startDocuments(t *testing.T, served ...Resource) *httptest.Server {
	t.Helper()
	cfg := testConfig(t, served...)
	cfg.Reviews = cfg.Reviews[:1]
	return start(t, newTestServer(t, cfg), true)
}

// ask sends a request; its headers are pairs of name and value.
func ask(t *testing.T, web *httptest.Server, method, path string, headers ...string) (reply, []byte) {
	t.Helper()
	req := clientRequest(t, web.URL+path, headers...)
	req.Method = method
	resp, body, err := send(t, web, req)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func discoveryClient(t *testing.T, web *httptest.Server) *discovery.DiscoveryClient {
	t.Helper()
	client, err := discovery.NewDiscoveryClientForConfigAndClient(&rest.Config{Host: web.URL}, &http.Client{
		Transport: transport.NewBearerAuthRoundTripper(testToken, web.Client().Transport),
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestDiscovery runs on one server, since none of it changes anything.
func TestDiscovery(t *testing.T) {
	web := startDocuments(t, append(coreResources(), &fakeResource{
		api:   metav1.APIResource{Group: "sea.io", Version: "v1", Kind: "Quay", Name: "quays", SingularName: "quay", Namespaced: true},
		below: []metav1.APIResource{{Name: "quays/status", Kind: "Quay", Verbs: metav1.Verbs{"get", "update"}}},
	})...)
	for name, run := range map[string]func(*testing.T, *httptest.Server){
		"documents":   testDiscoveryDocuments,
		"clients":     testDiscoveryByClients,
		"negotiation": testDiscoveryNegotiation,
		"protobuf":    testDiscoveryInProtobuf,
		"caching":     testDiscoveryCaching,
		"errors":      testDiscoveryErrors,
	} {
		t.Run(name, func(t *testing.T) { run(t, web) })
	}
}

func testDiscoveryDocuments(t *testing.T, web *httptest.Server) {
	address := strings.TrimPrefix(web.URL, "https://")
	const verbs = `"verbs":["create","delete","deletecollection","get","list","patch","update","watch"]`
	for path, want := range map[string]string{
		"/api":         `{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[{"clientCIDR":"0.0.0.0/0","serverAddress":"` + address + `"}]}`,
		"/apis":        `{"kind":"APIGroupList","apiVersion":"v1","groups":[{"name":"sea.io","versions":[{"groupVersion":"sea.io/v1","version":"v1"}],"preferredVersion":{"groupVersion":"sea.io/v1","version":"v1"}},{"name":"authentication.k8s.io","versions":[{"groupVersion":"authentication.k8s.io/v1","version":"v1"}],"preferredVersion":{"groupVersion":"authentication.k8s.io/v1","version":"v1"}}]}`,
		"/apis/sea.io": `{"kind":"APIGroup","apiVersion":"v1","name":"sea.io","versions":[{"groupVersion":"sea.io/v1","version":"v1"}],"preferredVersion":{"groupVersion":"sea.io/v1","version":"v1"}}`,
		"/api/v1": `{"kind":"APIResourceList","groupVersion":"v1","resources":[` +
			`{"name":"endpoints","singularName":"endpoints","namespaced":true,"kind":"Endpoints",` + verbs + `,"shortNames":["ep"],"storageVersionHash":"fWeeMqaN/OA="},` +
			`{"name":"namespaces","singularName":"namespace","namespaced":false,"kind":"Namespace",` + strings.Replace(verbs, `"deletecollection",`, "", 1) + `,"shortNames":["ns"],"storageVersionHash":"Q3oi5N2YM8M="}]}`,
		"/apis/sea.io/v1": `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"sea.io/v1","resources":[` +
			`{"name":"quays","singularName":"quay","namespaced":true,"kind":"Quay",` + verbs + `,"storageVersionHash":"F/NQFrUQDXw="},` +
			`{"name":"quays/status","singularName":"","namespaced":true,"kind":"Quay","verbs":["get","update"]}]}`,
	} {
		for _, path := range []string{path, path + "/"} {
			resp, body := ask(t, web, http.MethodGet, path)
			if got := strings.TrimSpace(string(body)); got != want || resp.header.Get("Content-Type") != "application/json" {
				t.Errorf("GET %s: got %s of %s, want %s", path, got, resp.header.Get("Content-Type"), want)
			}
		}
	}
}

// testDiscoveryByClients shows that both forms of discovery tell clients the same, and that
// names and kinds map to each other.
func testDiscoveryByClients(t *testing.T, web *httptest.Server) {
	client := discoveryClient(t, web)
	legacy := discoveryClient(t, web)
	legacy.UseLegacyDiscovery = true

	_, newer, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	_, older, err := legacy.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, lists := range [][]*metav1.APIResourceList{older, newer} { // clients return them in any order
		slices.SortFunc(lists, func(a, b *metav1.APIResourceList) int { return strings.Compare(a.GroupVersion, b.GroupVersion) })
	}
	for _, list := range older {
		list.TypeMeta = metav1.TypeMeta{}
		parent := ""
		for i := range list.APIResources {
			resource := &list.APIResources[i]
			if strings.Contains(resource.Name, "/") {
				resource.SingularName = parent // clients fill it in from the aggregated form
			}
			parent = resource.SingularName
			gv, err := schema.ParseGroupVersion(list.GroupVersion)
			if err != nil {
				t.Fatal(err)
			}
			// The aggregated form names them on each resource, and has no hash.
			resource.Group, resource.Version, resource.StorageVersionHash = gv.Group, gv.Version, ""
		}
	}
	for _, list := range newer {
		list.TypeMeta = metav1.TypeMeta{}
	}
	if diff := cmp.Diff(older, newer); diff != "" {
		t.Errorf("the aggregated form differs (-plain +aggregated)\n%s", diff)
	}

	groups, err := restmapper.GetAPIGroupResources(client)
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewShortcutExpander(restmapper.NewDiscoveryRESTMapper(groups), client, nil)
	for _, name := range []string{"ep", "endpoints"} {
		kind, err := mapper.KindFor(schema.GroupVersionResource{Resource: name})
		if want := (schema.GroupVersionKind{Version: "v1", Kind: "Endpoints"}); err != nil || kind != want {
			t.Errorf("KindFor(%s): got %v, %v; want %v", name, kind, err, want)
		}
	}
	mapping, err := mapper.RESTMapping(schema.GroupKind{Kind: "Namespace"}, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if got := mapping.Resource.Resource + " " + string(mapping.Scope.Name()); got != "namespaces root" {
		t.Errorf("the mapping of Namespace: got %s, want namespaces root", got)
	}
}

func testDiscoveryNegotiation(t *testing.T, web *httptest.Server) {
	tests := []struct {
		path, accept string
		code         int
		contentType  string
	}{
		{"/api", aggregated, http.StatusOK, aggregated},
		{"/apis", aggregated, http.StatusOK, aggregated},
		{"/apis", aggregated + ";profile=nopeer," + aggregated + ",application/json", http.StatusOK, aggregated},
		{"/apis", strings.Replace(aggregated, "json", "vnd.kubernetes.protobuf", 1), http.StatusOK, strings.Replace(aggregated, "json", "vnd.kubernetes.protobuf", 1)},
		{"/apis", strings.Replace(aggregated, "v=v2", "v=v2beta1", 1) + ",application/json", http.StatusOK, "application/json"},
		{"/apis", strings.Replace(aggregated, "v=v2", "v=v2beta1", 1), http.StatusNotAcceptable, "application/json"},
		{"/api/v1", aggregated, http.StatusNotAcceptable, "application/json"},
		{"/api/v1", aggregated + ",application/json", http.StatusOK, "application/json"},
		{"/api/v1", "application/yaml", http.StatusOK, "application/yaml"},
		{"/api/v1", "application/vnd.kubernetes.protobuf", http.StatusOK, "application/vnd.kubernetes.protobuf"},
		{"/api", "text/html, */*;q=0.1", http.StatusOK, "application/json"},
		{"/api", "text/html", http.StatusNotAcceptable, "application/json"},
	}
	for _, test := range tests {
		resp, body := ask(t, web, http.MethodGet, test.path, "Accept", test.accept)
		if resp.code != test.code || resp.header.Get("Content-Type") != test.contentType {
			t.Errorf("GET %s, Accept: %s: got %d %s, want %d %s; %q", test.path, test.accept,
				resp.code, resp.header.Get("Content-Type"), test.code, test.contentType, body)
		}
	}
}

// testDiscoveryInProtobuf decodes what clients of typed APIs ask for.
func testDiscoveryInProtobuf(t *testing.T, web *httptest.Server) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	if err := apidiscoveryv2.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	decoder := protobuf.NewSerializer(scheme, scheme)

	_, body := ask(t, web, http.MethodGet, "/api/v1", "Accept", runtime.ContentTypeProtobuf)
	list := &metav1.APIResourceList{}
	hint := schema.GroupVersionKind{Version: "v1", Kind: "APIResourceList"}
	if _, _, err := decoder.Decode(body, &hint, list); err != nil || len(list.APIResources) == 0 {
		t.Errorf("GET /api/v1: got %v (%v)", list, err)
	}
	_, body = ask(t, web, http.MethodGet, "/api", "Accept", strings.Replace(aggregated, "json", "vnd.kubernetes.protobuf", 1))
	all := &apidiscoveryv2.APIGroupDiscoveryList{}
	if _, _, err := decoder.Decode(body, nil, all); err != nil || len(all.Items) != 1 || len(all.Items[0].Versions) != 1 {
		t.Errorf("GET /api, aggregated: got %v (%v)", all, err)
	}
}

func testDiscoveryCaching(t *testing.T, web *httptest.Server) {
	for _, path := range []string{"/api", "/apis"} {
		first, _ := ask(t, web, http.MethodGet, path, "Accept", aggregated)
		etag := first.header.Get("ETag")
		if etag == "" || first.header.Get("Vary") != "Accept" || first.header.Get("Cache-Control") != "public" {
			t.Errorf("GET %s: got headers %v", path, first.header)
		}
		again, body := ask(t, web, http.MethodGet, path, "Accept", aggregated, "If-None-Match", etag)
		if again.code != http.StatusNotModified || len(body) > 0 || again.header.Get("ETag") != etag {
			t.Errorf("GET %s with the same ETag: got %d %q %v", path, again.code, body, again.header)
		}
		other, _ := ask(t, web, http.MethodGet, path, "Accept", aggregated, "If-None-Match", `"other"`)
		if other.code != http.StatusOK {
			t.Errorf("GET %s with another ETag: got %d", path, other.code)
		}
	}
}

// The index lists the paths that are the same for all objects, each once.
func TestIndex(t *testing.T) {
	s, _ := harbour(t)
	w := serveOnce(s, newRequest(t, http.MethodGet, "/", ""))
	var index metav1.RootPaths
	if err := json.Unmarshal(w.Body.Bytes(), &index); err != nil || w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %s %v, %v", w.Code, w.Body, w.Header(), err)
	}
	want := []string{
		"/api", "/api/v1", "/apis", "/apis/authentication.k8s.io", "/apis/authentication.k8s.io/v1", "/apis/sea.io", "/apis/sea.io/v1", "/apis/sea.io/v2", "/debug/limits", "/feeds/prometheus", "/healthz", "/healthz/etcd", "/healthz/ping",
		"/livez", "/livez/ping", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/readyz/etcd", "/readyz/ping", "/readyz/shutdown", "/version",
	}
	if diff := cmp.Diff(want, index.Paths); diff != "" {
		t.Errorf("paths (-want +got)\n%s", diff)
	}
}

// A browser, which has no token, gets a page that loads nothing. It is limited as health is.
func TestPage(t *testing.T) {
	cfg := testConfig(t, coreResources()...)
	cfg.Version.GitVersion = "v1.37.2+<berth>"
	s := newTestServer(t, cfg)
	browse := func() *httptest.ResponseRecorder {
		return serveOnce(s, newRequest(t, http.MethodGet, "/", "", "Accept", "text/html,*/*;q=0.8", "X-Auth-Token", ""))
	}
	w := browse()
	body := w.Body.String()
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" || !strings.HasPrefix(w.Header().Get("Content-Security-Policy"), "default-src 'none';") {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
	for _, want := range []string{"v1.37.2+&lt;berth&gt;", `href="/readyz?verbose"`, `href="/openapi/v2"`, "#readme"} {
		if !strings.Contains(strings.ReplaceAll(body, "&#43;", "+"), want) {
			t.Errorf("the page lacks %s: %s", want, body)
		}
	}
	if strings.Contains(body, "<script") || strings.Contains(body, "src=") {
		t.Errorf("the page loads something: %s", body)
	}
	if w := serveOnce(s, newRequest(t, http.MethodPost, "/", "", "Accept", "text/html", "X-Auth-Token", "")); w.Code != http.StatusUnauthorized {
		t.Errorf("a POST: got %d", w.Code)
	}
	for range 10_000 {
		if w = browse(); w.Code != http.StatusOK {
			break
		}
	}
	if w.Code != http.StatusTooManyRequests {
		t.Errorf("the page has no limit: got %d", w.Code)
	}
}

// Whoever may not read a document is told so.
func TestDiscoveryIsGuarded(t *testing.T) {
	cfg := testConfig(t, coreResources()...)
	cfg.Authorizer = refuser{}
	s := newTestServer(t, cfg)
	for _, path := range documentPaths {
		if w := serveOnce(s, newRequest(t, http.MethodGet, path, "")); w.Code != http.StatusForbidden ||
			!strings.Contains(w.Body.String(), `forbidden: User \"admin\" cannot get path \"`+path+`\"`) {
			t.Errorf("GET %s: got %d %s", path, w.Code, w.Body)
		}
	}
}

var documentPaths = []string{"/api", "/apis", "/api/v1", "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1"}

// refuser allows nothing.
type refuser struct{}

func (refuser) Authorize(context.Context, auth.Attributes) (bool, string, error) {
	return false, "", nil
}

func testDiscoveryErrors(t *testing.T, web *httptest.Server) {
	for _, path := range documentPaths {
		resp, body := ask(t, web, http.MethodPost, path)
		if !isStatus(body, http.StatusMethodNotAllowed) || resp.code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: got %d %s", path, resp.code, body)
		}
	}
	for _, path := range []string{"/apis/nope", "/apis/nope/v1", "/api/v2", "/openapi", "/openapi/v3/apis/nope/v1", "/openapi/v3/api/v1/"} {
		if resp, body := ask(t, web, http.MethodGet, path); resp.code != http.StatusNotFound {
			t.Errorf("GET %s: got %d %s", path, resp.code, body)
		}
	}
}

// isStatus reports whether a body is a Status with the code.
func isStatus(body []byte, code int32) bool {
	var status metav1.Status
	return json.Unmarshal(body, &status) == nil && status.Kind == "Status" && status.Code == code
}

func TestAnswerETag(t *testing.T) {
	for header, want := range map[string]bool{
		`"a"`:      true,
		`W/"a"`:    true,
		`"b", "a"`: true,
		`*`:        true,
		`"b"`:      false,
		`a`:        false,
		``:         false,
	} {
		w := httptest.NewRecorder()
		answered := answerETag(newRecord(w, newRequest(t, http.MethodGet, "/api", "", "If-None-Match", header)), `"a"`)
		if answered != want || w.Header().Get("ETag") != `"a"` || answered && w.Code != http.StatusNotModified {
			t.Errorf("If-None-Match: %s: got %v, %d %v", header, answered, w.Code, w.Header())
		}
	}
}
