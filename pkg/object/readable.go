package object

import (
	"errors"
	"reflect"
	"strings"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CheckReadable returns why an object that is to be stored could not be read again, and the
// path of the field at fault; nil: it can. What a write accepts may yet be so: a time whose
// year has more than four digits once it is in UTC, or an ownership entry, which is stored as
// it came, that is not JSON.
func (o *Object) CheckReadable() (path string, err error) {
	if !utf8.Valid(o.json) {
		return "metadata", errors.New("it is not UTF-8")
	}
	if !o.Type.timesOutside() {
		_, err = o.Metadata()
		return "metadata", err
	}
	if _, err = o.Decode(); err == nil {
		return "", nil
	}
	var fault *jsonv2.SemanticError
	if errors.As(jsonv2.Unmarshal(o.json, o.Type.New()), &fault) {
		path = strings.Join(strings.Split(string(fault.JSONPointer), "/")[1:], ".")
	}
	return path, err
}

// timesOutside reports whether the type has times outside of the metadata. Where it has none,
// only the metadata can be unreadable, which saves decoding all the rest.
func (t *Type) timesOutside() bool {
	t.timesOnce.Do(func() { t.times = hasTimes(reflect.TypeOf(t.New()), map[reflect.Type]bool{}) })
	return t.times
}

func hasTimes(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] {
		return false
	}
	seen[t] = true
	switch t {
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime]():
		return true
	case reflect.TypeFor[metav1.ObjectMeta]():
		return false
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return hasTimes(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if hasTimes(t.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}
