package server

import (
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/server/discovery"
	"github.com/berth-project/berth/pkg/server/feeds"
	"github.com/berth-project/berth/pkg/server/media"
	"github.com/berth-project/berth/pkg/server/requestinfo"
)

// routeDocuments serves the documents by which clients learn what the server serves.
func (s *Server) routeDocuments(described []metav1.APIResource) error {
	documents, err := discovery.Documents(described)
	if err != nil {
		return err
	}
	for _, document := range documents {
		s.routeDocument(document)
		if document.Path != discovery.Groups { // below which kube-apiserver knows only the groups
			s.prefixes = append(s.prefixes, document.Path+"/")
		}
	}
	return s.routeOpenAPI()
}

func (s *Server) routeDocument(document discovery.Document) {
	s.router.Path(document.Path + finalSlashes).HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.serveDocument(recordOf(w), req, document)
	})
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
	encode := func(*http.Request) []byte { return encoded }
	if s.cfg.Identity != nil {
		encode = func(req *http.Request) []byte { return s.cfg.Identity.Index(req, slices.Clone(index.Paths)) }
	}
	page, err := discovery.Page(s.cfg.Version.GitVersion)
	if err != nil {
		return err
	}
	s.router.Path("/").HandlerFunc(root(encode, page))
	return nil
}

// asksForPage reports whether a browser asks for the page, which has no token.
func asksForPage(req *http.Request) bool {
	return req.URL.Path == "/" && isReadOnly(req) && strings.Contains(req.Header.Get("Accept"), "text/html")
}

// root answers programs with the index, and browsers with the page.
func root(index func(*http.Request) []byte, page []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		header := w.Header()
		header.Set("Vary", "Accept")
		if asksForPage(req) {
			recordOf(w).handler = "/" + pageProbe
			header.Set("Content-Type", "text/html; charset=utf-8")
			header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
			_, _ = w.Write(page) // a client that has gone needs no answer
			return
		}
		header.Set("Content-Type", "application/json")
		_, _ = w.Write(index(req)) // a client that has gone needs no answer
	}
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
	if !hasVersion(rec.req, etag) {
		return false
	}
	rec.WriteHeader(http.StatusNotModified)
	return true
}

// hasVersion reports whether the client has the version of the entity tag already.
func hasVersion(req *http.Request, etag string) bool {
	for candidate := range strings.SplitSeq(strings.Join(req.Header["If-None-Match"], ","), ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}

// routeFeed serves the endpoints as the targets of Prometheus' HTTP service discovery.
func (s *Server) routeFeed(endpoints served) {
	endpoints.codecs = s.codecs.MadeJSON()
	s.router.Path(requestinfo.PrometheusFeed).Handler(s.readable(func(w http.ResponseWriter, _ *http.Request) {
		s.serve(recordOf(w), &endpoints, (*Server).feed)
	}))
}

// feed answers with the targets of a list, which is what the request's attributes are of. A client
// that has them already pays for the list alone.
func (s *Server) feed(c *call) (result, error) {
	query, err := feeds.ParseQuery(c.req.URL.RawQuery)
	if err != nil {
		return result{}, apierrors.NewBadRequest(err.Error())
	}
	if err := s.begin(c, 0); err != nil {
		return result{}, err
	}
	c.namespace = c.rec.attrs.Namespace
	list, err := s.listed(c, &query.List)
	if err != nil {
		return result{}, err
	}
	res := result{code: http.StatusOK, list: list, etag: query.ETag(list.Objects)}
	if hasVersion(c.req, res.etag) {
		res.code = http.StatusNotModified
		return res, nil
	}
	if err := s.beginObjects(c, list.Objects); err != nil {
		return res, err
	}
	if res.feed, err = query.Feed(c.ctx, list.Objects); err != nil {
		if timedOut := c.timedOut("while the targets were being collected"); timedOut != nil {
			err = timedOut
		}
		return res, err
	}
	c.warn(res.feed.Omitted...)
	beyond := max(0, res.feed.Size()-c.output.Work(res.size())) // what is charged for the objects
	return res, s.chargeWeight(c, beyond/readBytes, "the size of its answer")
}

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
		recordOf(w).count("openapi/v3")
		if answered := answerETag(recordOf(w), documents.IndexETag); !answered {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(documents.Index) // a client that has gone needs no answer
		}
	}))
	s.router.Path("/openapi/v3/{name:.+}").Handler(s.readable(func(w http.ResponseWriter, req *http.Request) {
		recordOf(w).count("openapi/v3")
		s.serveOpenAPIV3(w, req, documents.V3[mux.Vars(req)["name"]])
	}))
	return nil
}

// readable guards a handler that is no resource's and can only be read from.
func (s *Server) readable(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			s.renderError(recordOf(w), methodNotAllowed())
			return
		}
		next(w, req)
	})
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
