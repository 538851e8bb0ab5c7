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
func on(verb, group, resource, subresource, namespace, name string) auth.Attributes {
	return auth.Attributes{
		ResourceRequest: true, Verb: verb, APIGroup: group, APIVersion: "v1",
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

		{"GET", "/api/v1/nodes", on("list", "", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes/n", on("get", "", "nodes", "", "", "n")},
		{"HEAD", "/api/v1/nodes/n", on("get", "", "nodes", "", "", "n")},
		{"HEAD", "/api/v1/nodes", on("list", "", "nodes", "", "", "")},
		{"OPTIONS", "/api/v1/nodes/n", on("", "", "nodes", "", "", "n")},
		{"GET", "/api/v1/nodes/n/status", on("get", "", "nodes", "status", "", "n")},
		{"GET", "/api/v1/nodes/n/proxy/a/b", on("get", "", "nodes", "proxy", "", "n")},
		{"GET", "/api/v1/proxy/nodes/n/a/b", on("proxy", "", "nodes", "", "", "n")},
		{"GET", "/api/v1/namespaces/a/pods", on("list", "", "pods", "", "a", "")},
		{"POST", "/api/v1/namespaces/a/pods", on("create", "", "pods", "", "a", "")},
		{"DELETE", "/api/v1/namespaces/a/pods", on("deletecollection", "", "pods", "", "a", "")},
		{"PUT", "/api/v1/namespaces/a/pods", on("update", "", "pods", "", "a", "")},
		{"PATCH", "/api/v1/namespaces/a/pods/p", on("patch", "", "pods", "", "a", "p")},
		{"PUT", "/apis/sea.io/v1/namespaces/a/quays/q/status", on("update", "sea.io", "quays", "status", "a", "q")},
		{"PUT", "/apis/sea.io/v1/namespaces/a/quays/q/status/more/and/more", on("update", "sea.io", "quays", "status", "a", "q")},

		{"GET", "/api/v1/namespaces", on("list", "", "namespaces", "", "", "")},
		{"POST", "/api/v1/namespaces", on("create", "", "namespaces", "", "", "")},
		{"GET", "/api/v1/namespaces/a", on("get", "", "namespaces", "", "a", "a")},
		{"PUT", "/api/v1/namespaces/a/status", on("update", "", "namespaces", "status", "a", "a")},
		{"PUT", "/api/v1/namespaces/a/finalize", on("update", "", "namespaces", "finalize", "a", "a")},
		{"GET", "/api/v1/namespaces/a/stat", on("list", "", "stat", "", "a", "")},
		{"GET", "/api/v1//namespaces", on("get", "", "", "", "", "namespaces")},
		{"GET", "//api/v1/nodes//", on("list", "", "nodes", "", "", "")},

		{"GET", "/api/v1/watch/nodes", on("watch", "", "nodes", "", "", "")},
		{"GET", "/api/v1/watch/namespaces/a/pods/p", on("watch", "", "pods", "", "a", "p")},
		{"DELETE", "/api/v1/watch/namespaces/a/pods", on("watch", "", "pods", "", "a", "")},
		{"GET", "/api/v1/namespaces/watch/pods", on("list", "", "pods", "", "watch", "")},

		{"GET", "/api/v1/nodes?watch=1", on("watch", "", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?w%61tch=true", on("watch", "", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?watch", on("watch", "", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?watch=0", on("list", "", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?watch=false&limit=x", on("list", "", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?watch=no&limit=x", on("watch", "", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes/n?watch=1", on("get", "", "nodes", "", "", "n")},
		{"GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn", on("list", "", "nodes", "", "", "n")},
		{"GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn,spec.x%3D1&watch=1", on("watch", "", "nodes", "", "", "n")},
		{"GET", "/api/v1/watch/nodes?fieldSelector=metadata.name%3Dn", on("watch", "", "nodes", "", "", "n")},
		{"GET", "/api/v1/nodes?fieldSelector=metadata.name!%3Dn", on("list", "", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?fieldSelector=metadata.name%3Da%2Fb", on("list", "", "nodes", "", "", "")},
		{"GET", "/api/v1/nodes?fieldSelector=,,", on("list", "", "nodes", "", "", "")},
		{"GET", "/feeds/prometheus", on("list", "", "endpoints", "", "", "")},
		{"HEAD", "/feeds/prometheus?namespace=a", on("list", "", "endpoints", "", "a", "")},
		{"GET", "/feeds/prom%65theus?n%61mespace=a&namespace=b&watch=1", on("list", "", "endpoints", "", "a", "")},
		{"GET", "/feeds/prometheus?fieldSelector=metadata.name%3Dn&namespace=a", on("list", "", "endpoints", "", "a", "n")},
		{"POST", "/feeds/prometheus?namespace=a", path("post")},
		{"GET", "/feeds/prometheus/", path("get")},
		{"GET", "//feeds/prometheus", path("get")},
		{"GET", "/feeds", path("get")},

		{"DELETE", "/api/v1/nodes?fieldSelector=metadata.name%3Dn", on("deletecollection", "", "nodes", "", "", "")},
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
