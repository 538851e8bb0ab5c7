package object

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// metadataScan is what one walk through an object's metadata finds.
type metadataScan struct {
	size    int // bytes of the metadata, braces included
	labels  []label
	created time.Time // zero: there is no creationTimestamp
	// versionAt is where encoding/json would put the resourceVersion: behind the names, the
	// selfLink and the uid.
	versionAt int
}

// scanner reads JSON in place.
type scanner struct {
	*jsontext.Decoder
	data bytes.Buffer
}

// scanners keeps *scanner for reuse: a decoder takes a kilobyte.
var scanners = sync.Pool{New: func() any { return &scanner{Decoder: new(jsontext.Decoder)} }}

func newScanner(data []byte) *scanner {
	s := scanners.Get().(*scanner)
	s.data = *bytes.NewBuffer(data) // which jsontext reads from without a copy
	s.Reset(&s.data, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return s
}

func (s *scanner) release() {
	s.data = bytes.Buffer{}
	s.Reset(&s.data)
	scanners.Put(s)
}

// scanMetadata walks through the metadata that data begins with.
func scanMetadata(data []byte) (found metadataScan, err error) {
	s := newScanner(data)
	defer s.release()
	if s.PeekKind() != '{' {
		return found, errors.New("its metadata is not an object")
	}
	found.versionAt = len("{")
	err = s.members(func(name jsontext.Token) (err error) {
		switch name.String() {
		case "labels":
			found.labels, err = s.labels()
		case "creationTimestamp":
			found.created, err = s.time()
		case "name", "generateName", "namespace", "selfLink", "uid": // as metav1.ObjectMeta has them
			err = s.SkipValue()
			found.versionAt = int(s.InputOffset())
		default:
			err = s.SkipValue()
		}
		return err
	})
	found.size = int(s.InputOffset())
	return found, err
}

// members reads the value that comes next. If it is an object, visit is called with each
// name, which is valid until visit reads the member's value, as it must.
func (s *scanner) members(visit func(name jsontext.Token) error) error {
	if s.PeekKind() != '{' {
		return s.SkipValue()
	}
	if _, err := s.ReadToken(); err != nil {
		return err
	}
	for s.PeekKind() != '}' {
		name, err := s.ReadToken()
		if err != nil {
			return err
		}
		if err := visit(name); err != nil {
			return err
		}
	}
	_, err := s.ReadToken()
	return err
}

func (s *scanner) labels() (found []label, err error) {
	err = s.members(func(name jsontext.Token) error {
		key := name.String()
		value, err := s.text()
		found = append(found, label{key, value})
		return err
	})
	slices.SortStableFunc(found, func(a, b label) int { return strings.Compare(a.key, b.key) })
	return found, err
}

// text reads a string, or what stands for one: null is none.
func (s *scanner) text() (string, error) {
	token, err := s.ReadToken()
	if err != nil {
		return "", err
	}
	switch token.Kind() {
	case '"', '0', 't', 'f':
		return token.String(), nil
	case 'n':
		return "", nil
	}
	return "", fmt.Errorf("a %s stands where a text belongs", token.Kind())
}

// time reads a time, or null, which is none.
func (s *scanner) time() (time.Time, error) {
	text, err := s.text()
	if err != nil || text == "" {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339, text)
}

// readFields returns the values of the type's fields, "" where there is none.
func (t *Type) readFields(value []byte) ([]string, error) {
	if len(t.Fields) == 0 {
		return nil, nil
	}
	t.pathsOnce.Do(func() {
		for _, name := range t.Fields {
			for _, path := range t.pathsOf(name) {
				if !slices.Contains(t.paths, path) {
					t.paths = append(t.paths, path)
				}
			}
		}
	})
	s := newScanner(value)
	defer s.release()
	found := make([]string, len(t.paths))
	if err := s.fields("", t.paths, found); err != nil {
		return nil, err
	}
	if t.FieldPaths == nil {
		return found, nil
	}
	values := make([]string, len(t.Fields))
	for i, name := range t.Fields {
		for _, path := range t.pathsOf(name) {
			values[i] = cmp.Or(values[i], found[slices.Index(t.paths, path)])
		}
	}
	return values, nil
}

func (t *Type) pathsOf(name string) []string {
	if paths := t.FieldPaths[name]; len(paths) > 0 {
		return paths
	}
	return []string{name}
}

// fields reads the object that comes next, whose own path ends with a dot or is empty.
func (s *scanner) fields(at string, paths, found []string) error {
	return s.members(func(name jsontext.Token) error { return s.field(at+name.String(), paths, found) })
}

func (s *scanner) field(path string, paths, found []string) error {
	for i, wanted := range paths {
		if wanted == path {
			text, err := s.text()
			found[i] = text
			return err
		}
		if strings.HasPrefix(wanted, path+".") {
			return s.fields(path+".", paths, found)
		}
	}
	return s.SkipValue()
}

// Labels returns the object's labels as label selectors look at them.
func (o *Object) Labels() labels.Labels { return (*objectLabels)(o) }

type objectLabels Object

var _ labels.Labels = (*objectLabels)(nil)

// Has reports whether there is a label of that key.
func (o *objectLabels) Has(key string) bool {
	_, ok := o.Lookup(key)
	return ok
}

// Get returns the value of a label, "" where there is none.
func (o *objectLabels) Get(key string) string {
	value, _ := o.Lookup(key)
	return value
}

// Lookup returns the value of a label, and whether there is one. An object may have thousands,
// and a selector asks each object for a hundred.
func (o *objectLabels) Lookup(key string) (string, bool) {
	i, ok := slices.BinarySearchFunc(o.labels, key, func(l label, key string) int { return strings.Compare(l.key, key) })
	if !ok {
		return "", false
	}
	return o.labels[i].value, true
}

// Fields returns the fields that field selectors may name.
func (o *Object) Fields() fields.Fields { return (*objectFields)(o) }

type objectFields Object

var _ fields.Fields = (*objectFields)(nil)

// Has reports whether selectors may name the field.
func (o *objectFields) Has(field string) bool {
	return field == "metadata.name" || field == "metadata.namespace" || slices.Contains(o.Type.Fields, field)
}

// Get returns a field's value, "" where it has none.
func (o *objectFields) Get(field string) string {
	switch field {
	case "metadata.name":
		return o.Name
	case "metadata.namespace":
		return o.Namespace
	}
	if i := slices.Index(o.Type.Fields, field); i >= 0 {
		return o.fields[i]
	}
	return ""
}
