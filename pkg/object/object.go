package object

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Identity is where a stored object stands, and since when.
type Identity struct {
	Key             string // the storage key
	Namespace, Name string // as the key has them; Namespace is empty for a resource without
	Revision        int64  // of the latest write; 0: it is not stored
	CreateRevision  int64  // of the write that created it
}

// checkNames refuses the metadata of another object.
func (at *Identity) checkNames(metadata metav1.Object) error {
	if metadata.GetName() != at.Name || metadata.GetNamespace() != at.Namespace {
		return fmt.Errorf("it is of the object %q in namespace %q", metadata.GetName(), metadata.GetNamespace())
	}
	return nil
}

// Object is one object as finished bytes. It never changes, and is shared by all who read.
type Object struct {
	Identity
	Type *Type

	json     []byte  // as served, without a final newline
	metadata span    // the value of "metadata" in json, braces included
	version  span    // the member resourceVersion in json, with its comma; empty: where it belongs
	labels   []label // by key
	created  time.Time
	fields   []string // the values of Type.Fields, in their order

	forms  atomic.Pointer[forms] // nil until a form is asked for
	id     uint64                // no other object has it
	border bool                  // whether it always begins a run
}

// span is a part of an object's JSON.
type span struct{ start, end int }

type label struct{ key, value string }

// lastID is the id that was given last.
var lastID atomic.Uint64

var borderSeed = maphash.MakeSeed()

// Read makes an object of a value that a store holds. The error says why the value cannot
// be served: it is not JSON, not of the type, not under its own name, or damaged.
func Read(t *Type, at Identity, stored []byte) (*Object, error) {
	value, proven, err := unpack(stored)
	if err != nil {
		return nil, err
	}
	if !proven {
		if value, err = t.canonical(at, value); err != nil {
			return nil, err
		}
		return Written(t, at, value)
	}
	o, err := Written(t, at, value)
	if err != nil {
		return nil, err
	}
	// The checksum does not tell where the value was stored: it may be a copy.
	metadata, err := o.Metadata()
	if err != nil {
		return nil, err
	}
	if err := at.checkNames(metadata); err != nil {
		return nil, err
	}
	return o, nil
}

// canonical returns the value laid out as Encode does, after it has made sure that every
// form of it can be served.
func (t *Type) canonical(at Identity, value []byte) ([]byte, error) {
	if !utf8.Valid(value) {
		return nil, errors.New("it is not UTF-8")
	}
	obj, regular, err := t.decode(value)
	if err != nil {
		return nil, err
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	kind := obj.GetObjectKind().GroupVersionKind()
	if !kind.Empty() && kind != t.Kind {
		return nil, fmt.Errorf("it is a %s", kind)
	}
	if err := at.checkNames(accessor); err != nil {
		return nil, err
	}
	if regular && accessor.GetResourceVersion() == "" && bytes.HasPrefix(value, []byte(t.head())) && !bytes.ContainsAny(value, "\n\r") {
		return value, nil
	}
	accessor.SetResourceVersion("")
	obj.GetObjectKind().SetGroupVersionKind(t.Kind)
	return t.Encode(obj)
}

const (
	metadataMember = `"metadata":`
	versionMember  = `"resourceVersion":"`
)

// Written makes an object of a value that Encode returned and that was stored at at.Revision.
// Without a revision, as of a dry run, the object has no resourceVersion.
func Written(t *Type, at Identity, value []byte) (*Object, error) {
	start := len(t.head())
	if !bytes.HasPrefix(value, []byte(t.head())) {
		return nil, errors.New("it does not begin with kind, apiVersion and metadata")
	}
	o := &Object{Identity: at, Type: t, json: value, id: lastID.Add(1), border: maphash.String(borderSeed, at.Key)%borderEvery == 0}
	scanned, err := scanMetadata(value[start:])
	if err != nil {
		return nil, err
	}
	o.metadata, o.labels, o.created = span{start, start + scanned.size}, scanned.labels, scanned.created
	if o.fields, err = t.readFields(value); err != nil {
		return nil, err
	}
	o.version = span{start + scanned.versionAt, start + scanned.versionAt}
	if at.Revision != 0 {
		o.setVersion()
	}
	return o, nil
}

// setVersion puts the member resourceVersion in its place, first or behind others.
func (o *Object) setVersion() {
	before, behind := o.json[:o.version.start], o.json[o.version.end:]
	first := before[len(before)-1] == '{'
	var room [len(versionMember) + len(`"9223372036854775807",`)]byte
	member := room[:0]
	if !first {
		member = append(member, ',')
	}
	member = append(strconv.AppendInt(append(member, versionMember...), o.Revision, 10), '"')
	if first && behind[0] != '}' {
		member = append(member, ',')
	}
	o.json = append(append(append(make([]byte, 0, len(before)+len(member)+len(behind)), before...), member...), behind...)
	o.metadata.end += len(member) - (o.version.end - o.version.start)
	o.version.end = o.version.start + len(member)
}

// At returns the object as a change of that revision left it, which created it if nothing did
// before.
func (o *Object) At(revision int64) *Object {
	moved := &Object{
		Identity: o.Identity, Type: o.Type, labels: o.labels, created: o.created, fields: o.fields, id: lastID.Add(1), border: o.border,
		json: o.json, metadata: o.metadata, version: o.version,
	}
	moved.Revision = revision
	if moved.CreateRevision == 0 {
		moved.CreateRevision = revision
	}
	moved.setVersion()
	return moved
}

// Bookmark returns an object that has nothing but a resourceVersion and, where it ends the
// initial events of a watch, the annotation that says so.
func Bookmark(t *Type, revision int64, endsInitial bool) (*Object, error) {
	obj := t.New()
	obj.GetObjectKind().SetGroupVersionKind(t.Kind)
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	if endsInitial {
		accessor.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	value, err := t.Encode(obj)
	if err != nil {
		return nil, err
	}
	return Written(t, Identity{Revision: revision}, value)
}

// JSON returns the object as it is served. It must not be changed.
func (o *Object) JSON() []byte { return o.json }

// MetadataJSON returns the metadata in JSON.
func (o *Object) MetadataJSON() []byte { return o.json[o.metadata.start:o.metadata.end] }

// IsMadeOf reports whether value, as Encode returns it, is what the object was made of.
func (o *Object) IsMadeOf(value []byte) bool {
	behind := o.json[o.version.end:]
	return len(value) == o.version.start+len(behind) &&
		bytes.Equal(value[:o.version.start], o.json[:o.version.start]) && bytes.Equal(value[o.version.start:], behind)
}

// Decode returns a typed copy, for whoever wants to change it.
func (o *Object) Decode() (runtime.Object, error) {
	obj, err := o.Type.Decode(o.json)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Key, err)
	}
	return obj, nil
}

// decodeForTable is Decode for Type.Cells: of the metadata, which takes longer than all the
// rest, it has the name, the namespace and the creationTimestamp.
func (o *Object) decodeForTable() (runtime.Object, error) {
	rest := make([]byte, 0, len(o.json)-(o.metadata.end-o.metadata.start)+len("{}"))
	rest = append(append(append(rest, o.json[:o.metadata.start]...), "{}"...), o.json[o.metadata.end:]...)
	obj, err := o.Type.Decode(rest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Key, err)
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	accessor.SetName(o.Name)
	accessor.SetNamespace(o.Namespace)
	accessor.SetCreationTimestamp(metav1.NewTime(o.created))
	return obj, nil
}

// Metadata returns a copy of the object's metadata, decoded without the rest.
func (o *Object) Metadata() (*metav1.ObjectMeta, error) {
	metadata := &metav1.ObjectMeta{}
	if err := unmarshal(o.MetadataJSON(), metadata); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Key, err)
	}
	return metadata, nil
}

// SelfLink returns the object's selfLink, or "" where it has none.
func (o *Object) SelfLink() string {
	var names struct {
		SelfLink string `json:"selfLink"`
	}
	// It stands before the place of the resourceVersion.
	before := o.json[o.metadata.start:o.version.start]
	if unmarshal(append(before[:len(before):len(before)], '}'), &names) != nil {
		return ""
	}
	return names.SelfLink
}

// Created returns the object's creationTimestamp, zero where it has none.
func (o *Object) Created() time.Time { return o.created }

// UID returns the object's uid, or "" where it has none.
func (o *Object) UID() types.UID {
	metadata, err := o.Metadata()
	if err != nil {
		return ""
	}
	return metadata.UID
}

// ValueSize is the size in bytes of the value that the object was made of.
func (o *Object) ValueSize() int { return len(o.json) - (o.version.end - o.version.start) }

// Size is the memory that the object takes without its forms, in bytes.
func (o *Object) Size() int {
	const overhead = 344
	return overhead + len(o.json) + len(o.Key)
}
