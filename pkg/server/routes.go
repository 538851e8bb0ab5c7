package server

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/server/discovery"
	"github.com/berth-project/berth/pkg/server/health"
	"github.com/berth-project/berth/pkg/server/media"
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

// served is one resource as the routes know it.
type served struct {
	Resource
	described metav1.APIResource   // with the verbs that it has
	below     []metav1.APIResource // its subresources, in its group, version and scope
	codecs    *media.Codecs        // of its answers; nil: the server's
}

// Describe returns what discovery tells of a resource and its subresources, which come after
// it: with the verbs that it has, and they in its group, version and scope.
func Describe(resource metav1.APIResource, subresources []metav1.APIResource) []metav1.APIResource {
	resource.Verbs = verbsOf(resource)
	described := []metav1.APIResource{resource}
	for _, below := range subresources {
		below.Group, below.Version, below.Namespaced = resource.Group, resource.Version, resource.Namespaced
		described = append(described, below)
	}
	return described
}

// shape is a form of path within a group and version, and what its methods mean there.
type shape struct {
	path       string // {resource} stands for the names of resources
	namespaced bool   // they live in namespaces
	operations map[string]operation
}

// finalSlashes may end every path of the API, as for kube-apiserver.
const finalSlashes = "{slashes:/*}"

// shapes are the paths of resources, those that are asked for most first: the router tries
// one after the other.
var shapes = []shape{
	{"/namespaces/{namespace}/{resource}/{name}", true, objectOperations},
	{"/namespaces/{namespace}/{resource}", true, collectionOperations},
	{"/{resource}/{name}", false, objectOperations},
	{"/{resource}", false, collectionOperations},
	{"/{resource}", true, allNamespacesOperations},
	{"/watch/namespaces/{namespace}/{resource}/{name}", true, watchOperations},
	{"/watch/namespaces/{namespace}/{resource}", true, watchOperations},
	{"/watch/{resource}/{name}", false, watchOperations},
	{"/watch/{resource}", false, watchOperations},
	{"/watch/{resource}", true, watchOperations},
}

// route builds the router. SkipClean leaves paths as they came: a name is never made out
// of "..".
func (s *Server) route() error {
	s.router = mux.NewRouter().SkipClean(true)
	groups, order := map[schema.GroupVersion]map[string]*served{}, []schema.GroupVersion{}
	var described []metav1.APIResource
	all := slices.Clone(s.cfg.Resources)
	for _, review := range s.cfg.Reviews {
		all = append(all, reviewResource{Review: review})
	}
	for _, resource := range all {
		all := Describe(resource.APIResource(), resource.Subresources())
		one := &served{Resource: resource, described: all[0], below: all[1:]}
		gv := resource.Type().Kind.GroupVersion()
		if groups[gv] == nil {
			groups[gv], order = map[string]*served{}, append(order, gv)
		}
		groups[gv][one.described.Name] = one
		s.know(one)
		described = append(described, all...)
		if len(one.described.Verbs) > 1 { // it is stored
			s.metrics.ShowZero(one.described)
		}
	}
	for _, gv := range order {
		s.routeGroup(discovery.Prefix(gv), groups[gv])
	}
	if endpoints := groups[corev1.SchemeGroupVersion]["endpoints"]; endpoints != nil {
		s.routeFeed(*endpoints)
	}
	s.routeHealth()
	s.router.Path("/metrics").Handler(s.metrics.Handler())
	s.router.Path(LimitsPath).Handler(s.readable(s.limits))
	s.router.NotFoundHandler = http.HandlerFunc(s.notFound)
	s.router.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.renderError(recordOf(w), methodNotAllowed())
	})
	if err := s.routeDocuments(described); err != nil {
		return err
	}
	if err := s.routeIndex(); err != nil {
		return err
	}
	s.routeDocument(discovery.CustomResourceDefinitions) // of which the index tells nothing
	return nil
}

// routeGroup serves the resources of a group and version below its prefix.
func (s *Server) routeGroup(prefix string, resources map[string]*served) {
	router := s.router.PathPrefix(prefix + "/").Subrouter()
	for _, shape := range shapes {
		var names []string
		for name, one := range resources {
			if one.described.Namespaced == shape.namespaced && one.has(shape.operations) {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			continue
		}
		slices.Sort(names)
		path := strings.Replace(shape.path, "{resource}", "{resource:"+strings.Join(names, "|")+"}", 1)
		router.Path(path + finalSlashes).HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			one := resources[mux.Vars(req)["resource"]]
			s.serveResource(recordOf(w), req, one, &one.described, shape.operations)
		})
	}
	for name, one := range resources {
		path := "/" + name + "/{name}/"
		if one.described.Namespaced {
			path = "/namespaces/{namespace}" + path
		}
		for _, below := range one.below {
			_, subresource, _ := strings.Cut(below.Name, "/")
			router.Path(path + subresource + finalSlashes).HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				s.serveResource(recordOf(w), req, one, &below, objectOperations)
			})
		}
	}
}

// has reports whether the resource has any of the operations.
func (r *served) has(operations map[string]operation) bool {
	for _, op := range operations {
		if slices.Contains(r.described.Verbs, op.verb) {
			return true
		}
	}
	return false
}

// serveResource answers a request for a resource, or a subresource, that described is about.
func (s *Server) serveResource(rec *record, req *http.Request, one *served, described *metav1.APIResource, operations map[string]operation) {
	op := operations[req.Method]
	if op.verb == "list" && rec.attrs.Verb == "watch" {
		op = watchOperation
	}
	if !slices.Contains(described.Verbs, op.verb) {
		s.renderError(rec, methodNotAllowed())
		return
	}
	rec.req = req // whose path is known by its parts
	s.serve(rec, one, op.run)
}

// verbsOf are the verbs of the resource's paths in alphabetical order, except those that
// the resource leaves out.
func verbsOf(described metav1.APIResource) []string {
	var verbs []string
	for _, shape := range shapes {
		for _, op := range shape.operations {
			if len(described.Verbs) == 0 || slices.Contains(described.Verbs, op.verb) {
				verbs = append(verbs, op.verb)
			}
		}
	}
	slices.Sort(verbs)
	return slices.Compact(verbs)
}

// resourcePath is what a path says of a resource, or of a subresource.
type resourcePath struct{ group, version, resource, subresource string }

// know has requests for a resource counted as such, whatever becomes of them.
func (s *Server) know(one *served) {
	of := resourcePath{group: one.described.Group, version: one.described.Version, resource: one.described.Name}
	s.resources[of] = &one.described
	for _, below := range one.below {
		_, of.subresource, _ = strings.Cut(below.Name, "/")
		s.resources[of] = &one.described
	}
}

// notFound answers as kube-apiserver does: by a Status below the paths of the API, by plain
// text elsewhere.
func (s *Server) notFound(w http.ResponseWriter, req *http.Request) {
	for _, prefix := range s.prefixes {
		if strings.HasPrefix(req.URL.Path, prefix) {
			s.renderError(recordOf(w), pathNotFound())
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

// routeHealth serves the health paths, and the version, which need no token: /livez says that the process
// answers, /readyz and /healthz that etcd does, too, and /readyz that the server does not stop.
func (s *Server) routeHealth() {
	router := s.router
	ping := health.Check{Name: "ping", Run: func(context.Context) error { return nil }}
	etcd := health.Check{Name: "etcd", Run: health.Shared(s.checkReady)}
	stopping := health.Check{Name: "shutdown", Run: func(context.Context) error { return s.stages.Ready() }}
	for path, checks := range map[string][]health.Check{
		"livez": {ping}, "readyz": {ping, etcd, stopping}, "healthz": {ping, etcd},
	} {
		router.Path("/"+path).Methods(http.MethodGet, http.MethodHead).Handler(countedProbe(path, health.Handler(path, checks...)))
		for _, one := range checks {
			router.Path("/"+path+"/"+one.Name).Methods(http.MethodGet, http.MethodHead).Handler(health.Handler(path, one))
		}
	}
	router.Path("/version" + finalSlashes).Methods(http.MethodGet).HandlerFunc(s.version)
	s.prefixes = append(s.prefixes, "/version/")
}

// countedProbe counts the requests for a health path. As with kube-apiserver, those for one check are
// not.
func countedProbe(path string, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		recordOf(w).count("/" + path)
		next(w, req)
	})
}

// readyTimeout bounds a health check: a probe wants an answer, not patience.
const readyTimeout = 2 * time.Second

// checkReady asks whether requests can be served now, for a probe.
func (s *Server) checkReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := s.cfg.Ready(ctx)
	if err != nil {
		s.cfg.Logger.Warn().Str("check", "etcd").Err(err).Msg("a health check failed")
	}
	return err
}

// version tells what the server is; it needs no token.
func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	data, err := json.MarshalIndent(s.cfg.Version, "", "  ")
	if err != nil {
		s.renderError(recordOf(w), err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) // a client that has gone needs no answer
}
