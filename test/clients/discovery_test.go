package clients

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/restmapper"
	"k8s.io/kube-openapi/pkg/spec3"
)

// The REST mapper, which knows the ways from names to resources and kinds.
func TestRESTMapper(t *testing.T) {
	t.Parallel()
	client := shared.client(t)
	cached := memory.NewMemCacheClient(client.Discovery())
	mapper := restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(cached), cached, nil)
	for _, name := range []string{"endpoints", "ep"} {
		got, err := mapper.ResourceFor(schema.GroupVersionResource{Resource: name})
		if err != nil || got != endpointsResource {
			t.Errorf("resource of %q: got %v and error %v, want %v", name, got, err, endpointsResource)
		}
	}
	mapping, err := mapper.RESTMapping(schema.GroupKind{Kind: "Namespace"}, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if mapping.Resource.Resource != "namespaces" || mapping.Scope.Name() != "root" {
		t.Errorf("mapping of Namespace: got %v of scope %s, want namespaces of scope root", mapping.Resource, mapping.Scope.Name())
	}
	if _, err := mapper.ResourceFor(schema.GroupVersionResource{Resource: "nothings"}); err == nil {
		t.Error("there is a resource named nothings")
	}
}

// test/e2e/apimachinery/discovery.go: “Discovery should accurately determine present and
// missing resources”, “… should validate PreferredVersion for each APIGroup”, “… should
// locate the groupVersion and a resource within each APIGroup”.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	client := shared.client(t).Discovery()
	for resource, want := range map[string]bool{"endpoints": true, "namespaces": true, "missing": false} {
		got, err := discovery.IsResourceEnabled(client, corev1.SchemeGroupVersion.WithResource(resource))
		if err != nil || got != want {
			t.Errorf("%s is there: got %v and error %v, want %v", resource, got, err, want)
		}
	}
	_, err := client.ServerResourcesForGroupVersion("not-these-apis.example.com/v1")
	checkStatus(t, "resources of a group that is missing", err, 404, metav1.StatusReasonNotFound)
	groups, err := client.ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range groups.Groups {
		if !slices.Contains(group.Versions, group.PreferredVersion) {
			t.Errorf("group %q prefers %v, which is none of %v", group.Name, group.PreferredVersion, group.Versions)
		}
		for _, version := range group.Versions {
			resources, err := client.ServerResourcesForGroupVersion(version.GroupVersion)
			if err != nil || resources.GroupVersion != version.GroupVersion || len(resources.APIResources) == 0 {
				t.Errorf("resources of %s: got %v and error %v", version.GroupVersion, resources, err)
			}
		}
	}
}

// test/e2e/apimachinery/aggregated_discovery.go: “AggregatedDiscovery should support
// aggregated discovery interface”. A client that does not ask for it learns the same.
func TestAggregatedDiscoveryInterface(t *testing.T) {
	t.Parallel()
	client := shared.client(t).Discovery()
	want := metav1.APIResource{
		Name: "endpoints", SingularName: "endpoints", Namespaced: true, Kind: "Endpoints", ShortNames: []string{"ep"},
		Verbs: metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
	}
	legacy := findEndpoints(t, client.WithLegacy())
	if legacy.StorageVersionHash != "fWeeMqaN/OA=" {
		t.Errorf("hash of the storage version: got %q, want kube-apiserver's fWeeMqaN/OA=", legacy.StorageVersionHash)
	}
	legacy.StorageVersionHash = "" // aggregated discovery does not have it
	for name, got := range map[string]metav1.APIResource{"aggregated": findEndpoints(t, client), "plain": legacy} {
		got.Group, got.Version = "", "" // one fills them in, the other does not
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("endpoints by %s discovery (-want +got):\n%s", name, diff)
		}
	}
}

// findEndpoints looks endpoints up in what a client knows of all groups.
func findEndpoints(t *testing.T, client discovery.DiscoveryInterface) metav1.APIResource {
	t.Helper()
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		for _, resource := range list.APIResources {
			if list.GroupVersion == "v1" && resource.Name == "endpoints" {
				return resource
			}
		}
	}
	t.Fatal("v1 has no endpoints")
	return metav1.APIResource{}
}

// test/e2e/apimachinery/aggregated_discovery.go: “AggregatedDiscovery should support raw
// aggregated discovery endpoint Accept headers”.
func TestAggregatedDiscoveryAccept(t *testing.T) {
	t.Parallel()
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	for _, path := range []string{"/api", "/apis"} {
		got := rawGet(t, path, http.Header{"Accept": {aggregated + ",application/json"}})
		var list apidiscoveryv2.APIGroupDiscoveryList
		if err := json.Unmarshal(got.body, &list); err != nil || list.Kind != "APIGroupDiscoveryList" || list.APIVersion != "apidiscovery.k8s.io/v2" {
			t.Errorf("%s: got a %s of %s and error %v", path, list.Kind, list.APIVersion, err)
		}
		if mediaType := got.header.Get("Content-Type"); mediaType != aggregated {
			t.Errorf("%s: got Content-Type %q, want %q", path, mediaType, aggregated)
		}
		etag := got.header.Get("ETag")
		got = rawGet(t, path, http.Header{"Accept": {aggregated}, "If-None-Match": {etag}})
		if etag == "" || got.code != http.StatusNotModified || len(got.body) > 0 {
			t.Errorf("%s: asked again with ETag %q: got %d and %d bytes, want 304 and none", path, etag, got.code, len(got.body))
		}
	}
	plain := rawGet(t, "/api", http.Header{"Accept": {"application/json"}})
	var versions metav1.APIVersions
	if err := json.Unmarshal(plain.body, &versions); err != nil || versions.Kind != "APIVersions" || !slices.Equal(versions.Versions, []string{"v1"}) {
		t.Errorf("/api, not aggregated: got %+v and error %v", versions, err)
	}
	plain = rawGet(t, "/apis", http.Header{"Accept": {"application/json"}})
	var groups metav1.APIGroupList
	if err := json.Unmarshal(plain.body, &groups); err != nil || groups.Kind != "APIGroupList" {
		t.Errorf("/apis, not aggregated: got %+v and error %v", groups, err)
	}
}

// test/e2e/apimachinery/server_version.go: “server version should find the server version”.
func TestServerVersion(t *testing.T) {
	t.Parallel()
	version, err := shared.client(t).Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	number := regexp.MustCompile(`^[1-9][0-9]*$`)
	if !number.MatchString(version.Major) || !number.MatchString(version.Minor) {
		t.Errorf("version %s.%s, want numbers", version.Major, version.Minor)
	}
	if !regexp.MustCompile(`^v1\.37\.`).MatchString(version.GitVersion) {
		t.Errorf("gitVersion %q, want one of v1.37", version.GitVersion)
	}
}

// test/e2e/apimachinery/openapiv3.go: “OpenAPIV3 should round trip OpenAPI V3 for all
// built-in group versions”. The documents describe what the server serves.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	client := shared.client(t).Discovery()
	paths, err := client.OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	v1, ok := paths["api/v1"]
	if !ok {
		t.Fatalf("the index has no api/v1: %v", paths)
	}
	data, err := v1.Schema(runtime.ContentTypeJSON)
	if err != nil {
		t.Fatal(err)
	}
	var document spec3.OpenAPI
	if err := json.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&document)
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(again, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the document after a round trip (-want +got):\n%s", diff)
	}
	if path := document.Paths.Paths["/api/v1/namespaces/{namespace}/endpoints/{name}"]; path == nil || path.Patch == nil {
		t.Error("the document does not tell how an Endpoints is patched")
	}
	v2, err := client.OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	described := false
	for _, definition := range v2.GetDefinitions().GetAdditionalProperties() {
		described = described || definition.GetName() == "io.k8s.api.core.v1.Endpoints" && definition.GetValue().GetDescription() != ""
	}
	if !described {
		t.Error("OpenAPI v2 does not describe Endpoints")
	}
}
