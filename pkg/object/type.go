// Package object holds stored objects as finished bytes: the JSON that is served, the other
// forms that are made once from it when they are first asked for, and the labels and few
// fields that selectors look at. It knows forms, and nothing of storage or HTTP.
package object

import (
	"encoding/json"
	"fmt"
	"sync"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
)

// Type is what the objects of one resource have in common. It never changes once objects
// of it exist.
type Type struct {
	// Kind is the objects' group, version and kind.
	Kind schema.GroupVersionKind
	// New returns an empty object of the Go type.
	New func() runtime.Object
	// Fields are the paths of the fields that selectors may name besides metadata.name and
	// metadata.namespace, such as spec.clusterIP. Their values are strings, numbers or
	// booleans.
	Fields []string
	// FieldPaths are the paths of those of Fields whose names are not their paths: what such a
	// field has is the first value of them that is not empty.
	FieldPaths map[string][]string
	// Columns are those of the objects' table. Cells returns an object's cells in them, at least
	// one, and nothing that changes while the object does not: how long ago something was is Age,
	// or a Since. obj is of New's type, and of its metadata has the name, the namespace and the
	// creationTimestamp.
	Columns []metav1.TableColumnDefinition
	Cells   func(obj runtime.Object) []any
	// Forms bounds the memory of what is made of objects; nil keeps all of it.
	Forms *Budget

	headOnce  sync.Once
	headText  string
	timesOnce sync.Once
	times     bool // see timesOutside
	pathsOnce sync.Once
	paths     []string // of all Fields, each once
}

// head is how the JSON of every object begins, up to the metadata.
func (t *Type) head() string {
	t.headOnce.Do(func() {
		t.headText = `{"kind":"` + t.Kind.Kind + `","apiVersion":"` + t.Kind.GroupVersion().String() + `",` + metadataMember
	})
	return t.headText
}

// Encode returns the JSON of an object of New's type as encoding/json writes it, which is
// the value to store where the object has no resourceVersion.
func (t *Type) Encode(obj runtime.Object) ([]byte, error) { return json.Marshal(obj) }

// DecodeStrict decodes a client's JSON into a new object and returns what is unknown or
// repeated in it. Names are case-sensitive. The error says what else is wrong.
//
// What the strict decoder accepts without a fault, sigs.k8s.io/json makes the same of;
// whatever it refuses, sigs.k8s.io/json decides on and words.
func (t *Type) DecodeStrict(data []byte) (obj runtime.Object, faults []error, err error) {
	obj = t.New()
	if jsonv2.Unmarshal(data, obj, jsonv2.RejectUnknownMembers(true)) == nil {
		return obj, nil, nil
	}
	obj = t.New()
	faults, err = kjson.UnmarshalStrict(data, obj)
	return obj, faults, err
}

// Decode decodes JSON that is stored, perhaps by another program: unknown fields are left
// out, and of repeated ones the last counts.
func (t *Type) Decode(data []byte) (runtime.Object, error) {
	obj, _, err := t.decode(data)
	return obj, err
}

// decode is Decode; regular is false for JSON that not every client would read alike: it
// has repeated names, or null or another form where a value belongs.
func (t *Type) decode(data []byte) (obj runtime.Object, regular bool, err error) {
	obj = t.New()
	if jsonv2.Unmarshal(data, obj) == nil {
		return obj, true, nil
	}
	obj = t.New()
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, obj); err != nil {
		return nil, false, fmt.Errorf("it is not the JSON of a %s: %w", t.Kind.Kind, err)
	}
	return obj, false, nil
}

// unmarshal decodes a part of a stored object, as Decode does the whole.
func unmarshal(data []byte, to any) error {
	if jsonv2.Unmarshal(data, to, jsontext.AllowDuplicateNames(true)) == nil {
		return nil
	}
	return kjson.UnmarshalCaseSensitivePreserveInts(data, to)
}
