package server

import (
	"net/http"
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
	for _, resource := range s.cfg.Resources {
		described := resource.APIResource()
		prefix := groupPrefix(described)
		s.groups = append(s.groups, prefix+"/")
		flat, old := "/"+described.Name, prefix+"/watch"
		if described.Namespaced {
			inNamespace := "/namespaces/{namespace}" + flat
			s.handle(prefix+inNamespace+"/{name}", resource, objectOperations)
			s.handle(prefix+inNamespace, resource, collectionOperations)
			s.handle(prefix+flat, resource, allNamespacesOperations)
			s.handle(old+inNamespace+"/{name}", resource, watchOperations)
			s.handle(old+inNamespace, resource, watchOperations)
			s.handle(old+flat, resource, watchOperations)
			continue
		}
		s.handle(prefix+flat+"/{name}", resource, objectOperations)
		s.handle(prefix+flat, resource, collectionOperations)
		s.handle(old+flat+"/{name}", resource, watchOperations)
		s.handle(old+flat, resource, watchOperations)
	}
	s.api.Path("/metrics").Handler(s.authorised(s.metrics.handler()))
	s.api.NotFoundHandler = http.HandlerFunc(s.notFound)

	s.public = mux.NewRouter().SkipClean(true)
	s.routeHealth(s.public)
	s.public.Path("/version").Methods(http.MethodGet).HandlerFunc(s.version)
	s.public.NotFoundHandler = http.HandlerFunc(s.protect)
	s.public.MethodNotAllowedHandler = http.HandlerFunc(s.protect)
}

// groupPrefix is the path of the resource's API group and version.
func groupPrefix(described metav1.APIResource) string {
	if described.Group == "" {
		return "/api/" + described.Version
	}
	return "/apis/" + described.Group + "/" + described.Version
}

// handle serves a path with the operations that its methods mean.
func (s *Server) handle(path string, resource Resource, operations map[string]operation) {
	described := resource.APIResource()
	s.api.Path(path).HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rec := recordOf(req)
		vars := mux.Vars(req)
		op, ok := operations[req.Method]
		if op.verb == "list" && isWatch(req) {
			op = watchOperation
		}
		if ok {
			rec.attrs.Verb = op.verb
		}
		rec.resource = &described
		rec.attrs.ResourceRequest = true
		rec.attrs.APIGroup, rec.attrs.Resource = described.Group, described.Name
		rec.attrs.Namespace, rec.attrs.Name = vars["namespace"], vars["name"]
		if !ok {
			s.renderError(w, req, methodNotAllowed())
			return
		}
		s.serve(rec, resource, op.run)
	})
}

// authorised guards a handler that is no resource's.
func (s *Server) authorised(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := s.authorise(recordOf(req), req); err != nil {
			s.renderError(w, req, err)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// notFound answers as kube-apiserver does: by a Status inside the API, by plain text
// outside.
func (s *Server) notFound(w http.ResponseWriter, req *http.Request) {
	if err := s.authorise(recordOf(req), req); err != nil {
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
