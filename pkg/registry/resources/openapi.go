package resources

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/berth-project/berth/pkg/registry/ownership"
	"github.com/berth-project/berth/pkg/registry/reviews"
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

// TypeConverter returns the schemas by which the fields of all resources that have objects are
// owned, and of the reviews. It is shared; the documents are read when it is first used.
var TypeConverter = sync.OnceValue(func() managedfields.TypeConverter {
	return ownership.NewTypeConverter(func() (map[string]*spec.Schema, error) {
		roots, err := owned()
		if err != nil {
			return nil, err
		}
		return schemasIn(OpenAPI(), roots)
	})
})

// owned returns the names of the types whose fields are owned.
func owned() ([]string, error) {
	var kinds []schema.GroupVersionKind
	for _, resource := range All() {
		if resource.NoObjects == "" {
			kinds = append(kinds, resource.GroupVersionKind())
		}
	}
	for _, review := range reviews.APIResources() {
		kinds = append(kinds, schema.GroupVersionKind{Group: review.Group, Version: review.Version, Kind: review.Kind})
	}
	var names []string
	for _, kind := range kinds {
		obj, err := Scheme().New(kind)
		if err != nil {
			return nil, err
		}
		names = append(names, util.GetCanonicalTypeName(obj))
	}
	return names, nil
}

// schemasIn returns the schemas of the types that are named, and of all that they are made of, by
// name, out of the documents of OpenAPI v3: others, such as that of a pod, take many times as
// much. A type that several documents have is of all the kinds that they tell: each tells those of
// its own group.
func schemasIn(files fs.FS, names []string) (map[string]*spec.Schema, error) {
	const kinds = "x-kubernetes-group-version-kind"
	all := make(map[string]*spec.Schema)
	err := fs.WalkDir(files, "v3", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".json.gz") {
			return err
		}
		schemas, err := schemasOf(files, path, names)
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

var reference = regexp.MustCompile(`"#/components/schemas/([^"]+)"`)

// schemasOf returns the schemas of one document that schemasIn asks for.
func schemasOf(files fs.FS, path string, names []string) (map[string]*spec.Schema, error) {
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
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.NewDecoder(r).Decode(&document); err != nil {
		return nil, err
	}
	found := map[string]*spec.Schema{}
	for wanted := slices.Clone(names); len(wanted) > 0; {
		name := wanted[len(wanted)-1]
		wanted = wanted[:len(wanted)-1]
		data := document.Components.Schemas[name]
		if data == nil || found[name] != nil {
			continue
		}
		found[name] = &spec.Schema{}
		if err := json.Unmarshal(data, found[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, match := range reference.FindAllSubmatch(data, -1) {
			wanted = append(wanted, string(match[1]))
		}
	}
	return found, nil
}
