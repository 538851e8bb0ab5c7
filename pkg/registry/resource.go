// Package registry gives stored bytes their meaning: it knows objects, their defaults,
// rules, owners and versions. One generic Store serves every resource; what a resource
// does differently is its Strategy.
package registry

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Resource describes one kind of object that the registry serves.
type Resource struct {
	// API is the resource as discovery shows it. Group (empty for the core group),
	// Version, Kind, Name and Namespaced are what the registry goes by.
	API metav1.APIResource
	// New and NewList return empty objects of the resource's Go types.
	New     func() runtime.Object
	NewList func() runtime.Object
	// DecodePlainJSON decodes JSON into an empty object of New's type, and reports whether
	// it did: the object is then what sigs.k8s.io/json makes of it, strictly and without a
	// fault. Of what is faulty, or merely unusual, the object stays empty. It keeps nothing
	// of data; the object's strings may keep all of a copy, so it is not for objects that
	// outlive a request. nil: everything is unusual.
	DecodePlainJSON func(data []byte, obj runtime.Object) bool
	// EncodeJSON returns what encoding/json makes of an object of New's type, byte for byte,
	// and fails where that does; nil: encoding/json does it.
	EncodeJSON func(obj runtime.Object) ([]byte, error)
	// Strategy is what the resource does differently from others.
	Strategy Strategy
	// BeforeDelete prepares an object for its deletion, or refuses it by an error; nil does
	// neither.
	BeforeDelete func(obj runtime.Object) error
	// Holds says whether something other than its finalizers keeps a deleted object from
	// being removed; nil: nothing does.
	Holds func(obj runtime.Object) bool
	// Atomic are the top-level fields besides metadata, where every one of them is owned as
	// a whole; nil where that is not so.
	Atomic []AtomicField
	// Columns and Cells are the resource's table, as kubectl get shows it. Cells gets an
	// object of New's type.
	Columns []metav1.TableColumnDefinition
	Cells   func(obj runtime.Object) []any
}

// Namespaces is the name of the resource in which all namespaced objects live.
const Namespaces = "namespaces"

// GroupVersionKind is the kind of the resource's objects.
func (r *Resource) GroupVersionKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.API.Group, Version: r.API.Version, Kind: r.API.Kind}
}

// GroupResource names the resource in messages.
func (r *Resource) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.API.Group, Resource: r.API.Name}
}

// prefix is where the resource's keys begin, a final slash included.
func (r *Resource) prefix(namespace string) string {
	prefix := "/registry/" + r.API.Name + "/"
	if r.API.Namespaced && namespace != "" {
		prefix += namespace + "/"
	}
	return prefix
}

// key is where an object is stored: /registry/<resource>/[<namespace>/]<name>.
func (r *Resource) key(namespace, name string) string {
	return r.prefix(namespace) + name
}

// place is the namespace and the name that a key stands for, as they are in the key: what
// another program wrote there need not be valid.
func (r *Resource) place(key string) (namespace, name string) {
	rest := strings.TrimPrefix(key, r.prefix(""))
	if !r.API.Namespaced {
		return "", rest
	}
	namespace, name, ok := strings.Cut(rest, "/")
	if !ok {
		return "", namespace
	}
	return namespace, name
}

// selfLink is the object's path, or with an empty name its collection's.
func (r *Resource) selfLink(namespace, name string) string {
	root := "/api/"
	if r.API.Group != "" {
		root = "/apis/" + r.API.Group + "/"
	}
	link := root + r.API.Version + "/"
	if r.API.Namespaced && namespace != "" {
		link += "namespaces/" + namespace + "/"
	}
	link += r.API.Name
	if name != "" {
		link += "/" + name
	}
	return link
}
