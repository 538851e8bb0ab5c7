package ownership

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The library takes the square of the number of fields, and far more of elements that it tells
// apart by their content: a minute for the 250,000 labels, or for the 10,000 owner references
// in managedFields, that a request has room for, and some 50 ms for what these allow. They
// count what clients name in the object itself and what its managedFields name, each by
// itself. Lists that are owned as a whole count nothing.
const (
	// MaxFields bounds the members of maps, such as labels and annotations.
	MaxFields = 10_000
	// MaxElements bounds the elements of lists, such as finalizers and owner references.
	MaxElements = 1000
	// MaxItems bounds the finalizers, the owner references and the managedFields of an object,
	// each by itself.
	MaxItems = 500
)

var maxSize = size{MaxFields, MaxElements}

// size is how many fields the library sees.
type size struct{ fields, elements int }

var (
	timeType    = reflect.TypeFor[time.Time]()
	managedType = reflect.TypeFor[[]metav1.ManagedFieldsEntry]()
)

// sizeOf counts the fields of an object without its managedFields and the lists that are owned
// as a whole. The members that its Go type names do not count.
func (m *Manager) sizeOf(obj runtime.Object) size {
	var s size
	lists, _ := m.lists() // without a schema nothing is owned
	members := reflect.ValueOf(obj).Elem()
	for i := range members.NumField() {
		if !slices.ContainsFunc(lists, func(l list) bool { return l.field == i }) {
			s.add(members.Field(i))
		}
	}
	return s
}

// sizeOfConfig is sizeOf for a configuration.
func (m *Manager) sizeOfConfig(config map[string]any) size {
	var s size
	lists, _ := m.lists()
	for name, member := range config {
		if !slices.ContainsFunc(lists, func(l list) bool { return l.name == name }) {
			s.add(reflect.ValueOf(member))
		}
	}
	return s
}

func (s *size) add(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		s.add(v.Elem())
	case reflect.Struct:
		if v.Type() == timeType {
			return
		}
		for i := range v.NumField() {
			s.add(v.Field(i))
		}
	case reflect.Map:
		s.fields += v.Len()
		if v.Type().Elem().Kind() == reflect.String {
			return
		}
		for members := v.MapRange(); members.Next(); {
			s.add(members.Value())
		}
	case reflect.Slice:
		if v.Type() == managedType || v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		s.elements += v.Len()
		for i := range v.Len() {
			s.add(v.Index(i))
		}
	}
}

// managedSize counts what the managedFields of an object name, and each manager as a field.
func managedSize(obj runtime.Object) size {
	var s size
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return s
	}
	for _, entry := range accessor.GetManagedFields() {
		s.fields++
		if entry.FieldsV1 != nil {
			s.addNames(entry.FieldsV1.GetRawBytes())
		}
	}
	return s
}

// addNames counts the names in the JSON of a set of fields, in which all strings are names.
// What begins with "f:" is a member, and what begins otherwise is an element of a list, which
// may be named by JSON of its own: all values in that count.
func (s *size) addNames(set []byte) {
	for i := 0; i < len(set); i++ {
		if set[i] != '"' {
			continue
		}
		name := set[i+1:]
		isMember := bytes.HasPrefix(name, []byte("f:")) || bytes.HasPrefix(name, []byte(`."`))
		values := 0
		for i++; i < len(set) && set[i] != '"'; i++ {
			switch set[i] {
			case '\\':
				i++
			case ',', '[', '{':
				values++
			}
		}
		if isMember {
			s.fields++
		} else {
			s.elements += max(1, values)
		}
	}
}

func (s size) exceeds(limit size) bool { return s.fields > limit.fields || s.elements > limit.elements }

// refuse returns the error for more fields than the limits, or than there were before where
// those are more: whoever takes fields away makes it no worse. what names what was counted.
func (s size) refuse(before func() size, what string) *field.Error {
	if !s.exceeds(maxSize) {
		return nil
	}
	was := before()
	limit := size{max(MaxFields, was.fields), max(MaxElements, was.elements)}
	if !s.exceeds(limit) {
		return nil
	}
	return field.Invalid(field.NewPath("metadata"), field.OmitValueType{}, fmt.Sprintf("%s %d fields and %d elements of lists that have owners of their own, the limits are %d and %d", what, s.fields, s.elements, limit.fields, limit.elements))
}

// checkSize returns an Invalid error where the library would take too long for next, of which
// it sees as much as seen, in the place of live.
func (m *Manager) checkSize(live, next runtime.Object, seen size) error {
	fault := checkItems(live, next)
	if fault == nil {
		fault = seen.refuse(func() size { return m.sizeOf(live) }, "there are")
	}
	if fault == nil {
		fault = managedSize(next).refuse(func() size { return managedSize(live) }, "the managedFields name")
	}
	return m.invalid(next, fault)
}

// checkItems returns the fault of an object that has more than MaxItems of something, and more
// than live.
func checkItems(live, next runtime.Object) *field.Error {
	before, err := meta.Accessor(live)
	if err != nil {
		return field.InternalError(field.NewPath("metadata"), err)
	}
	after, err := meta.Accessor(next)
	if err != nil {
		return field.InternalError(field.NewPath("metadata"), err)
	}
	for _, items := range []struct {
		name     string
		has, had int
	}{
		{"finalizers", len(after.GetFinalizers()), len(before.GetFinalizers())},
		{"ownerReferences", len(after.GetOwnerReferences()), len(before.GetOwnerReferences())},
		{"managedFields", len(after.GetManagedFields()), len(before.GetManagedFields())},
	} {
		if items.has > max(MaxItems, items.had) {
			return field.TooMany(field.NewPath("metadata", items.name), items.has, MaxItems)
		}
	}
	return nil
}

// isTooLarge reports whether the library would take too long for an object that was stored
// before there were bounds.
func (m *Manager) isTooLarge(obj runtime.Object) bool {
	return m.sizeOf(obj).exceeds(maxSize) || managedSize(obj).exceeds(maxSize)
}

// errTooLarge is the error of an apply to an object that is too large.
func (m *Manager) errTooLarge(live runtime.Object) error {
	has, named := m.sizeOf(live), managedSize(live)
	return m.invalid(live, field.Invalid(field.NewPath("metadata"), field.OmitValueType{}, fmt.Sprintf("the stored object has %d fields and %d elements of lists that have owners of their own, and its managedFields name %d and %d; an apply takes at most %d and %d: make the object smaller by an update or another patch first", has.fields, has.elements, named.fields, named.elements, MaxFields, MaxElements)))
}

// invalid returns an Invalid error for the fault of an object, nil without one.
func (m *Manager) invalid(obj runtime.Object, fault *field.Error) error {
	if fault == nil {
		return nil
	}
	name := ""
	if accessor, err := meta.Accessor(obj); err == nil {
		name = accessor.GetName()
	}
	return apierrors.NewInvalid(m.kind.GroupKind(), name, field.ErrorList{fault})
}
