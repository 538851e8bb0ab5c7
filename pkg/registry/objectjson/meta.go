package objectjson

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ObjectMeta takes an object's metadata.
func (r *Reader) ObjectMeta(to *metav1.ObjectMeta) bool {
	return r.Object(func(name string) (int, bool) {
		switch name {
		case "name":
			return 0, r.String(&to.Name)
		case "generateName":
			return 1, r.String(&to.GenerateName)
		case "namespace":
			return 2, r.String(&to.Namespace)
		case "selfLink":
			return 3, r.String(&to.SelfLink)
		case "uid":
			return 4, r.String((*string)(&to.UID))
		case "resourceVersion":
			return 5, r.String(&to.ResourceVersion)
		case "generation":
			return 6, r.Int64(&to.Generation)
		case "creationTimestamp":
			return 7, r.Time(&to.CreationTimestamp)
		case "deletionTimestamp":
			return 8, Pointer(r, &to.DeletionTimestamp, r.Time)
		case "deletionGracePeriodSeconds":
			return 9, Pointer(r, &to.DeletionGracePeriodSeconds, r.Int64)
		case "labels":
			return 10, r.StringMap(&to.Labels)
		case "annotations":
			return 11, r.StringMap(&to.Annotations)
		case "ownerReferences":
			return 12, List(r, &to.OwnerReferences, r.ownerReference)
		case "finalizers":
			return 13, List(r, &to.Finalizers, r.String)
		case "managedFields":
			return 14, List(r, &to.ManagedFields, r.managedFieldsEntry)
		}
		return 0, false
	})
}

func (r *Reader) ownerReference(to *metav1.OwnerReference) bool {
	return r.Object(func(name string) (int, bool) {
		switch name {
		case "apiVersion":
			return 0, r.String(&to.APIVersion)
		case "kind":
			return 1, r.String(&to.Kind)
		case "name":
			return 2, r.String(&to.Name)
		case "uid":
			return 3, r.String((*string)(&to.UID))
		case "controller":
			return 4, Pointer(r, &to.Controller, r.Bool)
		case "blockOwnerDeletion":
			return 5, Pointer(r, &to.BlockOwnerDeletion, r.Bool)
		}
		return 0, false
	})
}

func (r *Reader) managedFieldsEntry(to *metav1.ManagedFieldsEntry) bool {
	return r.Object(func(name string) (int, bool) {
		switch name {
		case "manager":
			return 0, r.String(&to.Manager)
		case "operation":
			return 1, r.String((*string)(&to.Operation))
		case "apiVersion":
			return 2, r.String(&to.APIVersion)
		case "time":
			return 3, Pointer(r, &to.Time, r.Time)
		case "fieldsType":
			return 4, r.String(&to.FieldsType)
		case "fieldsV1":
			return 5, Pointer(r, &to.FieldsV1, r.fieldsV1)
		case "subresource":
			return 6, r.String(&to.Subresource)
		}
		return 0, false
	})
}

// fieldsV1 takes a set of fields as it stands there, white space included.
func (r *Reader) fieldsV1(to *metav1.FieldsV1) bool {
	if r.peek() != '{' {
		return false
	}
	start := r.at
	ok := r.fieldSet(maxFieldDepth)
	to.SetRawString(r.text[start:r.at])
	return ok
}

// maxFieldDepth is how deep sets of fields may be nested; those of real objects are a
// fourth of that.
const maxFieldDepth = 64

// fieldSet takes objects of objects, and nothing else.
func (r *Reader) fieldSet(depth int) bool {
	return depth > 0 && r.members(func(string) bool { return r.fieldSet(depth - 1) })
}

// AppendObjectMeta appends an object's metadata. The error is that of FieldsV1 which are
// no JSON.
func AppendObjectMeta(dst []byte, meta *metav1.ObjectMeta) (_ []byte, err error) {
	dst = append(dst, '{')
	dst = AppendField(dst, "name", meta.Name)
	dst = AppendField(dst, "generateName", meta.GenerateName)
	dst = AppendField(dst, "namespace", meta.Namespace)
	dst = AppendField(dst, "selfLink", meta.SelfLink)
	dst = AppendField(dst, "uid", string(meta.UID))
	dst = AppendField(dst, "resourceVersion", meta.ResourceVersion)
	if meta.Generation != 0 {
		dst = strconv.AppendInt(AppendName(dst, "generation"), meta.Generation, 10)
	}
	if !meta.CreationTimestamp.IsZero() {
		dst = appendTime(AppendName(dst, "creationTimestamp"), &meta.CreationTimestamp)
	}
	if meta.DeletionTimestamp != nil {
		dst = appendTime(AppendName(dst, "deletionTimestamp"), meta.DeletionTimestamp)
	}
	if meta.DeletionGracePeriodSeconds != nil {
		dst = strconv.AppendInt(AppendName(dst, "deletionGracePeriodSeconds"), *meta.DeletionGracePeriodSeconds, 10)
	}
	dst = appendStringMap(dst, "labels", meta.Labels)
	dst = appendStringMap(dst, "annotations", meta.Annotations)
	dst = AppendList(dst, "ownerReferences", meta.OwnerReferences, appendOwnerReference)
	dst = AppendList(dst, "finalizers", meta.Finalizers, func(dst []byte, finalizer *string) []byte {
		return AppendString(dst, *finalizer)
	})
	dst = AppendList(dst, "managedFields", meta.ManagedFields, func(dst []byte, entry *metav1.ManagedFieldsEntry) []byte {
		dst, failed := appendManagedFieldsEntry(dst, entry)
		if failed != nil {
			err = failed
		}
		return dst
	})
	return append(dst, '}'), err
}

func appendOwnerReference(dst []byte, owner *metav1.OwnerReference) []byte {
	dst = AppendString(append(dst, `{"apiVersion":`...), owner.APIVersion)
	dst = AppendString(append(dst, `,"kind":`...), owner.Kind)
	dst = AppendString(append(dst, `,"name":`...), owner.Name)
	dst = AppendString(append(dst, `,"uid":`...), string(owner.UID))
	if owner.Controller != nil {
		dst = strconv.AppendBool(AppendName(dst, "controller"), *owner.Controller)
	}
	if owner.BlockOwnerDeletion != nil {
		dst = strconv.AppendBool(AppendName(dst, "blockOwnerDeletion"), *owner.BlockOwnerDeletion)
	}
	return append(dst, '}')
}

func appendManagedFieldsEntry(dst []byte, entry *metav1.ManagedFieldsEntry) (_ []byte, err error) {
	dst = append(dst, '{')
	dst = AppendField(dst, "manager", entry.Manager)
	dst = AppendField(dst, "operation", string(entry.Operation))
	dst = AppendField(dst, "apiVersion", entry.APIVersion)
	if entry.Time != nil {
		dst = appendTime(AppendName(dst, "time"), entry.Time)
	}
	dst = AppendField(dst, "fieldsType", entry.FieldsType)
	if entry.FieldsV1 != nil {
		dst, err = appendFieldsV1(AppendName(dst, "fieldsV1"), entry.FieldsV1)
	}
	dst = AppendField(dst, "subresource", entry.Subresource)
	return append(dst, '}'), err
}

// appendFieldsV1 appends what encoding/json would not change, or else what it makes of it.
func appendFieldsV1(dst []byte, fields *metav1.FieldsV1) ([]byte, error) {
	raw := fields.GetRawString()
	if reader := (Reader{text: raw}); isCompact(raw) && reader.fieldSet(maxFieldDepth) && reader.at == len(raw) {
		return append(dst, raw...), nil
	}
	data, err := json.Marshal(fields)
	return append(dst, data...), err
}

// isCompact reports whether text has no white space and nothing that encoding/json would
// escape.
func isCompact(text string) bool {
	for i := range len(text) {
		if c := text[i]; c != '"' && c != '\\' && !neverEscaped[c] || c == ' ' {
			return false
		}
	}
	return true
}

// appendTime appends a time, null for the zero time.
func appendTime(dst []byte, at *metav1.Time) []byte {
	if at.IsZero() {
		return append(dst, "null"...)
	}
	dst = append(dst, '"')
	dst = at.UTC().AppendFormat(dst, time.RFC3339)
	return append(dst, '"')
}

func appendStringMap(dst []byte, name string, values map[string]string) []byte {
	if len(values) == 0 {
		return dst
	}
	dst = append(AppendName(dst, name), '{')
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for i, key := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, key), ':')
		dst = AppendString(dst, values[key])
	}
	return append(dst, '}')
}
