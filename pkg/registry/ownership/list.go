package ownership

import (
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	smdschema "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// list is a top-level list that is owned as a whole (x-kubernetes-list-type: atomic). All
// that matters of it is whether it is there and whether two of them are equal. Its stand-ins
// are a list of one empty element and another of two.
type list struct {
	name   string
	field  int // of the struct
	empty  func() runtime.Object
	schema *smdschema.Schema
	of     smdschema.TypeRef

	one, two               reflect.Value
	untypedOne, untypedTwo []any // as a configuration has them
}

// atomicLists finds the lists of a kind by its Go type and its schema, which known has.
func atomicLists(kind schema.GroupVersionKind, struc reflect.Type, known *typed.TypedValue) ([]list, error) {
	root, ok := known.Schema().Resolve(known.TypeRef())
	if !ok || root.Map == nil {
		return nil, fmt.Errorf("field ownership: the schema of %s has no fields", kind)
	}
	var lists []list
	for i := range struc.NumField() {
		name, _, _ := strings.Cut(struc.Field(i).Tag.Get("json"), ",")
		field, ok := root.Map.FindField(name)
		if !ok || struc.Field(i).Type.Kind() != reflect.Slice {
			continue
		}
		atom, ok := known.Schema().Resolve(field.Type)
		if !ok || atom.List == nil || atom.List.ElementRelationship != smdschema.Atomic {
			continue
		}
		l := list{name: name, field: i, schema: known.Schema(), of: field.Type}
		l.empty = func() runtime.Object { return reflect.New(struc).Interface().(runtime.Object) }
		if err := l.makeStandIns(struc.Field(i).Type); err != nil {
			return nil, fmt.Errorf("field ownership: %s: %w", name, err)
		}
		lists = append(lists, l)
	}
	return lists, nil
}

func (l *list) makeStandIns(slice reflect.Type) (err error) {
	l.one, l.two = reflect.MakeSlice(slice, 1, 1), reflect.MakeSlice(slice, 2, 2)
	if l.untypedOne, err = l.untyped(l.one); err != nil {
		return err
	}
	l.untypedTwo, err = l.untyped(l.two)
	return err
}

// untyped returns the list as a decoded configuration has it.
func (l *list) untyped(elements reflect.Value) ([]any, error) {
	obj := l.empty()
	l.in(obj).Set(elements)
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, err
	}
	untyped, ok := fields[l.name].([]any)
	if !ok {
		return nil, fmt.Errorf("a list is shown as %T", fields[l.name])
	}
	return untyped, nil
}

// in returns the field of an object.
func (l *list) in(obj runtime.Object) reflect.Value {
	return reflect.ValueOf(obj).Elem().Field(l.field)
}

// replace puts stand-ins into both objects, where they have any elements.
func (l *list) replace(live, next runtime.Object) {
	was, is := l.in(live), l.in(next)
	differ := was.Len() > 0 && is.Len() > 0 && !equal(was, is)
	if was.Len() > 0 {
		was.Set(l.one)
	}
	switch {
	case differ:
		is.Set(l.two)
	case is.Len() > 0:
		is.Set(l.one)
	}
}

// equal compares two lists as the library does.
func equal(a, b reflect.Value) bool {
	return reflect.DeepEqual(a.Interface(), b.Interface()) || value.Equals(valueOf(a), valueOf(b))
}

// valueOf is the library's view of a field.
func valueOf(field reflect.Value) value.Value {
	v, err := value.NewValueReflect(field.Addr().Interface())
	if err != nil {
		panic(err) // only for what is not a pointer
	}
	return v
}

// replaceApplied puts stand-ins into live and into the fields of a configuration, which is
// compared as it came, without defaults. It returns what the configuration had, the zero
// Value if that has no elements, and an error where it does not fit.
func (l *list) replaceApplied(live runtime.Object, config map[string]any) (given reflect.Value, err error) {
	was := l.in(live)
	elements, _ := config[l.name].([]any)
	if len(elements) > 0 {
		untyped := value.NewValueInterface(elements)
		if _, err := typed.AsTyped(untyped, l.schema, l.of); err != nil {
			return given, err
		}
		obj := l.empty()
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{l.name: elements}, obj); err != nil {
			return given, err
		}
		given = l.in(obj)
		config[l.name] = l.untypedOne
		if was.Len() > 0 && !value.Equals(untyped, valueOf(was)) {
			config[l.name] = l.untypedTwo
		}
	}
	if was.Len() > 0 {
		was.Set(l.one)
	}
	return given, nil
}
