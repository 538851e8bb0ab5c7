package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"
)

// maxMergedElements bounds the lists that strategicpatch may have to merge, for which it
// needs the square of their length: some 25 ms for this many, an hour for as many as a
// request has room for.
const maxMergedElements = 1000

func (p *patcher) strategicPatch() (document, error) {
	var decoded map[string]any
	faults, err := kjson.UnmarshalStrict(p.patch, &decoded)
	if err != nil {
		return document{}, apierrors.NewBadRequest(err.Error())
	}
	apply := func(before []byte) ([]byte, error) {
		var object map[string]any
		if err := kjson.UnmarshalCaseSensitivePreserveInts(before, &object); err != nil {
			return nil, err
		}
		if n := p.longestMerged(object, decoded); n > maxMergedElements {
			return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the lists that a strategic merge patch may merge have at most %d elements, here is one of %d", maxMergedElements, n))
		}
		return p.mergeStrategic(object, decoded)
	}
	return document{apply: apply, faults: faults, metadataOnly: onlyMetadata(decoded)}, nil
}

// longestMerged is the length of the longest list in what the patch may merge, and of the
// object in what it names. The fields that are always replaced do not count.
func (p *patcher) longestMerged(object, patch map[string]any) int {
	longest := 0
	for key, value := range patch {
		if slices.ContainsFunc(p.store.Atomic, func(f AtomicField) bool { return f.Name == key }) {
			continue
		}
		longest = max(longest, longestIn(value), longestNamed(object, key, value))
	}
	return longest
}

// longestNamed is the length of the longest list of the object in what a key of the patch
// names with its value; directives such as $setElementOrder name a list behind a slash.
func longestNamed(object map[string]any, key string, value any) int {
	if strings.HasPrefix(key, "$") {
		_, key, _ = strings.Cut(key, "/")
	}
	patch, merges := value.(map[string]any)
	inObject, nested := object[key].(map[string]any)
	if !merges || !nested {
		return longestIn(object[key])
	}
	longest := 0
	for key, value := range patch {
		longest = max(longest, longestNamed(inObject, key, value))
	}
	return longest
}

func longestIn(value any) int {
	longest := 0
	switch value := value.(type) {
	case map[string]any:
		for _, v := range value {
			longest = max(longest, longestIn(v))
		}
	case []any:
		longest = len(value)
		for _, v := range value {
			longest = max(longest, longestIn(v))
		}
	}
	return longest
}

func (p *patcher) mergeStrategic(object, patch map[string]any) ([]byte, error) {
	merged, err := mergeMapPatch(object, patch, p.store.New())
	switch {
	case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
		errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList),
		errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
		return nil, apierrors.NewBadRequest(err.Error())
	case err != nil:
		return nil, unprocessable(err.Error())
	}
	return json.Marshal(&unstructured.Unstructured{Object: merged})
}

// errNotScalar says of which patches strategicpatch panics.
var errNotScalar = fmt.Errorf("%w: $retainKeys, merge keys, and elements that $setElementOrder sorts or $deleteFromPrimitiveList deletes must be strings, numbers or booleans", mergepatch.ErrUnsupportedStrategicMergePatchFormat)

// mergeMapPatch is strategicpatch's merge with an error in place of a panic. strategicpatch
// hashes and compares elements of lists without a look at what they are, and panics at
// objects, lists and null. Whether it comes to that depends on the patch, the object and the
// tags of its type together, so that a check beforehand would have to merge as well.
func mergeMapPatch(object, patch map[string]any, of runtime.Object) (merged map[string]any, err error) {
	defer func() {
		if recover() != nil {
			merged, err = nil, errNotScalar
		}
	}()
	return strategicpatch.StrategicMergeMapPatch(object, patch, of)
}
