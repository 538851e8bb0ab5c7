package server_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
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
	"github.com/berth-project/berth/test/apitest"
)

const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

func startServer(t *testing.T, cfg apitest.Config) *apitest.Server {
	t.Helper()
	server, err := apitest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// reply is an answer without its body.
type reply struct {
	code   int
	header http.Header
	length int64 // as the server says; -1: it does not
}

// ask sends a request with the admin's token; its headers are pairs of name and value.
func ask(t *testing.T, server *apitest.Server, method, path string, headers ...string) (reply, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apitest.Token)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := *server.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, resp.ContentLength}, body
}

func discoveryClient(t *testing.T, server *apitest.Server) *discovery.DiscoveryClient {
	t.Helper()
	client, err := discovery.NewDiscoveryClientForConfigAndClient(&rest.Config{Host: server.URL}, &http.Client{
		Transport: transport.NewBearerAuthRoundTripper(apitest.Token, server.Client.Transport),
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestDiscovery runs on one server, since none of it changes anything.
func TestDiscovery(t *testing.T) {
	server := startServer(t, apitest.Config{})
	tests := []struct {
		name string
		run  func(*testing.T, *apitest.Server)
	}{
		{"documents", testDiscoveryDocuments},
		{"core", testDiscoveryOfCore},
		{"clients", testDiscoveryByClients},
		{"negotiation", testDiscoveryNegotiation},
		{"protobuf", testDiscoveryInProtobuf},
		{"caching", testDiscoveryCaching},
		{"errors", testDiscoveryErrors},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, server) })
	}
}

func testDiscoveryDocuments(t *testing.T, server *apitest.Server) {
	address := strings.TrimPrefix(server.URL, "https://")
	tests := []struct{ path, want string }{
		{"/api", `{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[{"clientCIDR":"0.0.0.0/0","serverAddress":"` + address + `"}]}`},
		{"/apis", `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`},
	}
	for _, test := range tests {
		for _, path := range []string{test.path, test.path + "/"} {
			resp, body := ask(t, server, http.MethodGet, path)
			if got := strings.TrimSpace(string(body)); got != test.want || resp.header.Get("Content-Type") != "application/json" {
				t.Errorf("GET %s: got %s of %s, want %s", path, got, resp.header.Get("Content-Type"), test.want)
			}
		}
	}
}

// testDiscoveryOfCore holds the resources against what kube-apiserver says of them.
func testDiscoveryOfCore(t *testing.T, server *apitest.Server) {
	_, body := ask(t, server, http.MethodGet, "/api/v1")
	if want := `{"kind":"APIResourceList","groupVersion":"v1","resources":[`; !strings.HasPrefix(string(body), want) {
		t.Errorf("GET /api/v1: got %s, want it to begin with %s", body, want)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatal(err)
	}
	want := map[string]metav1.APIResource{
		"endpoints": {
			Name: "endpoints", SingularName: "endpoints", Namespaced: true, Kind: "Endpoints",
			Verbs:      metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
			ShortNames: []string{"ep"}, StorageVersionHash: "fWeeMqaN/OA=",
		},
		"namespaces": {
			Name: "namespaces", SingularName: "namespace", Kind: "Namespace",
			ShortNames: []string{"ns"}, StorageVersionHash: "Q3oi5N2YM8M=",
		},
	}
	for name, want := range want {
		i := slices.IndexFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == name })
		if i < 0 {
			t.Errorf("%s is missing", name)
			continue
		}
		got := list.APIResources[i]
		if want.Verbs == nil {
			got.Verbs = nil // as its description has them
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

// testDiscoveryByClients shows that both forms of discovery tell clients the same, and that
// names and kinds map to each other.
func testDiscoveryByClients(t *testing.T, server *apitest.Server) {
	client := discoveryClient(t, server)
	legacy := discoveryClient(t, server)
	legacy.UseLegacyDiscovery = true

	_, newer, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	_, older, err := legacy.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range older {
		list.TypeMeta = metav1.TypeMeta{}
		for i := range list.APIResources {
			resource := &list.APIResources[i]
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

func testDiscoveryNegotiation(t *testing.T, server *apitest.Server) {
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
		resp, body := ask(t, server, http.MethodGet, test.path, "Accept", test.accept)
		if resp.code != test.code || resp.header.Get("Content-Type") != test.contentType {
			t.Errorf("GET %s, Accept: %s: got %d %s, want %d %s; %q", test.path, test.accept,
				resp.code, resp.header.Get("Content-Type"), test.code, test.contentType, body)
		}
	}
}

// testDiscoveryInProtobuf decodes what clients of typed APIs ask for.
func testDiscoveryInProtobuf(t *testing.T, server *apitest.Server) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	if err := apidiscoveryv2.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	decoder := protobuf.NewSerializer(scheme, scheme)

	_, body := ask(t, server, http.MethodGet, "/api/v1", "Accept", runtime.ContentTypeProtobuf)
	list := &metav1.APIResourceList{}
	hint := schema.GroupVersionKind{Version: "v1", Kind: "APIResourceList"}
	if _, _, err := decoder.Decode(body, &hint, list); err != nil || len(list.APIResources) == 0 {
		t.Errorf("GET /api/v1: got %v (%v)", list, err)
	}
	_, body = ask(t, server, http.MethodGet, "/api", "Accept", strings.Replace(aggregated, "json", "vnd.kubernetes.protobuf", 1))
	all := &apidiscoveryv2.APIGroupDiscoveryList{}
	if _, _, err := decoder.Decode(body, nil, all); err != nil || len(all.Items) != 1 || len(all.Items[0].Versions) != 1 {
		t.Errorf("GET /api, aggregated: got %v (%v)", all, err)
	}
}

func testDiscoveryCaching(t *testing.T, server *apitest.Server) {
	for _, path := range []string{"/api", "/apis"} {
		first, _ := ask(t, server, http.MethodGet, path, "Accept", aggregated)
		etag := first.header.Get("ETag")
		if etag == "" || first.header.Get("Vary") != "Accept" || first.header.Get("Cache-Control") != "public" {
			t.Errorf("GET %s: got headers %v", path, first.header)
		}
		again, body := ask(t, server, http.MethodGet, path, "Accept", aggregated, "If-None-Match", etag)
		if again.code != http.StatusNotModified || len(body) > 0 || again.header.Get("ETag") != etag {
			t.Errorf("GET %s with the same ETag: got %d %q %v", path, again.code, body, again.header)
		}
		other, _ := ask(t, server, http.MethodGet, path, "Accept", aggregated, "If-None-Match", `"other"`)
		if other.code != http.StatusOK {
			t.Errorf("GET %s with another ETag: got %d", path, other.code)
		}
	}
}

// guarded are the paths that tell users what there is, and nobody else.
var guarded = []string{"/api", "/apis", "/api/v1", "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1"}

func TestDiscoveryIsGuarded(t *testing.T) {
	server := startServer(t, apitest.Config{Authorizer: refuser{}})
	for _, path := range guarded {
		for token, want := range map[string]int{apitest.Token: http.StatusForbidden, "": http.StatusUnauthorized} {
			resp, body := ask(t, server, http.MethodGet, path, "Authorization", "Bearer "+token)
			if resp.code != want {
				t.Errorf("GET %s with token %q: got %d %s, want %d", path, token, resp.code, body, want)
			}
		}
	}
	_, body := ask(t, server, http.MethodGet, "/api")
	if want := `forbidden: User \"admin\" cannot get path \"/api\"`; !strings.Contains(string(body), want) {
		t.Errorf("GET /api: got %s, want %s in it", body, want)
	}
}

// refuser allows nothing.
type refuser struct{}

func (refuser) Authorize(context.Context, auth.Attributes) (bool, string, error) {
	return false, "", nil
}

func testDiscoveryErrors(t *testing.T, server *apitest.Server) {
	for _, path := range guarded {
		resp, body := ask(t, server, http.MethodPost, path)
		if !isStatus(body, http.StatusMethodNotAllowed) || resp.code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: got %d %s", path, resp.code, body)
		}
	}
	for _, path := range []string{"/apis/nope", "/apis/nope/v1", "/api/v2", "/openapi", "/openapi/v3/apis/nope/v1", "/openapi/v3/api/v1/"} {
		if resp, body := ask(t, server, http.MethodGet, path); resp.code != http.StatusNotFound {
			t.Errorf("GET %s: got %d %s", path, resp.code, body)
		}
	}
}

// isStatus says whether a body is a Status with the code.
func isStatus(body []byte, code int32) bool {
	var status metav1.Status
	return json.Unmarshal(body, &status) == nil && status.Kind == "Status" && status.Code == code
}
