package registry

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
)

const (
	// maxPatchOperations bounds the operations of a JSON patch, as kube-apiserver does.
	maxPatchOperations = 10_000
	// maxPatchCopies bounds what the copies of one JSON patch add up to, in bytes, as
	// kube-apiserver does: copies of copies double with every operation.
	maxPatchCopies = 3 << 20
	// maxPatchNesting bounds how deep a patch may be nested, and how far into a document a
	// JSON pointer may lead. The libraries take time for every level of every value.
	maxPatchNesting = 100
)

// The library knows one limit for all of the process.
func init() { jsonpatch.AccumulatedCopySizeLimit = maxPatchCopies }

func (p *patcher) jsonPatch() (document, error) {
	var operations []struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		From  string `json:"from"`
		Value any    `json:"value"`
	}
	faults, err := kjson.UnmarshalStrict(p.patch, &operations)
	if err != nil {
		return document{}, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	for i, fault := range faults {
		faults[i] = fmt.Errorf("json patch %w", fault)
	}
	if len(operations) > maxPatchOperations {
		return document{}, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxPatchOperations, len(operations)))
	}
	decoded, err := jsonpatch.DecodePatch(p.patch)
	if err != nil {
		return document{}, apierrors.NewBadRequest(err.Error())
	}
	doc := document{faults: faults, metadataOnly: true}
	for i, operation := range operations {
		if max(strings.Count(operation.Path, "/"), strings.Count(operation.From, "/")) > maxPatchNesting {
			return document{}, nestedTooDeep(fmt.Sprintf("operation %d leads", i))
		}
		doc.metadataOnly = doc.metadataOnly && inMetadata(operation.Path) && (operation.From == "" || inMetadata(operation.From))
	}
	doc.apply = func(before []byte) ([]byte, error) { return applyOperations(decoded, before) }
	return doc, nil
}

// applyOperations is the library's Apply. Where that fails the client is told as little as
// kube-apiserver says, except of the limit of copies.
func applyOperations(patch jsonpatch.Patch, before []byte) (patched []byte, err error) {
	defer func() {
		// The library writes into maps that a null has left nil, and compares values that
		// a test does not give.
		if recover() != nil {
			patched, err = nil, unprocessable("")
		}
	}()
	patched, err = patch.Apply(before)
	var tooLarge *jsonpatch.AccumulatedCopySizeError
	switch {
	case errors.As(err, &tooLarge):
		return nil, unprocessable(fmt.Sprintf("the copies of a JSON patch add up to more than %d bytes, the limit", maxPatchCopies))
	case err != nil:
		return nil, unprocessable("")
	}
	return patched, nil
}

// unprocessable is the 422 for a patch that cannot be applied to the object as it is, with
// the cause where there is one to tell.
func unprocessable(cause string) error {
	err := apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", "", 0, false)
	if cause != "" {
		err.ErrStatus.Message += ": " + shorten([]byte(cause))
	}
	return err
}

// inMetadata says whether a JSON pointer leads into the metadata.
func inMetadata(pointer string) bool { return strings.HasPrefix(pointer, "/metadata/") }

// checkNesting refuses JSON that is nested too deep. What it says of data that is no JSON
// does not matter.
func checkNesting(data []byte) error {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			end := stringEnd(data[i:])
			if end < 0 {
				return nil
			}
			i += end
		case '{', '[':
			if depth++; depth > maxPatchNesting {
				return nestedTooDeep("the patch is nested")
			}
		case '}', ']':
			depth--
		}
	}
	return nil
}

func nestedTooDeep(what string) error {
	return apierrors.NewBadRequest(fmt.Sprintf("%s more than %d levels deep, the limit", what, maxPatchNesting))
}
