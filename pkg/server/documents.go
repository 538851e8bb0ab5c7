package server

import (
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/server/discovery"
)

// routeDocuments serves the documents by which clients learn what the server serves.
func (s *Server) routeDocuments(described []metav1.APIResource) error {
	documents, err := discovery.Documents(described)
	if err != nil {
		return err
	}
	for _, document := range documents {
		handler := s.authorised(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			s.serveDocument(recordOf(w), req, document)
		}))
		s.router.Path(document.Path + finalSlashes).Handler(handler)
		if document.Path != discovery.Groups { // below which kube-apiserver knows only the groups
			s.prefixes = append(s.prefixes, document.Path+"/")
		}
	}
	return s.routeOpenAPI()
}

// routeIndex serves the list of the paths that are the same for all objects.
func (s *Server) routeIndex() error {
	var index metav1.RootPaths
	err := s.router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		template, err := route.GetPathTemplate()
		if err != nil {
			return err
		}
		path := strings.TrimSuffix(template, finalSlashes)
		if !strings.HasSuffix(path, "/") && !strings.Contains(path, "{") { // a group's prefix, a resource's path
			index.Paths = append(index.Paths, path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(index.Paths)
	encoded, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	s.router.Path("/").Handler(s.authorised(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(encoded) // a client that has gone needs no answer
	})))
	return nil
}

func (s *Server) serveDocument(rec *record, req *http.Request, document discovery.Document) {
	if req.Method != http.MethodGet {
		s.renderError(rec, methodNotAllowed())
		return
	}
	header := rec.Header()
	offered := schema.GroupVersionKind{}
	if document.Aggregated != nil {
		header.Set("Vary", "Accept")
		offered = discovery.AggregatedKind
	}
	out, aggregate, err := s.codecs.NegotiateDocument(req, offered)
	switch {
	case err != nil:
		s.renderError(rec, err)
	case aggregate:
		header.Set("Cache-Control", "public")
		if answered := answerETag(rec, document.ETag); !answered {
			s.renderAny(rec, http.StatusOK, out, document.Aggregated)
		}
	case document.Versions != nil:
		s.renderAny(rec, http.StatusOK, out, document.Versions(localAddress(req)))
	default:
		s.renderAny(rec, http.StatusOK, out, document.Plain)
	}
}

// localAddress is the address at which the client has reached the server, "" where the
// connection has none.
func localAddress(req *http.Request) string {
	if addr, ok := req.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return addr.String()
	}
	return ""
}

// answerETag sets the entity tag, and answers where the client has that version already.
func answerETag(rec *record, etag string) (answered bool) {
	rec.Header().Set("ETag", etag)
	for candidate := range strings.SplitSeq(rec.req.Header.Get("If-None-Match"), ",") {
		if candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/"); candidate == etag || candidate == "*" {
			rec.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}
