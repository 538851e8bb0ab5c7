package registry

import (
	"fmt"
	"io"
	"iter"
	"strconv"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"

	"github.com/berth-project/berth/pkg/registry/objectjson"
	"github.com/berth-project/berth/pkg/storage"
)

// object is a stored object as finished JSON. Plain JSON goes out as it is; every other
// form is encoded from the decoded object. It never changes.
type object struct {
	resource       *Resource
	key            string
	json           []byte // as served, without a final newline
	revision       int64  // of the latest write
	createRevision int64  // of the write that created it
	broken         error  // the API error for a stored value that cannot be read; nil: it can

	derived atomic.Pointer[derived] // nil until it is first asked for
	run     atomic.Pointer[run]     // begins with the object; nil until it is first asked for
	id      uint64                  // no other object has it; 0: it stands in no list
	border  bool                    // whether it always begins a run
	head    uint16                  // length of the first part of Finished
}

// lastID is the id that was given last.
var lastID atomic.Uint64

// derived is what was once made of an object's JSON.
type derived struct {
	once sync.Once
	data []byte
}

var (
	_ runtime.Object          = (*object)(nil)
	_ runtime.CacheableObject = (*object)(nil)
	_ runtime.Object          = (*objectList)(nil)
	_ runtime.CacheableObject = (*objectList)(nil)
)

// newObject makes what is served of a stored key. A value that cannot be read does not keep
// the others from being served: it is a broken object, which lists and watches skip.
func newObject(r *Resource, kv *storage.KeyValue) *object {
	data, obj, err := r.finish(kv.Value, kv.ModRevision)
	if err == nil {
		err = r.checkPlace(kv.Key, objectMeta(obj))
	}
	return finishedObject(r, kv, data, err)
}

// writtenObject is newObject for what has just been written. It takes over the value, which
// is not compressed.
func writtenObject(r *Resource, kv *storage.KeyValue) *object {
	data, err := r.finishOwn(kv.Value, kv.ModRevision)
	return finishedObject(r, kv, data, err)
}

func finishedObject(r *Resource, kv *storage.KeyValue, data []byte, err error) *object {
	o := &object{
		resource: r, key: kv.Key, json: data, revision: kv.ModRevision, createRevision: kv.CreateRevision,
		id: lastID.Add(1), border: isBorder(kv.Key), head: r.typeHeadLen(),
	}
	if err != nil {
		o.json, o.broken = nil, r.unreadable(kv.Key, err)
	}
	return o
}

// at returns the object as a change of the revision left it.
func (o *object) at(revision int64) *object {
	if o.broken != nil {
		return o
	}
	return &object{
		resource: o.resource, key: o.key, revision: revision, createRevision: o.createRevision, head: o.head,
		json: replaceRevision(o.json, o.revision, revision),
	}
}

// size is that of the object's value, uncompressed.
func (o *object) size() int { return len(o.json) - len(appendVersion(nil, o.revision)) }

// decode returns a typed copy, for whoever wants to change it.
func (o *object) decode() (runtime.Object, error) {
	if o.broken != nil {
		return nil, o.broken
	}
	return o.resource.decodeJSON(o.json)
}

// metadata returns the object's metadata without decoding the rest.
func (o *object) metadata() (*metav1.ObjectMeta, error) {
	if o.broken != nil {
		return nil, o.broken
	}
	metadata, err := decodeMetadata(metadataOf(o.json))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.key, err)
	}
	return metadata, nil
}

func decodeMetadata(data []byte) (*metav1.ObjectMeta, error) {
	metadata := &metav1.ObjectMeta{}
	if reader := objectjson.NewReader(data); reader.ObjectMeta(metadata) && reader.End() {
		return metadata, nil
	}
	metadata = &metav1.ObjectMeta{}
	return metadata, kjson.UnmarshalCaseSensitivePreserveInts(data, metadata)
}

// labels are what label selectors look at; a broken object has none.
func (o *object) labels() labels.Set {
	accessor, err := o.metadata()
	if err != nil {
		return nil
	}
	return accessor.Labels
}

// Finished returns the object as plain JSON, without a newline, in two parts: the opening
// brace with kind and apiVersion, in whose place an item of a list has a mere brace, and
// the rest. Neither may be changed.
func (o *object) Finished() (head, rest []byte, err error) {
	if o.broken != nil {
		return nil, nil, o.broken
	}
	return o.json[:o.head], o.json[o.head:], nil
}

// typeHeadLen is the length of typeHead.
func (r *Resource) typeHeadLen() uint16 {
	gvk := r.GroupVersionKind()
	return uint16(len(`{"kind":"","apiVersion":"",`) + len(gvk.Kind) + len(gvk.GroupVersion().String()))
}

// Derived returns what derive makes of the second part of Finished. It is made once and kept
// with the object, for all who ask: derive must always be the same. The object is not
// broken.
func (o *object) Derived(derive func(rest []byte) []byte) []byte {
	d := o.derived.Load()
	if d == nil {
		o.derived.CompareAndSwap(nil, &derived{})
		d = o.derived.Load()
	}
	d.once.Do(func() { d.data = derive(o.json[o.head:]) })
	return d.data
}

// CacheEncode has encode write the decoded object.
func (o *object) CacheEncode(_ runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	obj, err := o.decode()
	if err != nil {
		return err
	}
	return encode(obj, w)
}

// GetObject decodes the object. One that cannot be decoded yields an empty object.
func (o *object) GetObject() runtime.Object {
	obj, err := o.decode()
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

// objectList is a list of finished objects, put together only while it is written.
type objectList struct {
	resource  *Resource
	meta      metav1.ListMeta
	objects   []*object
	selected  bool // whether others may lie between them
	continued bool // whether others may precede them

	unreadable unreadableKeys // that it leaves out
}

// FinishedItems returns the list as plain JSON up to its first item, and the items, each of
// them a finished object.
func (l *objectList) FinishedItems() (head []byte, items iter.Seq[runtime.Object]) {
	kind := l.kind()
	head = append(head, `{"kind":`...)
	head = objectjson.AppendString(head, kind.Kind)
	head = append(head, `,"apiVersion":`...)
	head = objectjson.AppendString(head, kind.GroupVersion().String())
	head = append(head, `,"metadata":{"selfLink":`...)
	head = objectjson.AppendString(head, l.meta.SelfLink)
	head = append(head, `,"resourceVersion":`...)
	head = objectjson.AppendString(head, l.meta.ResourceVersion)
	if l.meta.Continue != "" {
		head = append(head, `,"continue":`...)
		head = objectjson.AppendString(head, l.meta.Continue)
	}
	if l.meta.RemainingItemCount != nil {
		head = append(head, `,"remainingItemCount":`...)
		head = strconv.AppendInt(head, *l.meta.RemainingItemCount, 10)
	}
	head = append(head, `},"items":[`...)
	return head, func(yield func(runtime.Object) bool) {
		for _, o := range l.objects {
			if !yield(o) {
				return
			}
		}
	}
}

// CacheEncode has encode write the decoded list.
func (l *objectList) CacheEncode(_ runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	list, err := l.decode()
	if err != nil {
		return err
	}
	return encode(list, w)
}

func (l *objectList) decode() (runtime.Object, error) {
	list := l.resource.NewList()
	items := make([]runtime.Object, len(l.objects))
	for i, o := range l.objects {
		obj, err := o.decode()
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
	accessor.SetContinue(l.meta.Continue)
	accessor.SetRemainingItemCount(l.meta.RemainingItemCount)
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
