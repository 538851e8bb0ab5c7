// Package registry gives stored bytes their meaning: it knows objects, their defaults,
// rules, owners and versions. One generic Store serves every resource; the Resource that
// describes it says what sets it apart: the rules for its objects (Strategy), hooks and flags.
package registry

import (
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/storage"
)

// Resource describes one kind of object that the registry serves. Fields are required unless
// their comments say otherwise.
type Resource struct {
	// API is the resource as discovery shows it. Group (empty for the core group),
	// Version, Kind, Name and Namespaced are what the registry goes by.
	API metav1.APIResource
	// New returns an empty object of the resource's Go type.
	New func() APIObject
	// AddToScheme adds the Go types of the whole group and version to a scheme, as the
	// packages of k8s.io/api offer it. Several resources of a group may add the same.
	AddToScheme func(*runtime.Scheme) error
	// Strategy has the rules for the objects.
	Strategy Strategy

	// Fields are the paths of the fields that selectors may name besides metadata.name and
	// metadata.namespace, as object.Type has them; nil: there are none.
	Fields []string
	// FieldPaths are where those of Fields stand whose names are not their paths: as
	// object.Type has them; nil: all are.
	FieldPaths map[string][]string
	// FieldSynonyms are further names of such fields; nil: there are none.
	FieldSynonyms map[string]string
	// Reset are the top-level fields, such as status, that the Strategy sets whatever a
	// client sends: clients do not become their owners.
	Reset []string
	// Subresources are served below every object; nil: there are none.
	Subresources []Subresource
	// NoObjects says why there are no objects of the kind here, for clients that want to create or
	// apply one: they are refused. Field ownership is not kept. "" refuses nobody.
	NoObjects string
	// ViewOf makes the resource another view of the objects of one that has them: in another
	// group or version. nil: the resource has objects of its own.
	ViewOf *View
	// Share is the part of Config.MaxStoredBytes that the objects may take together, one in
	// Share: for those that others make by the way, and that must not keep anything else from
	// being stored. A namespace may take a quarter of it once half is taken. 0: all of it.
	Share int
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
	// ReturnDeleted answers a deletion with the object rather than with a Status.
	ReturnDeleted bool
	// DeletesByUpdate says that kube-apiserver begins a deletion by an update: a precondition
	// that fails is answered in the words of updates.
	DeletesByUpdate bool

	// Columns and Cells are the resource's table, as kubectl get shows it: see object.Type.
	Columns []metav1.TableColumnDefinition
	Cells   func(obj runtime.Object) []any
}

// View is how the objects of one resource are shown as another's, of the same name and scope. They
// are stored once, as the first has them; a write of either shows in both.
type View struct {
	// Of is the resource that has the objects. It stands before the view in Config.Resources.
	Of *Resource
	// Show makes an object of the view's Go type of one of Of's, and Store does the reverse. They
	// may share what the objects point to, and leave kind and apiVersion alone.
	Show, Store func(obj APIObject) APIObject
}

// APIObject is an object as the Go types of the API have it: every one has metadata.
type APIObject interface {
	runtime.Object
	metav1.Object
}

// Strategy is the rules of a resource for its objects. Its methods are pure:
// they keep no state, wait for nothing and may run at the same time. An obj is of the
// resource's Go type; any other is a programmer's error and panics. No method keeps obj
// or old, or changes old.
type Strategy interface {
	UpdateStrategy
	// Default fills in what a client may leave out, right after decoding. A second call
	// changes nothing.
	Default(obj runtime.Object)
	// PrepareForCreate sets what only the server may set on a new object (after field
	// ownership was computed). The object has its name, a generated one too.
	PrepareForCreate(obj runtime.Object)
	// Validate returns every fault of a new object, metadata included, in the order in
	// which a client is told of them; nil or empty when there is none.
	Validate(obj runtime.Object) field.ErrorList
}

// UpdateStrategy is the part of a Strategy that updates need. What Strategy promises holds
// for it, too.
type UpdateStrategy interface {
	// PrepareForUpdate keeps from old what an update must not change. It leaves
	// metadata that every resource has to the caller, and replaces maps and lists rather
	// than to change what is in them.
	PrepareForUpdate(obj, old runtime.Object)
	// ValidateUpdate returns every fault of obj as the successor of old, metadata
	// included, each once. An obj without a resourceVersion or with another uid or
	// creationTimestamp than old's is at fault, so the caller fills in what the client
	// left out.
	ValidateUpdate(obj, old runtime.Object) field.ErrorList
	// Warnings returns what is accepted but ill-advised; they become Warning headers.
	// It is for objects that Validate or ValidateUpdate found valid. There may be as
	// many as the object has fields: whoever writes headers bounds them. old is what obj
	// replaces; nil: it is new.
	Warnings(obj, old runtime.Object) []string
}

// NoStrategy is the Strategy of resources that have no objects. Those that another program has
// stored can be read and deleted, and be changed in any way.
type NoStrategy struct{}

var _ Strategy = NoStrategy{}

// Default does nothing.
func (NoStrategy) Default(runtime.Object) {}

// PrepareForCreate does nothing.
func (NoStrategy) PrepareForCreate(runtime.Object) {}

// PrepareForUpdate does nothing.
func (NoStrategy) PrepareForUpdate(_, _ runtime.Object) {}

// Validate returns nil.
func (NoStrategy) Validate(runtime.Object) field.ErrorList { return nil }

// ValidateUpdate returns nil.
func (NoStrategy) ValidateUpdate(_, _ runtime.Object) field.ErrorList { return nil }

// Warnings returns nil.
func (NoStrategy) Warnings(_, _ runtime.Object) []string { return nil }

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

// invalid is the 422 for the faults of an object. kube-apiserver names the kind that is stored.
func (r *Resource) invalid(name string, faults field.ErrorList) error {
	if r.ViewOf != nil {
		return r.ViewOf.Of.invalid(name, faults)
	}
	return apierr.Invalid(r.GroupVersionKind().GroupKind(), name, faults)
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
	return (&url.URL{Path: link}).EscapedPath()
}

// NameColumn is the first column of kubectl's tables.
var NameColumn = metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}

// AgeColumn is the column of kubectl's tables whose cell is Age.
var AgeColumn = metav1.TableColumnDefinition{Name: "Age", Type: "string", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]}

// Age is the cell of an object's age, which grows while the object does not change.
var Age = object.Age

// Since is a cell that shows how long ago a time was, which grows while the object does not
// change.
type Since = object.Since
