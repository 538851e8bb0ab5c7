package requestinfo

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/auth"
)

// on is what a request asks of a resource.
func on(verb, group, version, resource, subresource, namespace, name string) auth.Attributes {
	return auth.Attributes{
		ResourceRequest: true, Verb: verb, APIGroup: group, APIVersion: version,
		Resource: resource, Subresource: subresource, Namespace: namespace, Name: name,
	}
}

func TestAttributes(t *testing.T) {
	path := func(verb string) auth.Attributes { return auth.Attributes{Verb: verb} }
	for _, tc := range []struct {
		method, url string
		want        auth.Attributes
	}{
		{"GET", "/", path("get")},
		{"HEAD", "/healthz", path("head")},
		{"GET", "/api", path("get")},
		{"GET", "/api/v1", path("get")},
		{"GET", "/api/v1/", path("get")},
		{"GET", "/apis/sea.io", path("get")},
		{"GET", "/apis/sea.io/v1", path("get")},
		{"GET", "/apis/sea.io/v1/", path("get")},
		{"GET", "/openapi/v3/api/v1/x", path("get")},
		{"GET", "/api/v1/watch", path("get")},
		{"GET", "/apis/sea.io/v1/watch", path("get")},
		{"GET", "/" + strings.Repeat("a/", MaxPathBytes), path("get")},

		{"GET", "/api/v1/nodes", on("list", "", "v1", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes/n", on("get", "", "v1", "nodes", "", "", "n")},
		{"HEAD", "/api/v1/nodes/n", on("get", "", "v1", "nodes", "", "", "n")},
		{"HEAD", "/api/v1/nodes", on("list", "", "v1", "nodes", "", "", "")},
		{"OPTIONS", "/api/v1/nodes/n", on("", "", "v1", "nodes", "", "", "n")},
		{"GET", "/api/v1/nodes/n/status", on("get", "", "v1", "nodes", "status", "", "n")},
		{"GET", "/api/v1/nodes/n/proxy/a/b", on("get", "", "v1", "nodes", "proxy", "", "n")},
		{"GET", "/api/v1/proxy/nodes/n/a/b", on("proxy", "", "v1", "nodes", "", "", "n")},
		{"GET", "/api/v1/namespaces/a/pods", on("list", "", "v1", "pods", "", "a", "")},
		{"POST", "/api/v1/namespaces/a/pods", on("create", "", "v1", "pods", "", "a", "")},
		{"DELETE", "/api/v1/namespaces/a/pods", on("deletecollection", "", "v1", "pods", "", "a", "")},
		{"PUT", "/api/v1/namespaces/a/pods", on("update", "", "v1", "pods", "", "a", "")},
		{"PATCH", "/api/v1/namespaces/a/pods/p", on("patch", "", "v1", "pods", "", "a", "p")},
		{"PUT", "/apis/sea.io/v1/namespaces/a/quays/q/status", on("update", "sea.io", "v1", "quays", "status", "a", "q")},
		{"PUT", "/apis/sea.io/v1/namespaces/a/quays/q/status/more/and/more", on("update", "sea.io", "v1", "quays", "status", "a", "q")},

		{"GET", "/api/v1/namespaces", on("list", "", "v1", "namespaces", "", "", "")},
		{"POST", "/api/v1/namespaces", on("create", "", "v1", "namespaces", "", "", "")},
		{"GET", "/api/v1/namespaces/a", on("get", "", "v1", "namespaces", "", "a", "a")},
		{"PUT", "/api/v1/namespaces/a/status", on("update", "", "v1", "namespaces", "status", "a", "a")},
		{"PUT", "/api/v1/namespaces/a/finalize", on("update", "", "v1", "namespaces", "finalize", "a", "a")},
		{"GET", "/api/v1/namespaces/a/stat", on("list", "", "v1", "stat", "", "a", "")},
		{"GET", "/api/v1//namespaces", on("get", "", "v1", "", "", "", "namespaces")},
		{"GET", "//api/v1/nodes//", on("list", "", "v1", "nodes", "", "", "")},

		{"GET", "/api/v1/watch/nodes", on("watch", "", "v1", "nodes", "", "", "")},
		{"GET", "/api/v1/watch/namespaces/a/pods/p", on("watch", "", "v1", "pods", "", "a", "p")},
		{"DELETE", "/api/v1/watch/namespaces/a/pods", on("watch", "", "v1", "pods", "", "a", "")},
		{"GET", "/api/v1/namespaces/watch/pods", on("list", "", "v1", "pods", "", "watch", "")},

		{"GET", "/api/v1/nodes?watch=1", on("watch", "", "v1", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?w%61tch=true", on("watch", "", "v1", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?watch", on("watch", "", "v1", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?watch=0", on("list", "", "v1", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?watch=false&limit=x", on("list", "", "v1", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?watch=no&limit=x", on("watch", "", "v1", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes/n?watch=1", on("get", "", "v1", "nodes", "", "", "n")},
		{"GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn", on("list", "", "v1", "nodes", "", "", "n")},
		{"GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn,spec.x%3D1&watch=1", on("watch", "", "v1", "nodes", "", "", "n")},
		{"GET", "/api/v1/watch/nodes?fieldSelector=metadata.name%3Dn", on("watch", "", "v1", "nodes", "", "", "n")},
		{"GET", "/api/v1/nodes?fieldSelector=metadata.name!%3Dn", on("list", "", "v1", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?fieldSelector=metadata.name%3Da%2Fb", on("list", "", "v1", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?fieldSelector=,,", on("list", "", "v1", "nodes", "", "", "")},
		{"DELETE", "/api/v1/nodes?fieldSelector=metadata.name%3Dn", on("deletecollection", "", "v1", "nodes", "", "", "")},
	} {
		u, err := url.Parse("https://h" + tc.url)
		if err != nil {
			t.Fatal(err)
		}
		tc.want.Path = u.Path
		got := Attributes(&http.Request{Method: tc.method, URL: u})
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s %s (-want +got)\n%s", tc.method, tc.url, diff)
		}
	}
}

func BenchmarkAttributes(b *testing.B) {
	req := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/api/v1/namespaces/default/endpoints/web"}}
	b.ReportAllocs()
	for b.Loop() {
		Attributes(req)
	}
}
