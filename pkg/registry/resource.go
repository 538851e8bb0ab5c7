// Package registry gives stored bytes their meaning: it knows objects, their defaults,
// rules, owners and versions. One generic Store serves every resource; what a resource
// does differently is its Strategy.
package registry

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/storage"
)

// Resource describes one kind of object that the registry serves. Without a comment that
// says otherwise a field is required.
type Resource struct {
	// API is the resource as discovery shows it. Group (empty for the core group),
	// Version, Kind, Name and Namespaced are what the registry goes by.
	API metav1.APIResource
	// New and NewList return empty objects of the resource's Go types.
	New     func() runtime.Object
	NewList func() runtime.Object
	// Strategy is what the resource does differently from others.
	Strategy Strategy

	// Fields are the paths of the fields that selectors may name besides metadata.name and
	// metadata.namespace, as object.Type has them; nil: there are none.
	Fields []string
	// FieldSynonyms are further names of such fields; nil: there are none.
	FieldSynonyms map[string]string
	// Reset are the top-level fields, such as status, that the Strategy sets whatever a
	// client sends: clients do not become their owners.
	Reset []string
	// Subresources are served below every object; nil: there are none.
	Subresources []Subresource
	// RequireVersion refuses an update that does not name the resourceVersion that it
	// replaces.
	RequireVersion bool
	// NoCreateOnUpdate has an update of an object that does not exist answered with
	// NotFound. An apply still creates.
	NoCreateOnUpdate bool
	// BeforeDelete prepares an object that is not marked as deleted yet for its deletion, or
	// refuses that by an error; nil does neither.
	BeforeDelete func(obj runtime.Object) error
	// Holds reports whether something other than its finalizers keeps a deleted object from
	// being removed; nil: nothing does.
	Holds func(obj runtime.Object) bool

	// Columns and Cells are the resource's table, as kubectl get shows it. Cells gets an
	// object of New's type.
	Columns []metav1.TableColumnDefinition
	Cells   func(obj runtime.Object) []any
}

// Subresource is a part of an object that has a path, rules and owners of its own.
type Subresource struct {
	// API is the subresource as discovery shows it, under its whole name, such as
	// namespaces/status.
	API metav1.APIResource
	// Strategy is for updates and patches of the subresource.
	Strategy UpdateStrategy
	// Reset are the top-level fields that the Strategy sets whatever a client sends.
	Reset []string
}

// name is what follows the object in the subresource's path.
func (s *Subresource) name() string {
	_, name, _ := strings.Cut(s.API.Name, "/")
	return name
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

// identity is where a stored key stands: namespace and name are as they are in the key.
// What another program wrote there need not be valid.
func (r *Resource) identity(kv *storage.KeyValue) object.Identity {
	at := object.Identity{Key: kv.Key, Revision: kv.ModRevision, CreateRevision: kv.CreateRevision}
	at.Name = strings.TrimPrefix(kv.Key, r.prefix(""))
	if !r.API.Namespaced {
		return at
	}
	if namespace, name, ok := strings.Cut(at.Name, "/"); ok {
		at.Namespace, at.Name = namespace, name
	}
	return at
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

// NameColumn and AgeColumn are the first and the last column of kubectl's tables.
var (
	NameColumn = metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}
	AgeColumn  = metav1.TableColumnDefinition{Name: "Age", Type: "string", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]}
)

// Age is the cell of AgeColumn.
func Age(created metav1.Time) string {
	if created.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(created.Time))
}
