package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/mux"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/server/discovery"
	"github.com/berth-project/berth/pkg/server/media"
)

// routeOpenAPI serves the documents of OpenAPI, which are compressed, as they are.
func (s *Server) routeOpenAPI() error {
	documents, err := discovery.LoadOpenAPI(s.cfg.OpenAPI)
	if err != nil {
		return err
	}
	s.router.Path("/openapi/v2").Handler(s.readable(func(w http.ResponseWriter, req *http.Request) {
		s.serveOpenAPI(w, req, documents.V2)
	}))
	s.router.Path("/openapi/v3").Handler(s.readable(func(w http.ResponseWriter, _ *http.Request) {
		if answered := answerETag(recordOf(w), documents.IndexETag); !answered {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(documents.Index) // a client that has gone needs no answer
		}
	}))
	s.router.Path("/openapi/v3/{name:.+}").Handler(s.readable(func(w http.ResponseWriter, req *http.Request) {
		s.serveOpenAPIV3(w, req, documents.V3[mux.Vars(req)["name"]])
	}))
	return nil
}

// readable guards a handler that is no resource's and can only be read from.
func (s *Server) readable(next http.HandlerFunc) http.Handler {
	return s.authorised(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			s.renderError(recordOf(w), methodNotAllowed())
			return
		}
		next(w, req)
	}))
}

// serveOpenAPIV3 serves a document, nil where there is none of the name. With another
// version's hash the client is sent to what there is now.
func (s *Server) serveOpenAPIV3(w http.ResponseWriter, req *http.Request, document *discovery.OpenAPIDocument) {
	if document == nil {
		s.renderError(recordOf(w), pathNotFound())
		return
	}
	switch req.URL.Query().Get("hash") {
	case "":
	case document.Hash:
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	default:
		http.Redirect(w, req, document.Address(), http.StatusMovedPermanently)
		return
	}
	s.serveOpenAPI(w, req, document)
}

// serveOpenAPI answers with a document in the form that the client accepts, compressed or
// not.
func (s *Server) serveOpenAPI(w http.ResponseWriter, req *http.Request, document *discovery.OpenAPIDocument) {
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	data, mediaType := document.Accepted(req.Header.Get("Accept"))
	if data == nil {
		s.renderError(recordOf(w), errNoSuchOpenAPI)
		return
	}
	if answered := answerETag(recordOf(w), document.ETag()); answered {
		return
	}
	w.Header().Set("Content-Type", mediaType)
	if media.AcceptsGzip(req) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data) // a client that has gone needs no answer
		return
	}
	err := discovery.Decompress(w, data)
	if rec := recordOf(w); err != nil && rec.writeErr == nil {
		panic(err) // the document is damaged
	}
}

// errNoSuchOpenAPI is the answer where Accept names no form of a document.
var errNoSuchOpenAPI = media.NotAcceptable([]string{runtime.ContentTypeJSON, discovery.OpenAPIV2Protobuf, discovery.OpenAPIV3Protobuf})
