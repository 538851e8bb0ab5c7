package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/common"
)

var (
	objectTypes = []string{runtime.ContentTypeJSON, runtime.ContentTypeYAML, runtime.ContentTypeProtobuf}
	watchTypes  = []string{runtime.ContentTypeJSON, runtime.ContentTypeJSON + ";stream=watch", runtime.ContentTypeProtobuf + ";stream=watch"}
	listTypes   = []string{
		runtime.ContentTypeJSON, runtime.ContentTypeYAML, runtime.ContentTypeProtobuf,
		runtime.ContentTypeJSON + ";stream=watch", runtime.ContentTypeProtobuf + ";stream=watch",
	}
	patchTypes = []string{
		string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType), string(types.ApplyYAMLPatchType),
	}
)

// partsOf describes the API: discovery, the version, and the resources of each group and
// version.
func partsOf(served []groupVersion) ([]*part, error) {
	read := func(path, id, tag, doc string, produces []string, model any) common.Route {
		return &route{
			path: path, method: http.MethodGet, id: id, tag: tag, doc: doc, produces: produces,
			answers: append(failures(), answer{http.StatusOK, model}),
		}
	}
	parts := []*part{
		{root: "/api", routes: []common.Route{
			read("/api/", "getCoreAPIVersions", "core", "get available API versions", objectTypes, metav1.APIVersions{}),
		}},
		{root: "/apis", routes: []common.Route{
			read("/apis/", "getAPIVersions", "apis", "get available API versions", objectTypes, metav1.APIGroupList{}),
		}},
		{root: "/version", routes: []common.Route{&route{
			path: "/version", method: http.MethodGet, id: "getCodeVersion", tag: "version", doc: "get the version of the server",
			produces: objectTypes[:1], answers: []common.StatusCodeResponse{answer{http.StatusOK, version.Info{}}},
		}}},
	}
	for _, gv := range served {
		root, group := "/api/"+gv.Version, "core"
		if gv.Group != "" {
			root, group = "/apis/"+gv.Group+"/"+gv.Version, gv.Group
			path := "/apis/" + gv.Group
			if !slices.ContainsFunc(parts, func(p *part) bool { return p.root == path }) {
				parts = append(parts, &part{root: path, routes: []common.Route{
					read(path+"/", "get"+title(group)+"APIGroup", tagOf(group), "get information of a group", objectTypes, metav1.APIGroup{}),
				}})
			}
		}
		d := describer{root: root, gv: gv.GroupVersion, infix: title(group) + title(gv.Version), tag: tagOf(group) + "_" + gv.Version}
		p := &part{root: root, gv: gv.GroupVersion, routes: []common.Route{
			read(root+"/", "get"+d.infix+"APIResources", d.tag, "get available resources", objectTypes, metav1.APIResourceList{}),
		}}
		for _, resource := range gv.resources {
			routes, err := d.routesOf(resource, gv.returned[resource.Name])
			if err != nil {
				return nil, err
			}
			p.routes = append(p.routes, routes...)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// tagOf returns the tag of a group's operations, such as networking or rbacAuthorization.
func tagOf(group string) string {
	name := title(group)
	return strings.ToLower(name[:1]) + name[1:]
}

// describer describes the resources of a group and version.
type describer struct {
	root  string
	gv    schema.GroupVersion
	infix string // of operation IDs
	tag   string
}

// described is a resource with what its routes share.
type described struct {
	describer
	metav1.APIResource
	one          string // the object or the part of it that the routes are about, in words
	object, list any
	deleted      any // what a deletion is answered with
	kind         schema.GroupVersionKind
	routes       []common.Route
}

// routesOf returns the routes of a resource according to its verbs.
func (d describer) routesOf(resource metav1.APIResource, returned bool) ([]common.Route, error) {
	kind := d.gv.WithKind(resource.Kind)
	model, err := scheme.Scheme.New(kind)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", resource.Name, err)
	}
	var list any
	if slices.Contains(resource.Verbs, "list") {
		if list, err = scheme.Scheme.New(d.gv.WithKind(resource.Kind + "List")); err != nil {
			return nil, fmt.Errorf("%s: %w", resource.Name, err)
		}
	}
	r := &described{describer: d, APIResource: resource, object: model, list: list, deleted: metav1.Status{}, kind: kind}
	if returned {
		r.deleted = model
	}
	name, below, _ := strings.Cut(resource.Name, "/")
	flat, named, id := "/"+name, []common.Parameter(nil), resource.Kind
	if resource.Namespaced {
		named = append(named, inPath("namespace", "object name and auth scope, such as for teams and projects"))
		if slices.Contains(resource.Verbs, "list") {
			r.add(r.listRoute("list"+d.infix+id+"ForAllNamespaces", flat), nil)
		}
		if slices.Contains(resource.Verbs, "watch") {
			r.add(r.watchRoute("watch"+d.infix+id+"ListForAllNamespaces", flat, "watchlist"), nil)
		}
		flat, id = "/namespaces/{namespace}"+flat, "Namespaced"+id
	}
	object := flat + "/{name}"
	r.one = "the specified " + resource.Kind
	if below == "" {
		r.collectionRoutes(flat, id, named)
	} else {
		object, id, r.one = object+"/"+below, id+title(below), below+" of "+r.one
	}
	r.objectRoutes(object, id, append(slices.Clip(named), inPath("name", "name of the "+resource.Kind)))
	return r.routes, nil
}

// add adds a route and sets what all routes share.
func (r *described) add(one *route, path []common.Parameter) {
	one.path = r.root + one.path
	one.tag, one.kind = r.tag, r.kind
	one.parameters = slices.Concat(one.parameters, path, commonParameters)
	if one.body != nil {
		one.parameters = append(one.parameters, bodyParameter{optional: one.method == http.MethodDelete})
	}
	r.routes = append(r.routes, one)
}

// with returns the responses of a request that succeeds with the model and one of the codes,
// or fails.
func with(failed []common.StatusCodeResponse, model any, codes ...int) []common.StatusCodeResponse {
	for _, code := range codes {
		failed = append(failed, answer{code, model})
	}
	return failed
}

// readFailures and writeFailures return a resource's own failures, in addition to those of
// every request.
func readFailures(codes ...int) []common.StatusCodeResponse {
	return failures(append(codes, http.StatusBadRequest, http.StatusServiceUnavailable, http.StatusGatewayTimeout)...)
}

func writeFailures(codes ...int) []common.StatusCodeResponse {
	return readFailures(append(codes, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity)...)
}
