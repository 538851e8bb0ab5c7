package registry

import (
	"bytes"
	"fmt"
	"io"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"

	"github.com/berth-project/berth/pkg/storage"
)

// jsonIdentifier is how the plain JSON encoder of apimachinery names itself.
var jsonIdentifier = json.NewSerializerWithOptions(json.DefaultMetaFactory, nil, nil, json.SerializerOptions{}).Identifier()

// object is a stored object as finished JSON. Plain JSON goes out as it is; every other
// form is encoded from the decoded object. It never changes.
type object struct {
	resource *Resource
	json     []byte // as served, without a final newline
}

var (
	_ runtime.Object          = (*object)(nil)
	_ runtime.CacheableObject = (*object)(nil)
	_ runtime.Object          = (*objectList)(nil)
	_ runtime.CacheableObject = (*objectList)(nil)
)

func newObject(r *Resource, kv *storage.KeyValue) (*object, error) {
	finished, err := r.finish(kv.Value, kv.ModRevision)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kv.Key, err)
	}
	return &object{resource: r, json: finished}, nil
}

// CacheEncode writes the finished JSON, or has encode write the decoded object.
func (o *object) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	if id == jsonIdentifier {
		if _, err := w.Write(o.json); err != nil {
			return err
		}
		_, err := io.WriteString(w, "\n")
		return err
	}
	obj, err := o.resource.decodeJSON(o.json)
	if err != nil {
		return err
	}
	return encode(obj, w)
}

// GetObject decodes the object. A value that cannot be decoded yields an empty object:
// newObject has already refused it.
func (o *object) GetObject() runtime.Object {
	obj, err := o.resource.decodeJSON(o.json)
	if err != nil {
		return o.resource.New()
	}
	return obj
}

// GetObjectKind returns a copy: the kind of a finished object is fixed.
func (o *object) GetObjectKind() schema.ObjectKind {
	typeMeta := &metav1.TypeMeta{}
	typeMeta.SetGroupVersionKind(o.resource.GroupVersionKind())
	return typeMeta
}

// DeepCopyObject returns the decoded object, for whoever wants to change it.
func (o *object) DeepCopyObject() runtime.Object { return o.GetObject() }

// objectList is a list of stored objects, put together from their values only while it
// is written.
type objectList struct {
	resource *Resource
	meta     metav1.ListMeta
	kvs      []*storage.KeyValue
}

// CacheEncode streams the list as JSON, or has encode write the decoded list.
func (l *objectList) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	if id == jsonIdentifier {
		return l.writeJSON(w)
	}
	list, err := l.decode()
	if err != nil {
		return err
	}
	return encode(list, w)
}

// writeJSON writes what encoding/json would make of the typed list: its items carry
// neither kind nor apiVersion.
func (l *objectList) writeJSON(w io.Writer) error {
	var buf bytes.Buffer
	gv := l.resource.GroupVersionKind().GroupVersion().String()
	fmt.Fprintf(&buf, `{"kind":%q,"apiVersion":%q,"metadata":{"selfLink":%q,"resourceVersion":%q},"items":[`,
		l.resource.API.Kind+"List", gv, l.meta.SelfLink, l.meta.ResourceVersion)
	itemHead := len(fmt.Sprintf(`{"kind":%q,"apiVersion":%q,`, l.resource.API.Kind, gv))
	for i, kv := range l.kvs {
		finished, err := l.resource.finish(kv.Value, kv.ModRevision)
		if err != nil {
			return fmt.Errorf("%s: %w", kv.Key, err)
		}
		if i > 0 {
			buf.WriteByte(',')
		}
		buf.WriteByte('{')
		buf.Write(finished[itemHead:])
		if buf.Len() >= 32<<10 {
			if _, err := buf.WriteTo(w); err != nil {
				return err
			}
		}
	}
	buf.WriteString("]}\n")
	_, err := buf.WriteTo(w)
	return err
}

func (l *objectList) decode() (runtime.Object, error) {
	list := l.resource.NewList()
	items := make([]runtime.Object, len(l.kvs))
	for i, kv := range l.kvs {
		obj, err := l.resource.decode(kv)
		if err != nil {
			return nil, err
		}
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		items[i] = obj
	}
	if err := meta.SetList(list, items); err != nil {
		return nil, err
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	accessor.SetResourceVersion(l.meta.ResourceVersion)
	accessor.SetSelfLink(l.meta.SelfLink)
	list.GetObjectKind().SetGroupVersionKind(l.kind())
	return list, nil
}

func (l *objectList) kind() schema.GroupVersionKind {
	gvk := l.resource.GroupVersionKind()
	gvk.Kind += "List"
	return gvk
}

// GetObject decodes the list; see object.GetObject.
func (l *objectList) GetObject() runtime.Object {
	list, err := l.decode()
	if err != nil {
		return l.resource.NewList()
	}
	return list
}

// GetObjectKind returns a copy: the kind of a finished list is fixed.
func (l *objectList) GetObjectKind() schema.ObjectKind {
	typeMeta := &metav1.TypeMeta{}
	typeMeta.SetGroupVersionKind(l.kind())
	return typeMeta
}

// DeepCopyObject returns the decoded list.
func (l *objectList) DeepCopyObject() runtime.Object { return l.GetObject() }

func formatRevision(revision int64) string { return strconv.FormatInt(revision, 10) }
