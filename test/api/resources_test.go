package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/resources"
)

// readJSON reads a document of the shared server.
func readJSON(t *testing.T, path string, into any, headers ...string) {
	t.Helper()
	a := send(t, shared.Client, newRequest(t, shared, http.MethodGet, path, nil, headers...))
	checkCode(t, a, http.StatusOK, "")
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// roots are where the resource's documents are: below /api or /apis, and the path of its
// group and version.
func roots(resource *registry.Resource) (root, groupVersion string) {
	if resource.API.Group == "" {
		return "/api", "/api/" + resource.API.Version
	}
	return "/apis", "/apis/" + resource.API.Group + "/" + resource.API.Version
}

// Every resource of the catalogue is served, in both forms of discovery and in OpenAPI.
func TestEveryResourceIsServed(t *testing.T) {
	for _, resource := range resources.All() {
		t.Run(resource.GroupResource().String(), func(t *testing.T) {
			root, groupVersion := roots(resource)
			var list metav1.APIResourceList
			readJSON(t, groupVersion, &list)
			at := slices.IndexFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == resource.API.Name })
			if at < 0 {
				t.Fatalf("it is not in %s", groupVersion)
			}
			found := list.APIResources[at]
			if found.Kind != resource.API.Kind || found.Namespaced != resource.API.Namespaced || found.StorageVersionHash == "" || !slices.Contains(found.Verbs, "watch") {
				t.Errorf("%s has %+v", groupVersion, found)
			}
			var aggregated apidiscoveryv2.APIGroupDiscoveryList
			readJSON(t, root, &aggregated, "Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
			if !inAggregate(aggregated, resource.API) {
				t.Errorf("it is not in the aggregated form of %s: %+v", root, aggregated)
			}
			checkOpenAPI(t, groupVersion, resource)
			a := send(t, shared.Client, newRequest(t, shared, http.MethodGet, groupVersion+"/"+resource.API.Name, nil))
			checkCode(t, a, http.StatusOK, `"kind":"`+resource.API.Kind+`List","apiVersion":"`+list.GroupVersion+`"`)
		})
	}
}

func inAggregate(list apidiscoveryv2.APIGroupDiscoveryList, api metav1.APIResource) bool {
	for _, group := range list.Items {
		for _, version := range group.Versions {
			for _, found := range version.Resources {
				if group.Name == api.Group && version.Version == api.Version && found.Resource == api.Name {
					return found.ResponseKind.Kind == api.Kind
				}
			}
		}
	}
	return false
}

// checkOpenAPI looks for the document of the group and version, and in it for the resource's
// schema and paths.
func checkOpenAPI(t *testing.T, groupVersion string, resource *registry.Resource) {
	t.Helper()
	var index struct {
		Paths map[string]struct {
			ServerRelativeURL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	readJSON(t, "/openapi/v3", &index)
	var document struct {
		Paths      map[string]any `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Kinds []metav1.GroupVersionKind `json:"x-kubernetes-group-version-kind"`
			} `json:"schemas"`
		} `json:"components"`
	}
	readJSON(t, index.Paths[strings.TrimPrefix(groupVersion, "/")].ServerRelativeURL, &document)
	path := groupVersion + "/" + resource.API.Name
	if resource.API.Namespaced {
		path = groupVersion + "/namespaces/{namespace}/" + resource.API.Name
	}
	for _, path := range []string{path, path + "/{name}"} {
		if document.Paths[path] == nil {
			t.Errorf("OpenAPI has no path %s", path)
		}
	}
	want := metav1.GroupVersionKind(resource.GroupVersionKind())
	for _, schema := range document.Components.Schemas {
		if slices.Contains(schema.Kinds, want) {
			return
		}
	}
	t.Errorf("OpenAPI has no schema of %v", want)
}
