package server

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/openapi3"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/util/proto"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/berth-project/berth/pkg/registry/resources"
	"github.com/berth-project/berth/pkg/server/discovery"
)

const (
	coreV1 = "io.k8s.api.core.v1."
	metaV1 = "io.k8s.apimachinery.pkg.apis.meta.v1."
	v2Old  = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
	v2     = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	v3Old  = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
	v3     = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// catalogue are the resources that the embedded documents are about.
func catalogue() []Resource {
	var all []Resource
	for _, resource := range resources.All() {
		fake := &fakeResource{api: resource.API}
		for _, below := range resource.Subresources {
			fake.below = append(fake.below, below.API)
		}
		all = append(all, fake)
	}
	return all
}

// coreSpec reads the document of the core group as kubectl does.
func coreSpec(t *testing.T, web *httptest.Server) *spec3.OpenAPI {
	t.Helper()
	document, err := openapi3.NewRoot(discoveryClient(t, web).OpenAPIV3()).GVSpec(schema.GroupVersion{Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// TestOpenAPI runs on one server, since none of it changes anything.
func TestOpenAPI(t *testing.T) {
	web := start(t, newTestServer(t, testConfig(t, catalogue()...)), true)
	tests := []struct {
		name string
		run  func(*testing.T, *httptest.Server)
	}{
		{"describes the server", testOpenAPIDescribesTheServer},
		{"v3 schemas", testOpenAPIV3Schemas},
		{"v3 operations", testOpenAPIV3Operations},
		{"v2", testOpenAPIV2},
		{"negotiation", testOpenAPINegotiation},
		{"compressed", testOpenAPICompressed},
		{"caching", testOpenAPICaching},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, web) })
	}
}

// testOpenAPIDescribesTheServer holds the documents against the discovery of the resources
// that they are about, and against what the server does with their paths.
func testOpenAPIDescribesTheServer(t *testing.T, web *httptest.Server) {
	root := openapi3.NewRoot(discoveryClient(t, web).OpenAPIV3())
	_, lists, err := discoveryClient(t, web).ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		document, err := root.GVSpec(gv)
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[string][]string) // the verbs of a resource
		for _, resource := range list.APIResources {
			want[resource.Name+" "+resource.Kind] = resource.Verbs
		}
		if diff := cmp.Diff(want, describedVerbs(t, web, document, discovery.Prefix(gv))); diff != "" {
			t.Errorf("the verbs of %s (-discovery +OpenAPI)\n%s", gv, diff)
		}
	}
}

// describedVerbs are the verbs that the document has for each resource and kind. All of them
// are served.
func describedVerbs(t *testing.T, web *httptest.Server, document *spec3.OpenAPI, prefix string) map[string][]string {
	t.Helper()
	verbs := map[string]string{"post": "create", "put": "update", "watchlist": "watch"}
	got := make(map[string][]string)
	for path, item := range document.Paths.Paths {
		for method, op := range operations(item) {
			action, _ := op.Extensions.GetString("x-kubernetes-action")
			if action == "" {
				continue // discovery itself
			}
			kind := struct{ Group, Version, Kind string }{}
			if err := op.Extensions.GetObject("x-kubernetes-group-version-kind", &kind); err != nil {
				t.Fatal(err)
			}
			checkServed(t, web, method, path)
			if verb := verbs[action]; verb != "" {
				action = verb
			}
			resource := resourceOf(strings.TrimPrefix(path, prefix+"/")) + " " + kind.Kind
			got[resource] = append(got[resource], action)
		}
	}
	for resource, verbs := range got {
		slices.Sort(verbs)
		got[resource] = slices.Compact(verbs)
	}
	return got
}

// resourceOf is the resource or subresource of a path within its group and version.
func resourceOf(path string) string {
	path = strings.TrimPrefix(path, "watch/")
	if below := strings.TrimPrefix(path, "namespaces/{namespace}/"); below != path {
		path = below
	}
	return strings.Replace(strings.TrimSuffix(path, "/{name}"), "/{name}/", "/", 1)
}

func operations(path *spec3.Path) map[string]*spec3.Operation {
	all := map[string]*spec3.Operation{
		http.MethodGet: path.Get, http.MethodPost: path.Post, http.MethodPut: path.Put,
		http.MethodPatch: path.Patch, http.MethodDelete: path.Delete,
	}
	for method, op := range all {
		if op == nil {
			delete(all, method)
		}
	}
	return all
}

// checkServed sees whether an operation is there, by a request that goes no further than
// the time-out that it asks for.
func checkServed(t *testing.T, web *httptest.Server, method, path string) {
	t.Helper()
	path = strings.NewReplacer("{namespace}", "default", "{name}", "x").Replace(path)
	resp, body := ask(t, web, method, path+"?timeout=abc")
	if resp.code != http.StatusBadRequest || !strings.Contains(string(body), "invalid timeout") {
		t.Errorf("%s %s is described, but answered with %d %s", method, path, resp.code, body)
	}
}

// testOpenAPIV3Schemas looks at what kubectl explain, its validation and server-side apply
// go by.
func testOpenAPIV3Schemas(t *testing.T, web *httptest.Server) {
	schemas := coreSpec(t, web).Components.Schemas
	property := func(kind, name string) spec.Schema {
		schema, ok := schemas[kind]
		if !ok {
			t.Fatalf("there is no schema %s", kind)
		}
		property, ok := schema.Properties[name]
		if !ok {
			t.Fatalf("%s has no property %s", kind, name)
		}
		return property
	}
	if got := property(coreV1+"EndpointSubset", "addresses").Description; !strings.HasPrefix(got, "IP addresses which offer the related ports that are marked as ready.") {
		t.Errorf("the documentation of subsets.addresses: got %q", got)
	}
	if diff := cmp.Diff([]string{"ip"}, schemas[coreV1+"EndpointAddress"].Required); diff != "" {
		t.Errorf("what an address requires (-want +got)\n%s", diff)
	}
	extensions := []struct {
		kind, property string
		want           spec.Extensions
	}{
		{coreV1 + "Endpoints", "subsets", spec.Extensions{"x-kubernetes-list-type": "atomic"}},
		{coreV1 + "EndpointSubset", "addresses", spec.Extensions{"x-kubernetes-list-type": "atomic"}},
		{metaV1 + "ObjectMeta", "ownerReferences", spec.Extensions{
			"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": []any{"uid"},
			"x-kubernetes-patch-merge-key": "uid", "x-kubernetes-patch-strategy": "merge",
		}},
		{metaV1 + "ObjectMeta", "finalizers", spec.Extensions{
			"x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge",
		}},
	}
	for _, test := range extensions {
		if diff := cmp.Diff(test.want, property(test.kind, test.property).Extensions); diff != "" {
			t.Errorf("the extensions of %s.%s (-want +got)\n%s", test.kind, test.property, diff)
		}
	}
	kinds := []any{map[string]any{"group": "", "version": "v1", "kind": "Endpoints"}}
	if diff := cmp.Diff(kinds, schemas[coreV1+"Endpoints"].Extensions["x-kubernetes-group-version-kind"]); diff != "" {
		t.Errorf("the kinds of Endpoints (-want +got)\n%s", diff)
	}
	if got := property(coreV1+"EndpointPort", "port").Default; got != float64(0) {
		t.Errorf("the default of a port: got %v, want 0", got)
	}
}

// testOpenAPIV3Operations looks at one operation of each sort.
func testOpenAPIV3Operations(t *testing.T, web *httptest.Server) {
	paths := coreSpec(t, web).Paths.Paths
	collection, object := paths["/api/v1/namespaces/{namespace}/endpoints"], paths["/api/v1/namespaces/{namespace}/endpoints/{name}"]
	tests := []struct {
		op         *spec3.Operation
		id         string
		parameters []string
		succeeds   []int
	}{
		{collection.Post, "createCoreV1NamespacedEndpoints", []string{"dryRun", "fieldManager", "fieldValidation"}, []int{201}},
		{collection.Get, "listCoreV1NamespacedEndpoints", []string{
			"allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "resourceVersionMatch",
			"sendInitialEvents", "timeoutSeconds", "watch",
		}, []int{200}},
		{object.Get, "readCoreV1NamespacedEndpoints", []string{"resourceVersion"}, []int{200}},
		{object.Put, "replaceCoreV1NamespacedEndpoints", []string{"dryRun", "fieldManager", "fieldValidation"}, []int{200, 201}},
		{object.Patch, "patchCoreV1NamespacedEndpoints", []string{"dryRun", "fieldManager", "fieldValidation", "force"}, []int{200, 201}},
		{object.Delete, "deleteCoreV1NamespacedEndpoints", []string{"dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"}, []int{200}},
		{paths["/api/v1/endpoints"].Get, "listCoreV1EndpointsForAllNamespaces", nil, []int{200}},
		{paths["/api/v1/watch/namespaces/{namespace}/endpoints/{name}"].Get, "watchCoreV1NamespacedEndpoints", nil, []int{200}},
	}
	for _, test := range tests {
		if test.op.OperationId != test.id {
			t.Errorf("got operation %s, want %s", test.op.OperationId, test.id)
		}
		var parameters []string
		for _, parameter := range test.op.Parameters {
			parameters = append(parameters, parameter.Name)
		}
		if diff := cmp.Diff(test.parameters, parameters); diff != "" {
			t.Errorf("the parameters of %s (-want +got)\n%s", test.id, diff)
		}
		var succeeds []int
		for code := range test.op.Responses.StatusCodeResponses {
			if code < 300 {
				succeeds = append(succeeds, code)
			}
		}
		slices.Sort(succeeds)
		if diff := cmp.Diff(test.succeeds, succeeds); diff != "" {
			t.Errorf("the codes of %s (-want +got)\n%s", test.id, diff)
		}
	}
}

// testOpenAPIV2 reads v2 as old clients do.
func testOpenAPIV2(t *testing.T, web *httptest.Server) {
	document, err := discoveryClient(t, web).OpenAPISchema() // in protobuf's form
	if err != nil {
		t.Fatal(err)
	}
	models, err := proto.NewOpenAPIData(document)
	if err != nil {
		t.Fatal(err)
	}
	endpoints, ok := models.LookupModel(coreV1 + "Endpoints").(*proto.Kind)
	if !ok {
		t.Fatal("there is no model of Endpoints")
	}
	if diff := cmp.Diff([]string{"apiVersion", "kind", "metadata", "subsets"}, slices.Sorted(slices.Values(endpoints.Keys()))); diff != "" {
		t.Errorf("the fields of Endpoints (-want +got)\n%s", diff)
	}
	resp, body := ask(t, web, http.MethodGet, "/openapi/v2")
	if got := resp.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("GET /openapi/v2: got %s", got)
	}
	if _, err := openapiv2.ParseDocument(body); err != nil {
		t.Errorf("GET /openapi/v2: %v", err)
	}
	var swagger spec.Swagger
	if err := json.Unmarshal(body, &swagger); err != nil {
		t.Fatal(err)
	}
	if got := swagger.Definitions[coreV1+"EndpointPort"].Properties["port"].Default; got != nil {
		t.Errorf("v2 has the default %v, which is for v3 alone", got)
	}
}

func testOpenAPINegotiation(t *testing.T, web *httptest.Server) {
	tests := []struct {
		path, accept string
		code         int
		contentType  string
	}{
		{"/openapi/v2", v2Old, http.StatusOK, v2},
		{"/openapi/v2", v2, http.StatusOK, v2},
		{"/openapi/v2", "application/json;q=0.5," + v2, http.StatusOK, v2},
		{"/openapi/v2", "application/*", http.StatusOK, "application/json"},
		{"/openapi/v2", v3, http.StatusNotAcceptable, "application/json"},
		{"/openapi/v2", "text/html", http.StatusNotAcceptable, "application/json"},
		{"/openapi/v3/api/v1", v3Old, http.StatusOK, v3},
		{"/openapi/v3/api/v1", v3, http.StatusOK, v3},
		{"/openapi/v3/api/v1", "*/*", http.StatusOK, "application/json"},
		{"/openapi/v3", "*/*", http.StatusOK, "application/json"},
	}
	for _, test := range tests {
		resp, body := ask(t, web, http.MethodGet, test.path, "Accept", test.accept)
		if resp.code != test.code || resp.header.Get("Content-Type") != test.contentType {
			t.Errorf("GET %s, Accept: %s: got %d %s, want %d %s", test.path, test.accept,
				resp.code, resp.header.Get("Content-Type"), test.code, test.contentType)
		}
		if test.code == http.StatusNotAcceptable && !isStatus(body, http.StatusNotAcceptable) {
			t.Errorf("GET %s, Accept: %s: got %s, want a Status", test.path, test.accept, body)
		}
	}
}

// testOpenAPICompressed shows that a client gets the same with gzip and without.
func testOpenAPICompressed(t *testing.T, web *httptest.Server) {
	for _, path := range []string{"/openapi/v2", "/openapi/v3/api/v1"} {
		plain, want := ask(t, web, http.MethodGet, path, "Accept-Encoding", "identity")
		compressed, body := ask(t, web, http.MethodGet, path, "Accept-Encoding", "gzip")
		if plain.header.Get("Content-Encoding") != "" || compressed.header.Get("Content-Encoding") != "gzip" {
			t.Errorf("GET %s: got Content-Encoding %q and %q", path, plain.header.Get("Content-Encoding"), compressed.header.Get("Content-Encoding"))
		}
		r, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want) || len(want) == 0 {
			t.Errorf("GET %s: the compressed form differs (%v)", path, err)
		}
		head, nothing := ask(t, web, http.MethodHead, path, "Accept-Encoding", "gzip")
		if head.code != http.StatusOK || len(nothing) > 0 || head.length != int64(len(body)) {
			t.Errorf("HEAD %s: got %d, %d bytes, of %d", path, head.code, len(nothing), head.length)
		}
	}
}

func testOpenAPICaching(t *testing.T, web *httptest.Server) {
	for _, path := range []string{"/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1"} {
		first, _ := ask(t, web, http.MethodGet, path)
		again, body := ask(t, web, http.MethodGet, path, "If-None-Match", first.header.Get("ETag"))
		if again.code != http.StatusNotModified || len(body) > 0 {
			t.Errorf("GET %s with the ETag %s: got %d %q", path, first.header.Get("ETag"), again.code, body)
		}
	}
	_, body := ask(t, web, http.MethodGet, "/openapi/v3")
	var index struct {
		Paths map[string]struct {
			ServerRelativeURL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(body, &index); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"api", "apis", "api/v1", "version"} {
		address := index.Paths[name].ServerRelativeURL
		resp, _ := ask(t, web, http.MethodGet, address)
		if resp.code != http.StatusOK || resp.header.Get("Cache-Control") != "public, immutable" || resp.header.Get("Expires") == "" {
			t.Errorf("GET %s: got %d %v", address, resp.code, resp.header)
		}
		resp, _ = ask(t, web, http.MethodGet, "/openapi/v3/"+name+"?hash=OLD")
		if resp.code != http.StatusMovedPermanently || resp.header.Get("Location") != address {
			t.Errorf("%s with an old hash: got %d to %s, want %s", name, resp.code, resp.header.Get("Location"), address)
		}
	}
}
