package server

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/fields"

	"github.com/berth-project/berth/pkg/server/requestinfo"
)

// authorisedMethods are those that the requests below have.
var authorisedMethods = []string{
	http.MethodGet, http.MethodGet, http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	http.MethodHead, http.MethodOptions, http.MethodConnect, http.MethodTrace, "get", "WATCH", "",
}

// Thousands of requests that are nearly right have done what was authorised, and nothing else.
func TestRandomRequests(t *testing.T) {
	s, notes := harbour(t)
	random, called := rand.New(rand.NewPCG(1, 2)), 0
	for range 10_000 {
		requestAnything(t, s, notes, randomPath(random), randomQuery(random), authorisedMethods[random.IntN(len(authorisedMethods))])
		if notes.called != "" {
			called++
		}
	}
	if called < 200 {
		t.Errorf("%d requests were for something", called)
	}
}

// Whatever path, query and method a request has, what is done is what was authorised.
func FuzzAuthorised(f *testing.F) {
	s, notes := harbour(f)
	for _, path := range []string{
		"/api/v1/namespaces/a/endpoints", "/api/v1/namespaces/a/status", "/apis/sea.io/v1/namespaces/a/quays/b/status", "/api/v1/watch/namespaces/a/endpoints/b",
		"/api/v1/namespaces/a/endpoints" + strings.Repeat("/", requestinfo.MaxPathBytes),
		"/api/v1/namespaces/" + strings.Repeat("a", requestinfo.MaxPathBytes) + "/endpoints",
		"/api/v1/namespaces/a/endpoints/b\nc", "/api/v1/namespaces/a\x00/endpoints/b", "/api/v1/namespaces/ａ/endpoints/\u2215", "api/v1/endpoints", "", requestinfo.PrometheusFeed,
	} {
		f.Add(path, "watch=1&fieldSelector=metadata.name%3Db", uint8(len(path)))
	}
	f.Fuzz(func(t *testing.T, path, query string, method uint8) {
		requestAnything(t, s, notes, path, query, authorisedMethods[int(method)%len(authorisedMethods)])
	})
}

// requestAnything sends a request, and compares what was done with what was authorised.
func requestAnything(t *testing.T, s *Server, notes *journal, path, query, method string) {
	t.Helper()
	*notes = journal{}
	req := newRequest(t, http.MethodGet, "/", "{}", "Content-Type", "application/json")
	if req.Method = method; method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	req.URL.Path, req.URL.RawQuery = path, query
	w := serveOnce(s, req)
	if w.Code >= http.StatusInternalServerError && w.Code != http.StatusGatewayTimeout {
		t.Errorf("%s %q?%s: got %d %s", method, path, query, w.Code, w.Body)
	}
	if notes.called != "" {
		checkAuthorised(t, notes, req)
	}
}

// checkAuthorised compares the call with what was authorised before it. A list or a watch may have
// fewer objects than that, by its selector.
func checkAuthorised(t *testing.T, notes *journal, req *http.Request) {
	t.Helper()
	asked := notes.asked
	if len(asked) != 1 || !asked[0].ResourceRequest {
		t.Fatalf("%s %q?%s: called %s, authorised %v", req.Method, req.URL.Path, req.URL.RawQuery, notes.called, asked)
	}
	want, is := asked[0], notes.did
	if want.Resource == "namespaces" && want.Namespace == want.Name {
		want.Namespace = ""
	}
	if is.Verb == "list" || is.Verb == "watch" {
		is.Name = want.Name
		if selector, err := fields.ParseSelector(notes.selector); err == nil && want.Name != "" { // else a resource refuses it
			is.Name, _ = selector.RequiresExactMatch("metadata.name")
		}
	}
	if is.Verb == "get" { // which does not tell a subresource
		is.Subresource = want.Subresource
	}
	want.User, want.Path = nil, ""
	if fmt.Sprint(want) != fmt.Sprint(is) {
		t.Errorf("%s %q?%s: authorised %+v, did %+v", req.Method, req.URL.Path, req.URL.RawQuery, want, is)
	}
}

// randomPath is that of a resource or a feed, often with a part too many, too few or in the wrong place.
func randomPath(random *rand.Rand) string {
	one := func(words ...string) string { return words[random.IntN(len(words))] }
	if random.IntN(8) == 0 {
		return requestinfo.PrometheusFeed + one("", "", "", "/", "/a")
	}
	parts := strings.Split(one("api/v1", "api/v1", "apis/sea.io/v1", "apis/sea.io/v2", "apis/authentication.k8s.io/v1"), "/")
	if random.IntN(4) == 0 {
		parts = append(parts, "watch")
	}
	if random.IntN(4) > 0 {
		parts = append(parts, "namespaces", one("a", "b", "status", "watch", "namespaces"))
	}
	parts = append(parts, one("namespaces", "endpoints", "quays", "endpoints", "quays", "anchors", "selfsubjectreviews"))
	if random.IntN(2) == 0 {
		parts = append(parts, one("a", "b", "status", "namespaces", "endpoints"))
	}
	if random.IntN(4) == 0 {
		parts = append(parts, one("status", "finalize"))
	}
	for range max(0, random.IntN(5)-2) {
		at := random.IntN(len(parts) + 1)
		odd := one("", "", ".", "..", "%2F", "*", "watch", "proxy", "namespaces", "status", "Endpoints", "endpoints|quays", "namespaces%2Fa", "a;b", "ａ", "metrics")
		parts = slices.Insert(parts, at, odd)
	}
	return "/" + strings.Join(parts, "/") + strings.Repeat("/", max(0, random.IntN(6)-3))
}

// randomQuery is made of the parameters that decide on verb and name.
func randomQuery(random *rand.Rand) string {
	parts := []string{
		"watch", "watch=1", "watch=true", "watch=0", "watch=false", "watch=nonsense", "w%61tch=1", "Watch=1", "watch=&watch=1", "watch=1;a=b", "%77atch=%31",
		"fieldSelector=metadata.name%3Da", "fieldSelector=metadata.name%3Da,metadata.name%3Db", "fieldSelector=metadata.name%3D%3Da", "fieldSelector=metadata.name!%3Da",
		"fieldSelector=metadata.name%3D", "fieldSelector=" + url.QueryEscape(`metadata.name=a\,b`), "fieldSelector=metadata.name=a", "fieldSelector=x%3Dy,metadata.name%3Da", "field%53elector=metadata.name%3Da",
		"fieldSelector=,", "fieldSelector=metadata.name%3D..", "limit=nonsense", "limit=1", "continue=x", "timeoutSeconds=x", "%", "name=a", "namespace=b", "namespace=a", "namesp%61ce=b", "namespace=", "namespace=a%2Fendpoints", "port=a", "dryRun=All", "fieldSelector=%20metadata.name%3Da",
	}
	var query []string
	for range max(0, random.IntN(6)-2) {
		query = append(query, parts[random.IntN(len(parts))])
	}
	return strings.Join(query, "&")
}
