package discovery

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"strings"

	"github.com/munnerz/goautoneg"
)

// The media types of protobuf's form of OpenAPI documents.
const (
	OpenAPIV2Protobuf = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	OpenAPIV3Protobuf = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

const openAPIJSON = "application/json"

// OpenAPI is what is served of OpenAPI: v2 as one document, and v3 as an index of one
// document for each group and version.
type OpenAPI struct {
	V2 *OpenAPIDocument
	// V3 are the documents by their paths, such as api/v1.
	V3 map[string]*OpenAPIDocument
	// Index is the JSON of v3's index, and IndexETag its entity tag. It gives the addresses of
	// the documents with their hashes, so that clients may keep what they have fetched from
	// there for ever.
	Index     []byte
	IndexETag string
}

// OpenAPIDocument is one document in its forms, each compressed.
type OpenAPIDocument struct {
	// Hash changes whenever the document does.
	Hash string

	address     string // with the hash; "": there is none
	json, proto []byte
	protoType   string // the protobuf form's media type
}

// LoadOpenAPI reads the documents: v2, and v3/<path> for each group and version, each as
// compressed JSON (.json.gz) and in protobuf's form (.pb.gz).
func LoadOpenAPI(files fs.FS) (*OpenAPI, error) {
	v2, err := loadOpenAPI(files, "v2", OpenAPIV2Protobuf)
	if err != nil {
		return nil, err
	}
	type address struct {
		ServerRelativeURL string `json:"serverRelativeURL"`
	}
	all := &OpenAPI{V2: v2, V3: make(map[string]*OpenAPIDocument)}
	index := struct {
		Paths map[string]address `json:"paths"`
	}{make(map[string]address)}
	err = fs.WalkDir(files, "v3", func(path string, _ fs.DirEntry, err error) error {
		path, isDocument := strings.CutSuffix(path, ".json.gz")
		if err != nil || !isDocument {
			return err
		}
		document, err := loadOpenAPI(files, path, OpenAPIV3Protobuf)
		if err != nil {
			return err
		}
		document.address = "/openapi/" + path + "?" + url.Values{"hash": {document.Hash}}.Encode()
		name := strings.TrimPrefix(path, "v3/")
		all.V3[name], index.Paths[name] = document, address{document.address}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the OpenAPI documents: %w", err)
	}
	if all.Index, err = json.Marshal(index); err != nil {
		return nil, err
	}
	all.IndexETag = `"` + hashOf(all.Index) + `"`
	return all, nil
}

func loadOpenAPI(files fs.FS, path, protoType string) (*OpenAPIDocument, error) {
	document := &OpenAPIDocument{protoType: protoType}
	var err error
	if document.json, err = fs.ReadFile(files, path+".json.gz"); err != nil {
		return nil, err
	}
	if document.proto, err = fs.ReadFile(files, path+".pb.gz"); err != nil {
		return nil, err
	}
	document.Hash = hashOf(document.json)
	return document, nil
}

// hashOf is a hash in the form that kube-apiserver's entity tags have.
func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// Address is where a document of v3 can be had as it is now.
func (d *OpenAPIDocument) Address() string { return d.address }

// ETag is the document's entity tag.
func (d *OpenAPIDocument) ETag() string { return `"` + d.Hash + `"` }

// Accepted returns the document, compressed, in the form that an Accept header asks for, and
// that form's media type; nil: there is no such form. JSON is the default. Old clients put an
// @ into the media types of protobuf, which is not allowed there.
func (d *OpenAPIDocument) Accepted(accept string) (compressed []byte, mediaType string) {
	if accept == "" {
		return d.json, openAPIJSON
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		switch strings.Replace(clause.Type+"/"+clause.SubType, "@", ".", 1) {
		case openAPIJSON, "application/*", "*/*":
			return d.json, openAPIJSON
		case d.protoType:
			return d.proto, d.protoType
		}
	}
	return nil, ""
}

// Decompress writes what Accepted returned as it is without compression.
func Decompress(w io.Writer, compressed []byte) error {
	plain, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, plain)
	return err
}
