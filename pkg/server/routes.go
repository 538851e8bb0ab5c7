package server

import (
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/auth"
)

// handler answers one call to a resource. It decodes, calls and returns; everything
// around that is the adapter's.
type handler func(*Server, *call) (result, error)

// operation is what a method means on some path.
type operation struct {
	verb string // as an authorizer names it
	run  handler
}

var (
	collectionOperations = map[string]operation{
		http.MethodGet:    {"list", (*Server).list},
		http.MethodPost:   {"create", (*Server).create},
		http.MethodDelete: {"deletecollection", (*Server).deleteCollection},
	}
	allNamespacesOperations = map[string]operation{
		http.MethodGet: {"list", (*Server).list},
	}
	objectOperations = map[string]operation{
		http.MethodGet:    {"get", (*Server).get},
		http.MethodPut:    {"update", (*Server).update},
		http.MethodPatch:  {"patch", (*Server).patch},
		http.MethodDelete: {"delete", (*Server).delete},
	}
	watchOperations = map[string]operation{
		http.MethodGet: watchOperation,
	}
	watchOperation = operation{"watch", (*Server).watch}
)

// route builds both routers. SkipClean leaves paths as they came: a name is never made
// out of "..".
func (s *Server) route() {
	s.api = mux.NewRouter().SkipClean(true)
	var served []metav1.APIResource
	for _, resource := range s.cfg.Resources {
		described := resource.APIResource()
		described.Verbs = verbsOf(described, routesOf(described))
		served = append(served, described)
		s.groups = append(s.groups, groupPrefix(kindOf(described).GroupVersion())+"/")
	}
	// The router tries one after the other: the resources that others live in are asked for
	// least.
	for i, described := range slices.Backward(served) {
		for _, r := range routesOf(described) {
			s.handle(r.path, s.cfg.Resources[i], described, r.operations)
		}
	}
	s.routeDiscovery(served)
	s.routeOpenAPI()
	s.api.Path("/metrics").Handler(s.authorised(s.metrics.handler()))
	s.api.NotFoundHandler = http.HandlerFunc(s.notFound)

	s.public = mux.NewRouter().SkipClean(true)
	s.routeHealth(s.public)
	s.public.Path("/version").Methods(http.MethodGet).HandlerFunc(s.version)
	s.public.NotFoundHandler = http.HandlerFunc(s.protect)
	s.public.MethodNotAllowedHandler = http.HandlerFunc(s.protect)
}

// dispatch calls the handler of the request's route. The router would copy the request for
// it, to put the variable parts of the path into its context.
func dispatch(router *mux.Router, rec *record) {
	var match mux.RouteMatch
	router.Match(rec.req, &match) // NotFoundHandler always matches
	rec.vars = match.Vars
	match.Handler.ServeHTTP(rec, rec.req)
}

// route is a path with what its methods mean.
type route struct {
	path       string
	operations map[string]operation
}

// routesOf are the paths of a resource.
func routesOf(described metav1.APIResource) []route {
	prefix := groupPrefix(kindOf(described).GroupVersion())
	flat, old := "/"+described.Name, prefix+"/watch"
	if !described.Namespaced {
		return []route{
			{prefix + flat + "/" + nameSegment, objectOperations},
			{prefix + flat, collectionOperations},
			{old + flat + "/" + nameSegment, watchOperations},
			{old + flat, watchOperations},
		}
	}
	inNamespace := "/namespaces/" + namespaceSegment + flat
	return []route{
		{prefix + inNamespace + "/" + nameSegment, objectOperations},
		{prefix + inNamespace, collectionOperations},
		{prefix + flat, allNamespacesOperations},
		{old + inNamespace + "/" + nameSegment, watchOperations},
		{old + inNamespace, watchOperations},
		{old + flat, watchOperations},
	}
}

// pathTemplate is the path of a route in segments. It is matched for every request, and the
// router's own way, a regular expression, costs a microsecond for each route that it tries.
type pathTemplate []string

const namespaceSegment, nameSegment = "{namespace}", "{name}"

func newPathTemplate(path string) pathTemplate { return strings.Split(path, "/") }

// match returns the variable parts of the path, of which none is empty, or false.
func (t pathTemplate) match(path string) (namespace, name string, ok bool) {
	for i, want := range t {
		segment, rest, more := strings.Cut(path, "/")
		if more != (i < len(t)-1) {
			return "", "", false
		}
		switch {
		case want == namespaceSegment && segment != "":
			namespace = segment
		case want == nameSegment && segment != "":
			name = segment
		case want != segment:
			return "", "", false
		}
		path = rest
	}
	return namespace, name, true
}

// verbsOf are the verbs of the routes in alphabetical order, but for those that the
// resource leaves out.
func verbsOf(described metav1.APIResource, routes []route) []string {
	var verbs []string
	for _, r := range routes {
		for _, op := range r.operations {
			if len(described.Verbs) == 0 || slices.Contains(described.Verbs, op.verb) {
				verbs = append(verbs, op.verb)
			}
		}
	}
	slices.Sort(verbs)
	return slices.Compact(verbs)
}

// groupPrefix is the path of an API group and version.
func groupPrefix(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

// handle serves a path with the operations that its methods mean, as far as the resource
// has their verbs.
func (s *Server) handle(path string, resource Resource, described metav1.APIResource, operations map[string]operation) {
	template := newPathTemplate(path)
	s.api.MatcherFunc(func(req *http.Request, _ *mux.RouteMatch) bool {
		_, _, ok := template.match(req.URL.Path)
		return ok
	}).HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rec := recordOf(w)
		op := operations[req.Method]
		if op.verb == "list" && isWatch(req) {
			op = watchOperation
		}
		ok := slices.Contains(described.Verbs, op.verb)
		if ok {
			rec.attrs.Verb = op.verb
		}
		rec.resource = &described
		rec.attrs.ResourceRequest = true
		rec.attrs.APIGroup, rec.attrs.Resource = described.Group, described.Name
		rec.attrs.Namespace, rec.attrs.Name, _ = template.match(req.URL.Path)
		if !ok {
			s.renderError(w, req, methodNotAllowed())
			return
		}
		if op.verb != "watch" && s.mayBeWatch(req) {
			s.counted(rec, func() { s.serve(rec, resource, op.run) })
			return
		}
		s.serve(rec, resource, op.run)
	})
}

// authorised guards a handler that is no resource's.
func (s *Server) authorised(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := s.authorise(recordOf(w), req); err != nil {
			s.renderError(w, req, err)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// notFound answers as kube-apiserver does: by a Status inside the API, by plain text
// outside.
func (s *Server) notFound(w http.ResponseWriter, req *http.Request) {
	if err := s.authorise(recordOf(w), req); err != nil {
		s.renderError(w, req, err)
		return
	}
	for _, prefix := range s.groups {
		if strings.HasPrefix(req.URL.Path, prefix) {
			s.renderError(w, req, pathNotFound())
			return
		}
	}
	http.Error(w, "404 page not found", http.StatusNotFound)
}

func methodNotAllowed() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusMethodNotAllowed, Reason: metav1.StatusReasonMethodNotAllowed,
		Message: "the server does not allow this method on the requested resource",
		Details: &metav1.StatusDetails{},
	}}
}

func pathNotFound() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource",
		Details: &metav1.StatusDetails{},
	}}
}

func groupResource(attrs auth.Attributes) schema.GroupResource {
	return schema.GroupResource{Group: attrs.APIGroup, Resource: attrs.Resource}
}
