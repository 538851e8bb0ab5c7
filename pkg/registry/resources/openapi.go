package resources

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/berth-project/berth/pkg/registry/ownership"
)

// The documents are made from the list of resources and from the documentation of their Go
// types, so that nothing needs to be parsed or kept in memory at run time: they are served as
// they are embedded.
//
//go:generate ../../../tools/openapi/generate.sh

//go:embed openapi
var documents embed.FS

// OpenAPI returns the OpenAPI documents, compressed: v2, and v3/<path> for each group and
// version, each as JSON (.json.gz) and in protobuf's form (.pb.gz).
func OpenAPI() fs.FS {
	files, err := fs.Sub(documents, "openapi")
	if err != nil {
		panic(err) // the path is well-formed
	}
	return files
}

// TypeConverter returns the schemas by which the fields of all resources are owned. It is
// shared; the documents are read when it is first used.
var TypeConverter = sync.OnceValue(func() managedfields.TypeConverter {
	return ownership.NewTypeConverter(func() (map[string]*spec.Schema, error) { return schemasIn(OpenAPI()) })
})

// schemasIn puts the schemas of all documents of OpenAPI v3 together, by the names of their
// types. A type that several documents have is of all the kinds that they tell: each tells
// those of its own group.
func schemasIn(files fs.FS) (map[string]*spec.Schema, error) {
	const kinds = "x-kubernetes-group-version-kind"
	all := make(map[string]*spec.Schema)
	err := fs.WalkDir(files, "v3", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".json.gz") {
			return err
		}
		schemas, err := schemasOf(files, path)
		if err != nil {
			return fmt.Errorf("the OpenAPI document %s: %w", path, err)
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
		return nil
	})
	return all, err
}

// schemasOf returns the schemas of one document by name.
func schemasOf(files fs.FS, path string) (map[string]*spec.Schema, error) {
	compressed, err := fs.ReadFile(files, path)
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(compressed))
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
