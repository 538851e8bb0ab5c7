package server

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/object"
)

// journal is what requests came to: what was authorised, and what was called.
type journal struct {
	authorised, called string
	names              string // of what was called
	listed             string // namespace that was listed to be deleted

	asked    []auth.Attributes // in the order in which it was
	did      auth.Attributes   // of what was called
	selector string            // of fields, of a list or a watch
}

// Authorize allows everything and notes the requests for resources.
func (j *journal) Authorize(_ context.Context, attrs auth.Attributes) (bool, string, error) {
	j.asked = append(j.asked, attrs)
	if attrs.ResourceRequest {
		j.authorised = entry(attrs.Verb, attrs.APIGroup, attrs.Resource, attrs.Namespace, attrs.Name, attrs.Subresource)
	}
	return true, "", nil
}

func entry(verb, group, resource, namespace, name, subresource string) string {
	return fmt.Sprintf("%s %s/%s of %q: %q %s", verb, group, resource, namespace, name, subresource)
}

// authorisedFor is what is authorised for a call: as for kube-apiserver, a namespace is in itself.
func authorisedFor(call string) string {
	return ofNamespace.ReplaceAllString(call, "/namespaces of $1: $1 ")
}

var ofNamespace = regexp.MustCompile(`/namespaces of "": ("[^"]+") `)

// errNoted answers every call of a journaled resource.
var errNoted = &apierrors.StatusError{ErrStatus: metav1.Status{Code: http.StatusTeapot}}

// journaled is a resource that notes how it is called.
type journaled struct {
	fakeResource
	to *journal
}

func (r *journaled) note(verb, namespace, name, subresource string) error {
	r.to.names = fmt.Sprintf("%q: %q", namespace, name)
	r.to.called = entry(verb, r.api.Group, r.api.Name, namespace, name, subresource)
	r.to.did = auth.Attributes{
		ResourceRequest: true, Verb: verb, APIGroup: r.api.Group, APIVersion: r.api.Version, Resource: r.api.Name, Subresource: subresource,
		Namespace: namespace, Name: name,
	}
	return errNoted
}

func (r *journaled) Get(_ context.Context, namespace, name string, _ *metav1.GetOptions) (*object.Object, error) {
	return nil, r.note("get", namespace, name, "")
}

func (r *journaled) Weight(string, string) int { return 0 }

func (r *journaled) Effects(string, runtime.Object) int { return 0 }

func (r *journaled) List(_ context.Context, namespace string, opts *metav1.ListOptions) (*object.List, []string, error) {
	r.to.selector = opts.FieldSelector
	err := r.note("list", namespace, "", "")
	if strings.HasPrefix(r.to.authorised, "deletecollection ") {
		r.to.listed = namespace
		return &object.List{}, nil, nil
	}
	return nil, nil, err
}

func (r *journaled) Watch(_ context.Context, namespace string, opts *metav1.ListOptions) (iter.Seq2[[]object.Event, error], object.WatchCost, error) {
	r.to.selector = opts.FieldSelector
	selector, err := fields.ParseSelector(opts.FieldSelector)
	if err != nil {
		return nil, object.WatchCost{}, apierrors.NewBadRequest(err.Error())
	}
	name, _ := selector.RequiresExactMatch("metadata.name")
	return nil, object.WatchCost{}, r.note("watch", namespace, name, "")
}

func (r *journaled) Create(_ context.Context, namespace string, _ runtime.Object, _ *metav1.CreateOptions) (*object.Object, []string, error) {
	return nil, nil, r.note("create", namespace, "", "")
}

func (r *journaled) Update(_ context.Context, namespace, name, subresource string, _ runtime.Object, _ *metav1.UpdateOptions) (*object.Object, bool, []string, error) {
	return nil, false, nil, r.note("update", namespace, name, subresource)
}

func (r *journaled) Patch(namespace, name, subresource string, _ types.PatchType, _ []byte, _ *metav1.PatchOptions) (func(context.Context) (*object.Object, bool, []string, error), int, error) {
	return nil, 0, r.note("patch", namespace, name, subresource)
}

func (r *journaled) Delete(_ context.Context, namespace, name string, _ *metav1.DeleteOptions) (*object.Object, *metav1.Status, error) {
	return nil, nil, r.note("delete", namespace, name, "")
}

func (r *journaled) DeleteCollection(context.Context, *metav1.DeleteOptions, *object.List) error {
	return r.note("deletecollection", r.to.listed, "", "")
}

// harbour is a server of namespaced and cluster-scoped resources of two groups, one of them
// in two versions, with names that begin alike.
func harbour(t testing.TB) (*Server, *journal) {
	t.Helper()
	notes := &journal{}
	verbs := func(verbs ...string) metav1.Verbs { return verbs }
	cfg := testConfig(t)
	for _, described := range []struct {
		api   metav1.APIResource
		below []metav1.APIResource
	}{
		{metav1.APIResource{Version: "v1", Kind: "Namespace", Name: "namespaces"}, []metav1.APIResource{
			{Name: "namespaces/status", Kind: "Namespace", Verbs: verbs("get", "patch", "update")},
			{Name: "namespaces/finalize", Kind: "Namespace", Verbs: verbs("update")},
		}},
		{metav1.APIResource{Version: "v1", Kind: "Endpoints", Name: "endpoints", Namespaced: true}, nil},
		{metav1.APIResource{Version: "v1", Kind: "EndpointsOfOld", Name: "endpointsofold", Namespaced: true}, nil},
		{metav1.APIResource{Group: "sea.io", Version: "v1", Kind: "Quay", Name: "quays", Namespaced: true}, []metav1.APIResource{
			{Name: "quays/status", Kind: "Quay", Verbs: verbs("get", "update")},
		}},
		{metav1.APIResource{Group: "sea.io", Version: "v1", Kind: "Anchor", Name: "anchors", Verbs: verbs("get", "list")}, nil},
		{metav1.APIResource{Group: "sea.io", Version: "v2", Kind: "Quay", Name: "quays", Namespaced: true}, nil},
	} {
		cfg.Resources = append(cfg.Resources, &journaled{fakeResource{api: described.api, below: described.below}, notes})
	}
	cfg.Authorizer, cfg.Reviews = notes, cfg.Reviews[:1]
	return newTestServer(t, cfg), notes
}

// route sends a request with a body that fits, and returns the answer's code and body.
func route(t *testing.T, s *Server, method, path string) (int, string) {
	t.Helper()
	body, headers := "", []string(nil)
	switch method {
	case http.MethodPost, http.MethodPut:
		body = "{}"
	case http.MethodPatch:
		body, headers = "{}", []string{"Content-Type", "application/merge-patch+json"}
	}
	w := serveOnce(s, newRequest(t, method, path, body, headers...))
	return w.Code, w.Body.String()
}

func TestRoutes(t *testing.T) {
	s, notes := harbour(t)
	const core, sea = "/api/v1", "/apis/sea.io/v1"
	for _, tc := range []struct{ method, path, want string }{
		{"GET", core + "/namespaces/a/endpoints/b", entry("get", "", "endpoints", "a", "b", "")},
		{"PUT", core + "/namespaces/a/endpoints/b", entry("update", "", "endpoints", "a", "b", "")},
		{"PATCH", core + "/namespaces/a/endpoints/b", entry("patch", "", "endpoints", "a", "b", "")},
		{"DELETE", core + "/namespaces/a/endpoints/b", entry("delete", "", "endpoints", "a", "b", "")},
		{"GET", core + "/namespaces/a/endpoints", entry("list", "", "endpoints", "a", "", "")},
		{"GET", core + "/namespaces/a/endpoints?watch=1", entry("watch", "", "endpoints", "a", "", "")},
		{"GET", core + "/namespaces/a/endpoints?watch=true", entry("watch", "", "endpoints", "a", "", "")},
		{"GET", core + "/namespaces/a/endpoints?watch=0", entry("list", "", "endpoints", "a", "", "")},
		{"GET", core + "/namespaces/a/endpoints?labelSelector=watch", entry("list", "", "endpoints", "a", "", "")},
		{"GET", core + "/namespaces/a/endpoints/b?watch=1", entry("get", "", "endpoints", "a", "b", "")},
		{"POST", core + "/namespaces/a/endpoints", entry("create", "", "endpoints", "a", "", "")},
		{"POST", core + "/namespaces/a/endpoints?watch=1", entry("create", "", "endpoints", "a", "", "")},
		{"DELETE", core + "/namespaces/a/endpoints", entry("deletecollection", "", "endpoints", "a", "", "")},
		{"GET", core + "/endpoints", entry("list", "", "endpoints", "", "", "")},
		{"GET", core + "/endpoints?watch=1", entry("watch", "", "endpoints", "", "", "")},
		{"GET", core + "/watch/namespaces/a/endpoints/b", entry("watch", "", "endpoints", "a", "b", "")},
		{"GET", core + "/watch/namespaces/a/endpoints", entry("watch", "", "endpoints", "a", "", "")},
		{"GET", core + "/watch/endpoints", entry("watch", "", "endpoints", "", "", "")},
		{"GET", core + "/namespaces/a/endpointsofold/b", entry("get", "", "endpointsofold", "a", "b", "")},
		{"GET", core + "/endpointsofold", entry("list", "", "endpointsofold", "", "", "")},

		{"GET", core + "/namespaces/a", entry("get", "", "namespaces", "", "a", "")},
		{"PUT", core + "/namespaces/a", entry("update", "", "namespaces", "", "a", "")},
		{"PATCH", core + "/namespaces/a", entry("patch", "", "namespaces", "", "a", "")},
		{"DELETE", core + "/namespaces/a", entry("delete", "", "namespaces", "", "a", "")},
		{"GET", core + "/namespaces", entry("list", "", "namespaces", "", "", "")},
		{"GET", core + "/namespaces?watch=1", entry("watch", "", "namespaces", "", "", "")},
		{"POST", core + "/namespaces", entry("create", "", "namespaces", "", "", "")},
		{"DELETE", core + "/namespaces", entry("deletecollection", "", "namespaces", "", "", "")},
		{"GET", core + "/watch/namespaces/a", entry("watch", "", "namespaces", "", "a", "")},
		{"GET", core + "/watch/namespaces", entry("watch", "", "namespaces", "", "", "")},

		{"PUT", core + "/namespaces/a/status", entry("update", "", "namespaces", "", "a", "status")},
		{"PATCH", core + "/namespaces/a/status", entry("patch", "", "namespaces", "", "a", "status")},
		{"PUT", core + "/namespaces/a/finalize", entry("update", "", "namespaces", "", "a", "finalize")},
		{"PUT", sea + "/namespaces/a/quays/b/status", entry("update", "sea.io", "quays", "a", "b", "status")},

		{"GET", sea + "/namespaces/a/quays/b", entry("get", "sea.io", "quays", "a", "b", "")},
		{"GET", sea + "/quays", entry("list", "sea.io", "quays", "", "", "")},
		{"GET", sea + "/watch/namespaces/a/quays/b", entry("watch", "sea.io", "quays", "a", "b", "")},
		{"GET", "/apis/sea.io/v2/namespaces/a/quays/b", entry("get", "sea.io", "quays", "a", "b", "")},
		{"GET", sea + "/anchors/a", entry("get", "sea.io", "anchors", "", "a", "")},
		{"GET", sea + "/anchors", entry("list", "sea.io", "anchors", "", "", "")},

		// Names that look like other parts of paths.
		{"GET", core + "/namespaces/status", entry("get", "", "namespaces", "", "status", "")},
		{"PUT", core + "/namespaces/status/status", entry("update", "", "namespaces", "", "status", "status")},
		{"GET", core + "/namespaces/status/endpoints/status", entry("get", "", "endpoints", "status", "status", "")},
		{"GET", core + "/namespaces/watch", entry("get", "", "namespaces", "", "watch", "")},
		{"GET", core + "/namespaces/watch/endpoints/watch", entry("get", "", "endpoints", "watch", "watch", "")},
		{"GET", core + "/namespaces/namespaces", entry("get", "", "namespaces", "", "namespaces", "")},
		{"GET", core + "/namespaces/endpoints/endpoints", entry("list", "", "endpoints", "endpoints", "", "")},
		{"GET", core + "/namespaces/endpoints/endpoints/endpoints", entry("get", "", "endpoints", "endpoints", "endpoints", "")},
		{"GET", core + "/watch/namespaces/watch/endpoints/watch", entry("watch", "", "endpoints", "watch", "watch", "")},
		{"GET", core + "/watch/namespaces/namespaces", entry("watch", "", "namespaces", "", "namespaces", "")},
		{"GET", sea + "/anchors/anchors", entry("get", "sea.io", "anchors", "", "anchors", "")},

		// A name is what stands there, decoded once: never made out of dots.
		{"GET", core + "/namespaces/a/endpoints/..", entry("get", "", "endpoints", "a", "..", "")},
		{"GET", core + "/namespaces/../endpoints/b", entry("get", "", "endpoints", "..", "b", "")},
		{"GET", core + "/namespaces/a/endpoints/%2e%2e", entry("get", "", "endpoints", "a", "..", "")},
		{"GET", core + "/namespaces/a/endpoints/b%252Fc", entry("get", "", "endpoints", "a", "b%2Fc", "")},
		{"GET", core + "/namespaces/a/endpoints/b%0Ac", entry("get", "", "endpoints", "a", "b\nc", "")},
		{"GET", core + "/namespaces/a/endpoints/%ff", entry("get", "", "endpoints", "a", "\xff", "")},
		{"GET", core + "/namespaces/a/endpoints/%7Bname%7D", entry("get", "", "endpoints", "a", "{name}", "")},
		{"GET", core + "/namespaces/a%2Fendpoints%2Fb", entry("get", "", "endpoints", "a", "b", "")}, // as for kube-apiserver
	} {
		plain, query, _ := strings.Cut(tc.path, "?")
		for _, path := range []string{plain, plain + "/", plain + "//"} {
			*notes = journal{}
			code, body := route(t, s, tc.method, path+"?"+query)
			if code != http.StatusTeapot || notes.called != tc.want || notes.authorised != authorisedFor(tc.want) {
				t.Errorf("%s %s?%s: got %d %.200s\nauthorised %s\ncalled     %s\nwant       %s", tc.method, path, query, code, body, notes.authorised, notes.called, tc.want)
			}
		}
	}
}

// A GET of a subresource is authorised as such, and returns the object.
func TestGetOfSubresources(t *testing.T) {
	s, notes := harbour(t)
	code, _ := route(t, s, http.MethodGet, "/api/v1/namespaces/a/status")
	authorised, called := entry("get", "", "namespaces", "a", "a", "status"), entry("get", "", "namespaces", "", "a", "")
	if code != http.StatusTeapot || notes.authorised != authorised || notes.called != called {
		t.Errorf("got %d, authorised %s, called %s", code, notes.authorised, notes.called)
	}
}

// What is not served calls no resource. Below the paths of the API the answer is a Status,
// elsewhere text.
func TestPathsThatAreNotServed(t *testing.T) {
	s, notes := harbour(t)
	const core, sea = "/api/v1", "/apis/sea.io/v1"
	for _, tc := range []struct {
		method, path string
		code         int
		status       bool
	}{
		// Methods that a path does not have.
		{"HEAD", core + "/namespaces/a/endpoints/b", 405, true},
		{"OPTIONS", core + "/namespaces/a/endpoints/b", 405, true},
		{"POST", core + "/namespaces/a/endpoints/b", 405, true},
		{"NONSENSE", core + "/namespaces/a/endpoints/b", 405, true},
		{"PUT", core + "/namespaces/a/endpoints", 405, true},
		{"PATCH", core + "/namespaces/a/endpoints", 405, true},
		{"POST", core + "/endpoints", 405, true},
		{"DELETE", core + "/endpoints", 405, true},
		{"POST", core + "/watch/endpoints", 405, true},
		{"DELETE", core + "/watch/namespaces/a/endpoints/b", 405, true},
		{"DELETE", core + "/namespaces/a/status", 405, true},
		{"GET", core + "/namespaces/a/finalize", 405, true},
		{"PATCH", core + "/namespaces/a/finalize", 405, true},
		{"PATCH", sea + "/namespaces/a/quays/b/status", 405, true},
		// Verbs that a resource leaves out.
		{"POST", sea + "/anchors", 405, true},
		{"DELETE", sea + "/anchors", 405, true},
		{"DELETE", sea + "/anchors/a", 405, true},
		{"PUT", sea + "/anchors/a", 405, true},
		{"GET", sea + "/anchors?watch=1", 405, true},
		{"GET", sea + "/watch/anchors", 404, true},
		{"GET", sea + "/watch/anchors/a", 404, true},

		// Paths of no resource, or of the other scope.
		{"GET", core + "/nonsense", 404, true},
		{"GET", core + "/namespaces/a/nonsense", 404, true},
		{"GET", core + "/namespaces/a/nonsense/b", 404, true},
		{"GET", core + "/namespaces/a/endpoints/b/status", 404, true},
		{"GET", core + "/namespaces/a/endpoints/b/c/d", 404, true},
		{"PUT", core + "/namespaces/a/nonsense", 404, true},
		{"GET", core + "/endpoints/b", 404, true},
		{"GET", core + "/namespaces/a/namespaces/b", 404, true},
		{"GET", core + "/namespaces/a/namespaces", 404, true},
		{"GET", core + "/namespaces/a/quays", 404, true},
		{"GET", sea + "/namespaces/a", 404, true},
		{"GET", sea + "/namespaces/a/anchors", 404, true},
		{"GET", sea + "/quays/a", 404, true},
		{"GET", "/apis/sea.io/v2/anchors", 404, true},
		{"GET", core + "/watch", 404, true},
		{"GET", core + "/watch/endpoints/b", 404, true},
		{"GET", core + "/watch/namespaces/a/status", 404, true},
		{"GET", core + "/watch/watch/endpoints", 404, true},
		{"GET", core + "/endpointsof", 404, true},
		{"GET", core + "/Endpoints", 404, true},
		{"GET", core + "/endpoints%7Cnamespaces", 404, true},

		// Extra slashes and empty parts.
		{"PUT", core + "/namespaces/a/endpoints/", 405, true},
		{"GET", core + "/nonsense/", 404, true},
		{"GET", core + "/namespaces/a/nonsense/", 404, true},
		{"GET", core + "/namespaces//endpoints/b", 404, true},
		{"GET", core + "/namespaces//endpoints", 404, true},
		{"GET", core + "/namespaces/a//endpoints", 404, true},
		{"GET", core + "//endpoints", 404, true},
		{"GET", core + "/./endpoints", 404, true},
		{"GET", core + "/namespaces/a/endpoints/b%2Fc", 404, true},
		{"GET", "//api/v1/endpoints", 404, false},
		{"GET", "/api//v1/endpoints", 404, true},
		{"GET", "/x/../api/v1/endpoints", 404, false},

		{"GET", "/nonsense", 404, false},
		{"GET", "/api/nonsense", 404, true},
		{"GET", "/api/v2", 404, true},
		{"GET", "/api/v2/endpoints", 404, true},
		{"GET", "/apiv1", 404, false},
		{"GET", "/version/nonsense", 404, true},
		{"POST", "/version/nonsense", 404, true},
		{"POST", "/version/", 405, true},
		{"GET", "/apis/v1/endpoints", 404, false},
		{"GET", "/apis/nonsense", 404, false},
		{"GET", "/apis/nonsense/v1", 404, false},
		{"GET", "/apis/nonsense/", 404, false},
		{"GET", "/apis/sea.io/v3", 404, true},
		{"GET", "/apis/sea.io/v3/quays", 404, true},
		{"GET", "/apis/sea.io1/v1", 404, false},
		{"GET", "/api/v1endpoints", 404, true},
		{"GET", "/livez/nonsense", 404, false},
		{"POST", "/nonsense", 404, false},
	} {
		*notes = journal{}
		code, body := route(t, s, tc.method, tc.path)
		if status := strings.HasPrefix(body, `{"kind":"Status","apiVersion":"v1"`); code != tc.code || status != tc.status || notes.called != "" {
			t.Errorf("%s %s: got %d %q, called %q, want %d", tc.method, tc.path, code, body, notes.called, tc.code)
		}
		if text := "404 page not found\n"; !tc.status && body != text {
			t.Errorf("%s %s: got %q, want %q", tc.method, tc.path, body, text)
		}
	}
}

// Without a token nobody learns what is served.
func TestRoutesAreGuarded(t *testing.T) {
	s, notes := harbour(t)
	for i, path := range []string{
		"/api/v1/namespaces/a/endpoints/b", "/api/v1/namespaces/a/status", "/api/v1/nonsense", "/nonsense", "/",
		"/api", "/api/", "/apis", "/api/v1", "/apis/sea.io", "/apis/sea.io/v1", "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", "/metrics",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodHead} {
			req := newRequest(t, method, path, "")
			req.Header.Del("X-Auth-Token")
			req.RemoteAddr = fmt.Sprintf("10.0.0.%d:1", i) // each may fail a few times
			if w := serveOnce(s, req); w.Code != http.StatusUnauthorized {
				t.Errorf("%s %s: got %d %s", method, path, w.Code, w.Body)
			}
		}
	}
	if notes.authorised != "" || notes.called != "" {
		t.Errorf("authorised %s, called %s", notes.authorised, notes.called)
	}
}

// The verbs of discovery are those that are served.
func TestVerbsOf(t *testing.T) {
	for name, tc := range map[string]struct {
		described metav1.APIResource
		want      []string
	}{
		"all":       {metav1.APIResource{}, []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}},
		"some":      {metav1.APIResource{Verbs: metav1.Verbs{"watch", "get"}}, []string{"get", "watch"}},
		"not known": {metav1.APIResource{Verbs: metav1.Verbs{"get", "dance"}}, []string{"get"}},
	} {
		got := verbsOf(tc.described)
		if diff := cmp.Diff(tc.want, got); diff != "" || !slices.IsSorted(got) {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}
