package main

import (
	"net/http"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/common"
)

// ofWatches are the options of a list that only apply to watches.
var ofWatches = []string{"watch", "allowWatchBookmarks", "sendInitialEvents"}

func (r *described) collectionRoutes(path, id string, named []common.Parameter) {
	if slices.Contains(r.Verbs, "list") {
		r.add(r.listRoute("list"+r.infix+id, path), named)
	}
	if slices.Contains(r.Verbs, "watch") {
		r.add(r.watchRoute("watch"+r.infix+id+"List", path, "watchlist"), named)
	}
	if slices.Contains(r.Verbs, "create") {
		failed := writeFailures(http.StatusConflict)
		if r.Namespaced {
			failed = writeFailures(http.StatusConflict, http.StatusNotFound) // the namespace
		}
		r.add(&route{
			path: path, method: http.MethodPost, id: "create" + r.infix + id, action: "post", doc: "create " + article(r.Kind),
			parameters: optionParameters(metav1.CreateOptions{}),
			consumes:   objectTypes, body: r.object, produces: objectTypes,
			answers: with(failed, r.object, http.StatusCreated),
		}, named)
	}
	if slices.Contains(r.Verbs, "deletecollection") {
		list := optionParameters(metav1.ListOptions{}, ofWatches...)
		r.add(&route{
			path: path, method: http.MethodDelete, id: "delete" + r.infix + "Collection" + id, action: "deletecollection",
			doc:        "delete collection of " + r.Kind,
			parameters: append(list, optionParameters(metav1.DeleteOptions{})...),
			consumes:   objectTypes, body: metav1.DeleteOptions{}, produces: objectTypes,
			answers: with(writeFailures(http.StatusConflict, http.StatusGone), r.list, http.StatusOK),
		}, named)
	}
}

func (r *described) objectRoutes(path, id string, named []common.Parameter) {
	if slices.Contains(r.Verbs, "get") {
		r.add(&route{
			path: path, method: http.MethodGet, id: "read" + r.infix + id, action: "get", doc: "read " + r.one,
			parameters: optionParameters(metav1.GetOptions{}),
			produces:   objectTypes,
			answers:    with(readFailures(http.StatusNotFound), r.object, http.StatusOK),
		}, named)
	}
	if slices.Contains(r.Verbs, "watch") {
		r.add(r.watchRoute("watch"+r.infix+id, path, "watch"), named)
	}
	if slices.Contains(r.Verbs, "update") {
		r.add(&route{
			path: path, method: http.MethodPut, id: "replace" + r.infix + id, action: "put", doc: "replace " + r.one,
			parameters: optionParameters(metav1.UpdateOptions{}),
			consumes:   objectTypes, body: r.object, produces: objectTypes,
			answers: with(writeFailures(http.StatusNotFound, http.StatusConflict), r.object, http.StatusOK, http.StatusCreated),
		}, named)
	}
	if slices.Contains(r.Verbs, "patch") {
		r.add(&route{
			path: path, method: http.MethodPatch, id: "patch" + r.infix + id, action: "patch", doc: "partially update " + r.one,
			parameters: optionParameters(metav1.PatchOptions{}),
			consumes:   patchTypes, body: metav1.Patch{}, produces: objectTypes,
			answers: with(writeFailures(http.StatusNotFound, http.StatusConflict), r.object, http.StatusOK, http.StatusCreated),
		}, named)
	}
	if slices.Contains(r.Verbs, "delete") {
		r.add(&route{
			path: path, method: http.MethodDelete, id: "delete" + r.infix + id, action: "delete", doc: "delete " + article(r.Kind),
			parameters: optionParameters(metav1.DeleteOptions{}),
			consumes:   objectTypes, body: metav1.DeleteOptions{}, produces: objectTypes,
			answers: with(writeFailures(http.StatusNotFound, http.StatusConflict), r.deleted, http.StatusOK),
		}, named)
	}
}

func (r *described) listRoute(id, path string) *route {
	one := &route{
		path: path, method: http.MethodGet, id: id, action: "list", doc: "list or watch objects of kind " + r.Kind,
		parameters: optionParameters(metav1.ListOptions{}), produces: listTypes,
		answers: with(readFailures(http.StatusGone), r.list, http.StatusOK),
	}
	if !slices.Contains(r.Verbs, "watch") {
		one.doc, one.produces = "list objects of kind "+r.Kind, objectTypes
		one.parameters = optionParameters(metav1.ListOptions{}, ofWatches...)
	}
	return one
}

// watchRoute returns the older form of a watch, which has its own path.
func (r *described) watchRoute(id, path, action string) *route {
	doc := "watch individual changes to a list of " + r.Kind + ". deprecated: use the 'watch' parameter with a list operation instead."
	if action == "watch" {
		doc = "watch changes to an object of kind " + r.Kind + ". deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter."
	}
	return &route{
		path: "/watch" + path, method: http.MethodGet, id: id, action: action, doc: doc,
		parameters: optionParameters(metav1.ListOptions{}), produces: watchTypes,
		answers: with(readFailures(http.StatusGone), metav1.WatchEvent{}, http.StatusOK),
	}
}

// article adds an article to a singular kind.
func article(kind string) string {
	switch {
	case kind[len(kind)-1] == 's':
		return kind
	case slices.Contains([]byte("AEIOU"), kind[0]):
		return "an " + kind
	}
	return "a " + kind
}
