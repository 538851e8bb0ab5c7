package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"
)

// A stored value is the object's JSON as it is served, without its resourceVersion: that
// is the etcd revision, which nobody knows before the write. kind and apiVersion at its
// head say what it is, so that values outlive the binary that wrote them.
//
// A large value is compressed; see pack.
//
// The resourceVersion is put in where encoding/json would have put it, right behind the
// uid, so that serving an object costs one copy and no decoding.

const (
	uidKey     = `"uid":"`
	versionKey = `,"resourceVersion":"`
	metaKey    = `"metadata":{`
)

// encode returns the JSON of an object of New's type. That is the value to store for it
// where it has no resourceVersion.
func (r *Resource) encode(obj runtime.Object) ([]byte, error) {
	if r.EncodeJSON != nil {
		return r.EncodeJSON(obj)
	}
	return json.Marshal(obj)
}

// typeHead is the part of an object that the items of a list leave out.
func (r *Resource) typeHead() string {
	gvk := r.GroupVersionKind()
	return `{"kind":"` + gvk.Kind + `","apiVersion":"` + gvk.GroupVersion().String() + `",`
}

// finish returns the finished JSON of a stored value, which is the value with its
// resourceVersion, and what that decodes to. It always begins with typeHead and the metadata,
// and sigs.k8s.io/json reads it strictly without a fault: nothing that is made of it later
// can fail.
func (r *Resource) finish(stored []byte, revision int64) ([]byte, runtime.Object, error) {
	value, err := unpack(stored)
	if err != nil {
		return nil, nil, err
	}
	if !utf8.Valid(value) {
		return nil, nil, errors.New("it is not valid UTF-8")
	}
	if data := r.withVersion(value, revision); data != nil {
		if obj, err := r.decodeFinished(data); err == nil {
			return data, obj, nil
		}
	}
	return r.finishForeign(value, revision)
}

// finishWritten is finish for a value that this process encoded, whose JSON needs no check.
func (r *Resource) finishWritten(stored []byte, revision int64) ([]byte, error) {
	value, err := unpack(stored)
	if err != nil {
		return nil, err
	}
	if data := r.withVersion(value, revision); data != nil {
		return data, nil
	}
	data, _, err := r.finishForeign(value, revision)
	return data, err
}

// withVersion returns a copy of a canonical value with its resourceVersion; nil: the value is
// not laid out as encode does.
func (r *Resource) withVersion(value []byte, revision int64) []byte {
	at := versionOffset(value, r.typeHead()+metaKey)
	if at < 0 {
		return nil
	}
	out := make([]byte, 0, len(value)+len(versionKey)+1+20)
	out = append(out, value[:at]...)
	out = appendVersion(out, revision)
	return append(out, value[at:]...)
}

// finishOwn is finishWritten for a value that is not compressed and that nobody uses any
// more: it changes the value where there is room for that.
func (r *Resource) finishOwn(value []byte, revision int64) ([]byte, error) {
	at := versionOffset(value, r.typeHead()+metaKey)
	if at < 0 {
		data, _, err := r.finishForeign(value, revision)
		return data, err
	}
	var version [len(versionKey) + len("9223372036854775807") + len(`"`)]byte
	return slices.Insert(value, at, appendVersion(version[:0], revision)...), nil
}

// versionOffset returns where in a canonical value the resourceVersion belongs, or -1 if
// the value is not laid out as encode does. What stands before the uid is names and
// the selfLink, none of which can hold a brace or a quote, so the first uid before the
// first brace is the object's own. A value of another program may have its labels there,
// or a resourceVersion.
func versionOffset(value []byte, head string) int {
	if len(value) < len(head) || string(value[:len(head)]) != head {
		return -1
	}
	rest := value[len(head):]
	plain := rest[:max(bytes.IndexAny(rest, "{}"), 0)]
	at := bytes.Index(plain, []byte(uidKey))
	if at < 0 || bytes.Contains(plain, []byte(versionKey)) {
		return -1
	}
	at += len(uidKey)
	quote := bytes.IndexByte(plain[at:], '"')
	if quote < 0 {
		return -1
	}
	return len(head) + at + quote + 1
}

// finishForeign is finish for a value that is not laid out as encode does, or says more than
// an object holds.
func (r *Resource) finishForeign(value []byte, revision int64) ([]byte, runtime.Object, error) {
	obj, err := r.decodeJSON(value)
	if err != nil {
		return nil, nil, err
	}
	if kind := obj.GetObjectKind().GroupVersionKind(); !kind.Empty() && kind != r.GroupVersionKind() {
		return nil, nil, fmt.Errorf("it is of kind %q and apiVersion %q", kind.Kind, kind.GroupVersion())
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, nil, err
	}
	accessor.SetResourceVersion(formatRevision(revision))
	obj.GetObjectKind().SetGroupVersionKind(r.GroupVersionKind())
	data, err := r.encode(obj)
	if err != nil {
		return nil, nil, err
	}
	obj, err = r.decodeFinished(data)
	return data, obj, err
}

// decodeFinished decodes finished JSON, in which there must be no fault.
func (r *Resource) decodeFinished(data []byte) (runtime.Object, error) {
	obj, faults, err := r.decodeStrict(data)
	if err == nil {
		err = errors.Join(faults...)
	}
	if err != nil {
		return nil, err
	}
	return obj, checkDepth(objectMeta(obj))
}

// finishesTo says whether finish makes of a value what finished is, without making it.
func (r *Resource) finishesTo(value []byte, revision int64, finished []byte) bool {
	at := versionOffset(value, r.typeHead()+metaKey)
	if at < 0 {
		made, _, err := r.finish(value, revision)
		return err == nil && bytes.Equal(made, finished)
	}
	rest, ok := bytes.CutPrefix(finished, value[:at])
	if ok {
		rest, ok = bytes.CutPrefix(rest, appendVersion(nil, revision))
	}
	return ok && bytes.Equal(rest, value[at:])
}

func appendVersion(dst []byte, revision int64) []byte {
	dst = strconv.AppendInt(append(dst, versionKey...), revision, 10)
	return append(dst, '"')
}

// replaceRevision returns finished JSON with another resourceVersion. Its own is the first
// of that value: only names stand before it.
func replaceRevision(finished []byte, from, to int64) []byte {
	old := append(strconv.AppendInt([]byte(`"resourceVersion":"`), from, 10), '"')
	replacement := append(strconv.AppendInt([]byte(`"resourceVersion":"`), to, 10), '"')
	return bytes.Replace(finished, old, replacement, 1)
}

// metadataOf returns the metadata of finished JSON, braces included.
func metadataOf(finished []byte) []byte {
	start := bytes.Index(finished, []byte(metaKey)) + len(metaKey) - 1
	depth, quoted := 0, false
	for i := start; i < len(finished); i++ {
		switch finished[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case '{':
			if !quoted {
				depth++
			}
		case '}':
			if quoted {
				break
			}
			if depth--; depth == 0 {
				return finished[start : i+1]
			}
		}
	}
	return nil
}

// decodeJSON decodes what is stored, also by other programs: what is unknown is left out.
func (r *Resource) decodeJSON(data []byte) (runtime.Object, error) {
	obj := r.New()
	if r.DecodePlainJSON != nil && r.DecodePlainJSON(data, obj) {
		return obj, nil
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, obj); err != nil {
		return nil, err
	}
	return obj, nil
}

// DecodeInto decodes JSON into obj, an empty object of New's type, and returns what is
// unknown or repeated in it. Names are case-sensitive. The error says what else is wrong.
func (r *Resource) DecodeInto(data []byte, obj runtime.Object) (faults []error, err error) {
	if r.DecodePlainJSON != nil && r.DecodePlainJSON(data, obj) {
		return nil, nil
	}
	return kjson.UnmarshalStrict(data, obj)
}

// decodeStrict is DecodeInto for a new object.
func (r *Resource) decodeStrict(data []byte) (obj runtime.Object, faults []error, err error) {
	obj = r.New()
	faults, err = r.DecodeInto(data, obj)
	return obj, faults, err
}
