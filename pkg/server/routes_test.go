package server

import (
	"net/http/httptest"
	"testing"

	"github.com/gorilla/mux"
)

// The templates mean what the router's own do.
func TestPathTemplate(t *testing.T) {
	for _, template := range []string{"/api/v1/namespaces/{namespace}/endpoints/{name}", "/api/v1/namespaces/{name}", "/api/v1/endpoints"} {
		router := mux.NewRouter().SkipClean(true)
		router.Path(template)
		for _, path := range []string{
			"/api/v1/namespaces/a/endpoints/b", "/api/v1/namespaces/a/endpoints/b/", "/api/v1/namespaces/a/endpoints/", "/api/v1/namespaces/a/endpoints",
			"/api/v1/namespaces//endpoints/b", "/api/v1/namespaces/{namespace}/endpoints/{name}", "/api/v1/namespaces/a\nb/endpoints/..",
			"/api/v1/namespaces/a", "/api/v1/namespaces/", "/api/v1/namespaces", "/api/v1/namespaces/é b",
			"/api/v1/endpoints", "/api/v1/endpoints/", "//api/v1/endpoints", "api/v1/endpoints", "/", "",
		} {
			req := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			req.URL.Path = path
			var match mux.RouteMatch
			want := router.Match(req, &match)
			namespace, name, ok := newPathTemplate(template).match(path)
			if ok != want || namespace != match.Vars["namespace"] || name != match.Vars["name"] {
				t.Errorf("%s: %q: got %q, %q, %t, want %v, %t", template, path, namespace, name, ok, match.Vars, want)
			}
		}
	}
}
