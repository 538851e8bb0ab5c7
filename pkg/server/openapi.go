package server

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/munnerz/goautoneg"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/berth-project/berth/pkg/server/media"
)

// The documents are made from the resources that the server serves and from the
// documentation of their Go types, so that nothing needs to be parsed or kept in memory at
// run time: they are served as they are embedded.
//
//go:generate ../../tools/openapi/generate.sh

// openAPIFiles are the documents, compressed: v2, and v3/<path> for each group and version,
// each as JSON and in protobuf's form.
//
//go:embed openapi
var openAPIFiles embed.FS

// openAPIDocument is one document in its forms, each compressed.
type openAPIDocument struct {
	json, proto []byte
	protoType   string // the protobuf form's media type
	hash        string // changes whenever the document does
}

// Schemas returns the schemas of the types of all groups and versions by name, as OpenAPI v3
// has them.
func Schemas() (map[string]*spec.Schema, error) { return schemasIn(openAPIFiles) }

// schemasIn puts the schemas of all documents of OpenAPI v3 together. A type that several of
// them have is of all the kinds that they tell: each tells those of its own group.
func schemasIn(files fs.FS) (map[string]*spec.Schema, error) {
	const kinds = "x-kubernetes-group-version-kind"
	all := make(map[string]*spec.Schema)
	for _, name := range openAPINames(files, "openapi/v3") {
		schemas, err := schemasOf(files, "openapi/v3/"+name+".json.gz")
		if err != nil {
			return nil, fmt.Errorf("the OpenAPI document %s: %w", name, err)
		}
		for name, s := range schemas {
			if known := all[name]; known != nil {
				before, _ := known.Extensions[kinds].([]any)
				more, _ := s.Extensions[kinds].([]any)
				if len(before) > 0 {
					s.AddExtension(kinds, append(before, more...))
				}
			}
			all[name] = s
		}
	}
	return all, nil
}

// schemasOf returns the schemas of one document by name.
func schemasOf(files fs.FS, path string) (map[string]*spec.Schema, error) {
	file, err := files.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	var document struct {
		Components struct {
			Schemas map[string]*spec.Schema `json:"schemas"`
		} `json:"components"`
	}
	err = json.NewDecoder(r).Decode(&document)
	return document.Components.Schemas, err
}

const (
	openAPIV2Proto = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	openAPIV3Proto = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// loadOpenAPI returns the document of that name. It panics where a form is missing: both
// are embedded.
func loadOpenAPI(name, protoType string) *openAPIDocument {
	read := func(suffix string) []byte {
		data, err := openAPIFiles.ReadFile("openapi/" + name + suffix)
		if err != nil {
			panic(err)
		}
		return data
	}
	doc := &openAPIDocument{json: read(".json.gz"), proto: read(".pb.gz"), protoType: protoType}
	sum := sha256.Sum256(doc.json)
	doc.hash = strings.ToUpper(hex.EncodeToString(sum[:]))
	return doc
}

// routeOpenAPI serves OpenAPI v2 as one document, and v3 as an index of one document for
// each group and version. The index gives their addresses with their hashes, so that
// clients may keep what they have fetched from there for ever.
func (s *Server) routeOpenAPI() {
	v2 := loadOpenAPI("v2", openAPIV2Proto)
	s.router.Path("/openapi/v2").Handler(s.readable(func(w http.ResponseWriter, req *http.Request) {
		s.serveOpenAPI(w, req, v2)
	}))

	type address struct {
		ServerRelativeURL string `json:"serverRelativeURL"`
	}
	documents := make(map[string]*openAPIDocument)
	index := struct {
		Paths map[string]address `json:"paths"`
	}{make(map[string]address)}
	for _, name := range openAPINames(openAPIFiles, "openapi/v3") {
		doc := loadOpenAPI("v3/"+name, openAPIV3Proto)
		documents[name] = doc
		index.Paths[name] = address{openAPIAddress(name, doc)}
	}
	encoded, err := json.Marshal(index)
	if err != nil {
		panic(err) // a map of strings
	}
	sum := sha256.Sum256(encoded)
	hash := strings.ToUpper(hex.EncodeToString(sum[:]))
	s.router.Path("/openapi/v3").Handler(s.readable(func(w http.ResponseWriter, req *http.Request) {
		if answered := answerETag(recordOf(w), `"`+hash+`"`); !answered {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(encoded) // a client that has gone needs no answer
		}
	}))
	s.router.Path("/openapi/v3/{name:.+}").Handler(s.readable(func(w http.ResponseWriter, req *http.Request) {
		s.serveOpenAPIV3(w, req, mux.Vars(req)["name"], documents)
	}))
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

// openAPINames are the documents in and below a folder, by their paths from there.
func openAPINames(files fs.FS, folder string) []string {
	entries, err := fs.ReadDir(files, folder)
	if err != nil {
		panic(err) // it is embedded
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			for _, name := range openAPINames(files, folder+"/"+entry.Name()) {
				names = append(names, path.Join(entry.Name(), name))
			}
		} else if name, ok := strings.CutSuffix(entry.Name(), ".json.gz"); ok {
			names = append(names, name)
		}
	}
	return names
}

// openAPIAddress is where a v3 document can be had as it is now.
func openAPIAddress(name string, doc *openAPIDocument) string {
	return "/openapi/v3/" + name + "?" + url.Values{"hash": {doc.hash}}.Encode()
}

// serveOpenAPIV3 serves the document of that name. With another version's hash the client
// is sent to what there is now.
func (s *Server) serveOpenAPIV3(w http.ResponseWriter, req *http.Request, name string, documents map[string]*openAPIDocument) {
	doc := documents[name]
	if doc == nil {
		s.renderError(recordOf(w), pathNotFound())
		return
	}
	switch req.URL.Query().Get("hash") {
	case "":
	case doc.hash:
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	default:
		http.Redirect(w, req, openAPIAddress(name, doc), http.StatusMovedPermanently)
		return
	}
	s.serveOpenAPI(w, req, doc)
}

// serveOpenAPI answers with a document in the form that the client accepts, compressed or
// not.
func (s *Server) serveOpenAPI(w http.ResponseWriter, req *http.Request, doc *openAPIDocument) {
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	data, contentType := doc.accepted(req.Header.Get("Accept"))
	if data == nil {
		s.renderError(recordOf(w), errNoSuchOpenAPI)
		return
	}
	if answered := answerETag(recordOf(w), `"`+doc.hash+`"`); answered {
		return
	}
	w.Header().Set("Content-Type", contentType)
	if media.AcceptsGzip(req) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data) // a client that has gone needs no answer
		return
	}
	plain, err := gzip.NewReader(bytes.NewReader(data))
	if err == nil {
		_, err = io.Copy(w, plain)
	}
	if rec := recordOf(w); err != nil && rec.writeErr == nil {
		panic(err) // what is embedded cannot be read
	}
}

// accepted returns the document in the form that an Accept header asks for, and that
// form's media type; nil: there is no such form. JSON is the default. Old clients put an @
// into the media types of protobuf, which is not allowed there.
func (d *openAPIDocument) accepted(accept string) (data []byte, contentType string) {
	if accept == "" {
		return d.json, "application/json"
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		switch strings.Replace(clause.Type+"/"+clause.SubType, "@", ".", 1) {
		case "application/json", "application/*", "*/*":
			return d.json, "application/json"
		case d.protoType:
			return d.proto, d.protoType
		}
	}
	return nil, ""
}

// errNoSuchOpenAPI is the answer where Accept names no form of a document.
var errNoSuchOpenAPI = &apierrors.StatusError{ErrStatus: metav1.Status{
	Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
	Message: "only the following media types are accepted: application/json, " + openAPIV2Proto + ", " + openAPIV3Proto,
}}
