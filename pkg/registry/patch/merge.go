package patch

import (
	"bytes"
	"encoding/json"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kjson "sigs.k8s.io/json"
)

// parseMergePatch reads a JSON Merge Patch (RFC 7386). The library that reads JSON patches
// knows these, too, but decodes every value again for each level above it.
func parseMergePatch(data []byte) (*Patch, error) {
	var fields map[string]any
	faults, err := kjson.UnmarshalStrict(data, &fields)
	isNoJSON, _ := kjson.SyntaxErrorOffset(err)
	switch {
	case isNoJSON, err == nil && fields == nil:
		return nil, apierrors.NewBadRequest("invalid JSON patch") // in kube-apiserver's words
	case err != nil:
		return nil, malformed(err)
	}
	if fields, err = decodeNumbers(data); err != nil {
		return nil, malformed(err)
	}
	apply := func(before []byte) ([]byte, error) {
		object, err := decodeNumbers(before)
		if err != nil {
			return nil, err
		}
		return json.Marshal(merge(object, fields))
	}
	return &Patch{Faults: faults, concerns: members{names: keys(fields)}, apply: apply}, nil
}

// decodeNumbers decodes an object with its numbers as they are written: an object's decoder
// takes 1 where it refuses 1.0.
func decodeNumbers(data []byte) (object map[string]any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	err = decoder.Decode(&object)
	return object, err
}

// merge returns the target, which it changes, with the patch merged into it, which it leaves
// alone.
func merge(target any, patch map[string]any) map[string]any {
	merged, ok := target.(map[string]any)
	if !ok {
		merged = make(map[string]any, len(patch))
	}
	for name, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(merged, name)
		case map[string]any:
			merged[name] = merge(merged[name], value)
		default:
			merged[name] = withoutNulls(value)
		}
	}
	return merged
}

// withoutNulls leaves nulls out of the objects in a list, as kube-apiserver does.
func withoutNulls(value any) any {
	switch value := value.(type) {
	case map[string]any:
		return merge(nil, value)
	case []any:
		list := make([]any, len(value))
		for i, element := range value {
			list[i] = withoutNulls(element)
		}
		return list
	}
	return value
}
