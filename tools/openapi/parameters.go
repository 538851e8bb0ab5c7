package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/kube-openapi/pkg/common"
)

// parameter implements common.Parameter.
type parameter struct {
	name, doc, dataType string
	kind                common.ParameterKind
}

func (p parameter) Name() string               { return p.name }
func (p parameter) Description() string        { return p.doc }
func (p parameter) Required() bool             { return p.kind != common.QueryParameterKind }
func (p parameter) Kind() common.ParameterKind { return p.kind }
func (p parameter) DataType() string           { return p.dataType }
func (p parameter) AllowMultiple() bool        { return false }

func inPath(name, doc string) parameter {
	return parameter{name: name, doc: doc, dataType: "string", kind: common.PathParameterKind}
}

func inQuery(name, dataType, doc string) parameter {
	return parameter{name: name, doc: doc, dataType: dataType, kind: common.QueryParameterKind}
}

// bodyParameter is the body, which is optional in a delete request.
type bodyParameter struct{ optional bool }

func (b bodyParameter) Name() string               { return "body" }
func (b bodyParameter) Description() string        { return "" }
func (b bodyParameter) Required() bool             { return !b.optional }
func (b bodyParameter) Kind() common.ParameterKind { return common.BodyParameterKind }
func (b bodyParameter) DataType() string           { return "" }
func (b bodyParameter) AllowMultiple() bool        { return false }

// commonParameters apply to every request to a resource.
var commonParameters = []common.Parameter{
	inQuery("pretty", "string", "Whether JSON is indented. Defaults to 'true' for curl, Wget and browsers, and to 'false' for all other clients."),
	inQuery("timeout", "string", "How long the server may take for the answer, as a number with a unit, such as 10s. It is bounded by the server's own limit, which is the default."),
}

// documented is an options type with documented fields.
type documented interface{ SwaggerDoc() map[string]string }

// unserved are options that the server ignores in a query: preconditions are only possible in
// a body, and the others belong to features that it does not have.
var unserved = []string{"preconditions", "ignoreStoreReadErrorWithClusterBreakingPotential", "shardSelector"}

// optionParameters returns the fields of an options type that can be query parameters, except
// those in leftOut.
func optionParameters(options documented, leftOut ...string) []common.Parameter {
	var parameters []common.Parameter
	docs := options.SwaggerDoc()
	for _, field := range reflect.VisibleFields(reflect.TypeOf(options)) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Anonymous || len(field.Index) > 1 || name == "" || slices.Contains(unserved, name) || slices.Contains(leftOut, name) {
			continue
		}
		parameters = append(parameters, inQuery(name, dataType(field.Type), docs[name]))
	}
	return parameters
}

// dataType returns OpenAPI's name for the type of a parameter. It panics for a type that no
// parameter can have.
func dataType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return dataType(t.Elem())
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int64:
		return "integer"
	}
	panic(fmt.Sprintf("a parameter of type %s", t))
}
