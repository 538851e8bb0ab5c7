package ownership

import (
	"bytes"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// NewTypeConverter returns the schema by which fields are owned, out of the OpenAPI v3 schemas
// of all kinds, by name. They are asked for when the schema is first needed, so that a start
// does not wait for them; an error of theirs is that of every conversion.
func NewTypeConverter(schemas func() (map[string]*spec.Schema, error)) managedfields.TypeConverter {
	return lazyConverter{sync.OnceValues(func() (managedfields.TypeConverter, error) {
		named, err := schemas()
		if err != nil {
			return nil, err
		}
		return managedfields.NewTypeConverter(named, false)
	})}
}

type lazyConverter struct {
	build func() (managedfields.TypeConverter, error)
}

func (l lazyConverter) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	converter, err := l.build()
	if err != nil {
		return nil, err
	}
	return converter.ObjectToTyped(obj, opts...)
}

func (l lazyConverter) TypedToObject(value *typed.TypedValue) (runtime.Object, error) {
	converter, err := l.build()
	if err != nil {
		return nil, err
	}
	return converter.TypedToObject(value)
}

// trustingConverter takes an object of the kind's Go type to conform to the schema, which its
// fields come from: to have the library make sure takes as long as all else that it does. It
// does so for configurations, which are not of the type, and for managedFields that are not
// objects. Other managedFields, which nobody owns, it leaves out.
type trustingConverter struct {
	managedfields.TypeConverter
	kind schema.GroupVersionKind
	find func() (*typed.TypedValue, error) // an object of the kind, which knows its schema
}

func (t *trustingConverter) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if _, ok := obj.(*unstructured.Unstructured); ok || obj.GetObjectKind().GroupVersionKind() != t.kind {
		return t.TypeConverter.ObjectToTyped(obj, opts...)
	}
	shown := ShallowCopy(obj)
	accessor, err := meta.Accessor(shown)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(accessor.GetManagedFields(), notAnObject) {
		return t.TypeConverter.ObjectToTyped(obj, opts...)
	}
	accessor.SetManagedFields(nil)
	known, err := t.find()
	if err != nil {
		return nil, err
	}
	v, err := value.NewValueReflect(shown)
	if err != nil {
		return nil, err
	}
	return typed.AsTypedUnvalidated(v, known.Schema(), known.TypeRef()), nil //nolint:staticcheck // deprecated where there is no type to trust
}

func notAnObject(entry metav1.ManagedFieldsEntry) bool {
	return entry.FieldsV1 != nil && !bytes.HasPrefix(bytes.TrimLeft(entry.FieldsV1.GetRawBytes(), " \t\r\n"), []byte("{"))
}
