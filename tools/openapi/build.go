package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/schemamutation"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// groupVersion is a group and version with the resources that the server serves in it.
type groupVersion struct {
	schema.GroupVersion
	resources []metav1.APIResource
	// returned are the names of those whose deletion is answered with the object.
	returned map[string]bool
}

// build returns the documents by file name: the whole API in OpenAPI v2, and each part of it
// in v3, as JSON and as protobuf.
func build(served []groupVersion, version string) (map[string][]byte, error) {
	parts, err := partsOf(served)
	if err != nil {
		return nil, err
	}
	documents := make(map[string][]byte)
	v2, err := buildV2(parts, version, served)
	if err != nil {
		return nil, err
	}
	if err := add(documents, "v2", v2, func(data []byte) (proto.Message, error) { return openapiv2.ParseDocument(data) }); err != nil {
		return nil, err
	}
	for _, part := range parts {
		v3, err := buildV3(part, version)
		if err != nil {
			return nil, err
		}
		if err := add(documents, "v3"+part.root, v3, func(data []byte) (proto.Message, error) { return openapiv3.ParseDocument(data) }); err != nil {
			return nil, err
		}
	}
	return documents, nil
}

// add encodes a document as JSON and protobuf. JSON is normalized, so that the same document
// always results in the same files.
func add(documents map[string][]byte, name string, document any, parse func([]byte) (proto.Message, error)) error {
	data, err := json.Marshal(document)
	if err != nil {
		return err
	}
	var sorted any
	if err := json.Unmarshal(data, &sorted); err != nil {
		return err
	}
	if data, err = json.Marshal(sorted); err != nil {
		return err
	}
	message, err := parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	documents[name+".json.gz"] = data
	documents[name+".pb.gz"], err = proto.MarshalOptions{Deterministic: true}.Marshal(message)
	return err
}

func buildV2(parts []*part, version string, served []groupVersion) (*spec.Swagger, error) {
	var containers []common.RouteContainer
	for _, part := range parts {
		containers = append(containers, part)
	}
	kinds := make(map[schema.GroupVersion]bool)
	for _, gv := range served {
		kinds[gv.GroupVersion] = true
	}
	document, err := builder.BuildOpenAPISpecFromRoutes(containers, &common.Config{
		Info:                           info(version),
		GetDefinitions:                 GetOpenAPIDefinitions,
		GetDefinitionName:              definitionNamer(kinds),
		GetOperationIDAndTagsFromRoute: operationIDAndTags,
		SecurityDefinitions: &spec.SecurityDefinitions{
			"BearerToken": {SecuritySchemeProps: spec.SecuritySchemeProps{
				Type: "apiKey", In: "header", Name: "authorization", Description: bearerToken,
			}},
			"AuthToken": {SecuritySchemeProps: spec.SecuritySchemeProps{
				Type: "apiKey", In: "header", Name: "X-Auth-Token", Description: authToken,
			}},
		},
		DefaultSecurity: security,
	})
	if err != nil {
		return nil, err
	}
	// Readers of v2 take a default for a value set by the client. kube-apiserver has defaults
	// only in v3, too.
	for name, definition := range document.Definitions {
		document.Definitions[name] = *withoutDefaults.WalkSchema(&definition)
	}
	return document, nil
}

// withoutDefaults removes the defaults from a schema.
var withoutDefaults = schemamutation.Walker{
	SchemaCallback: func(schema *spec.Schema) *spec.Schema {
		if schema.Default == nil {
			return schema
		}
		changed := *schema
		changed.Default = nil
		return &changed
	},
	RefCallback: schemamutation.RefCallbackNoop,
}

func buildV3(part *part, version string) (*spec3.OpenAPI, error) {
	document, err := builder3.BuildOpenAPISpecFromRoutes([]common.RouteContainer{part}, &common.OpenAPIV3Config{
		Info:                           info(version),
		GetDefinitions:                 GetOpenAPIDefinitions,
		GetDefinitionName:              definitionNamer(map[schema.GroupVersion]bool{part.gv: true, {Version: "v1"}: true}),
		GetOperationIDAndTagsFromRoute: operationIDAndTags,
		SecuritySchemes: spec3.SecuritySchemes{
			"BearerToken": {SecuritySchemeProps: spec3.SecuritySchemeProps{
				Type: "http", Scheme: "bearer", Description: bearerToken,
			}},
			"AuthToken": {SecuritySchemeProps: spec3.SecuritySchemeProps{
				Type: "apiKey", In: "header", Name: "X-Auth-Token", Description: authToken,
			}},
		},
	})
	if err != nil {
		return nil, err
	}
	document.SecurityRequirement = security
	return document, nil
}

const (
	bearerToken = "A token, after the word Bearer"
	authToken   = "A token"
)

// security is how a request authenticates: with either header.
var security = []map[string][]string{{"BearerToken": {}}, {"AuthToken": {}}}

func info(version string) *spec.Info {
	return &spec.Info{InfoProps: spec.InfoProps{Title: "Berth", Version: version}}
}

// definitionNamer names types, and returns the kinds of the group versions that each type is.
// Types that are kinds of every group get those of these group versions only.
func definitionNamer(served map[schema.GroupVersion]bool) func(string) (string, spec.Extensions) {
	kinds := make(map[string][]any)
	known := slices.Collect(maps.Keys(scheme.Scheme.AllKnownTypes()))
	slices.SortFunc(known, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	for _, gvk := range known {
		if !served[gvk.GroupVersion()] {
			continue
		}
		obj, err := scheme.Scheme.New(gvk)
		if err != nil {
			continue // not a kind of this group version
		}
		name := util.GetCanonicalTypeName(obj)
		kinds[name] = append(kinds[name], map[string]any{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind})
	}
	return func(name string) (string, spec.Extensions) {
		if of := kinds[name]; of != nil {
			return name, spec.Extensions{"x-kubernetes-group-version-kind": of}
		}
		return name, nil
	}
}
