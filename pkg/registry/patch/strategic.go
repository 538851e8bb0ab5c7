package patch

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"
)

// MaxMergedElements bounds the lists that a strategic merge patch may merge. The library
// takes the square of their length: some 25 ms for this many, an hour for as many as a
// request has room for.
const MaxMergedElements = 1000

// weightOfPair is what a pair of elements of the longest list weighs, in bytes: the library
// compares each element with each, in up to three lists of an object.
const weightOfPair = 10

// strategic is a strategic merge patch.
type strategic struct {
	patch map[string]any
	of    strategicpatch.PatchMetaFromStruct
	// merged names the members of an object that have or are lists that it merges.
	merged map[string]bool
}

func parseStrategicPatch(data []byte, of runtime.Object) (*Patch, error) {
	var s strategic
	faults, err := kjson.UnmarshalStrict(data, &s.patch)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if s.of, err = strategicpatch.NewPatchMetaFromStruct(of); err != nil {
		return nil, err
	}
	concerns := members{names: keys(s.patch)}
	s.merged = map[string]bool{}
	for name := range s.patch {
		concerns.all = concerns.all || strings.HasPrefix(name, "$") // a directive for the whole object
		if s.merges(name) {
			s.merged[listNamed(name)] = true
		}
	}
	return &Patch{Faults: faults, concerns: concerns, apply: s.apply, weigh: s.weigh}, nil
}

// weigh returns what merging lists costs.
func (s *strategic) weigh(before []byte) int {
	var object map[string]any
	named, _, err := divide(before, s.merged)
	if err == nil {
		err = kjson.UnmarshalCaseSensitivePreserveInts(named, &object)
	}
	if err != nil {
		return 0 // Apply fails
	}
	n := s.longestMerged(object)
	if n > MaxMergedElements {
		return 0
	}
	return n * n * weightOfPair
}

func (s *strategic) apply(before []byte) ([]byte, error) {
	var object map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(before, &object); err != nil {
		return nil, err
	}
	if n := s.longestMerged(object); n > MaxMergedElements {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the lists that a strategic merge patch may merge have at most %d elements, here is one of %d", MaxMergedElements, n))
	}
	merged, err := s.merge(object)
	switch {
	case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
		errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList),
		errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
		return nil, apierrors.NewBadRequest(err.Error())
	case err != nil:
		return nil, unprocessable(err.Error())
	}
	return json.Marshal(merged)
}

// longestMerged is the length of the longest list in what the patch may merge, and of the
// object in what it names. Top-level lists that are always replaced do not count.
func (s *strategic) longestMerged(object map[string]any) int {
	longest := 0
	for key, value := range s.patch {
		if s.merges(key) {
			longest = max(longest, longestIn(value), longestNamed(object, key, value))
		}
	}
	return longest
}

// merges reports whether a key at the top of the patch may merge lists.
func (s *strategic) merges(key string) bool {
	_, meta, err := s.of.LookupPatchMetadataForSlice(key)
	return err != nil || slices.Contains(meta.GetPatchStrategies(), "merge")
}

// listNamed returns the member of an object that a key of a patch names: directives such as
// $setElementOrder name a list behind a slash.
func listNamed(key string) string {
	if strings.HasPrefix(key, "$") {
		_, key, _ = strings.Cut(key, "/")
	}
	return key
}

// longestNamed is the length of the longest list of the object in what a key of the patch
// names with its value.
func longestNamed(object map[string]any, key string, value any) int {
	key = listNamed(key)
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

// errNotScalar tells at which patches the library panics.
var errNotScalar = fmt.Errorf("%w: $retainKeys, merge keys, and elements that $setElementOrder sorts or $deleteFromPrimitiveList deletes must be strings, numbers or booleans", mergepatch.ErrUnsupportedStrategicMergePatchFormat)

// merge is the library's merge with an error in place of a panic. The library hashes and
// compares elements of lists whatever they are, and panics at objects, lists and null.
// Whether it comes to that depends on the patch, the object and the tags of its type
// together, so that a check beforehand would have to merge as well.
func (s *strategic) merge(object map[string]any) (merged map[string]any, err error) {
	defer func() {
		if recover() != nil {
			merged, err = nil, errNotScalar
		}
	}()
	patch := runtime.DeepCopyJSON(s.patch) // the library changes it
	return strategicpatch.StrategicMergeMapPatchUsingLookupPatchMeta(object, patch, s.of)
}
