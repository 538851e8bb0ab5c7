package patch

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kjson "sigs.k8s.io/json"
)

const (
	// MaxOperations bounds the operations of a JSON patch, as kube-apiserver does.
	MaxOperations = 10_000
	// MaxCopies bounds what the copies of one JSON patch add up to, in bytes, as
	// kube-apiserver does: copies of copies double with every operation.
	MaxCopies = 3 << 20
	// maxMoves bounds the elements that a JSON patch may move in lists, as it inserts and
	// removes others: some two seconds.
	maxMoves = 1 << 31
)

// The library knows one limit for the whole process.
func init() { jsonpatch.AccumulatedCopySizeLimit = MaxCopies }

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

func parseJSONPatch(data []byte) (*Patch, error) {
	var operations []operation
	faults, err := kjson.UnmarshalStrict(data, &operations)
	if err != nil {
		return nil, malformed(err)
	}
	for i, fault := range faults {
		faults[i] = fmt.Errorf("json patch %w", fault)
	}
	if len(operations) > MaxOperations {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", MaxOperations, len(operations)))
	}
	decoded, err := jsonpatch.DecodePatch(data)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	p := &Patch{Faults: faults, concerns: members{names: map[string]bool{}}}
	indexes := 0
	for i, operation := range operations {
		for _, pointer := range []string{operation.Path, operation.From} {
			if strings.Count(pointer, "/") > MaxNesting {
				return nil, nestedTooDeep(fmt.Sprintf("operation %d leads", i))
			}
			p.concerns.add(pointer)
			if isIndex(pointer) {
				indexes++
			}
		}
		p.concerns.all = p.concerns.all || operation.Path == "" // the whole object is tested or replaced
	}
	ownCommas := bytes.Count(data, []byte(","))
	p.apply = func(before []byte) ([]byte, error) {
		// No list of either has more elements than there are commas, and copies are no longer
		// than what they are of.
		if longest := bytes.Count(before, []byte(",")) + ownCommas; indexes*longest > maxMoves {
			return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("%d operations on elements of lists are too many for a patch and an object of this size", indexes))
		}
		return applyOperations(decoded, before)
	}
	return p, nil
}

// add adds the member that a JSON pointer leads into. What stands before the first slash does
// not matter to the library.
func (m *members) add(pointer string) {
	if _, steps, ok := strings.Cut(pointer, "/"); ok {
		name, _, _ := strings.Cut(steps, "/")
		m.names[strings.NewReplacer("~1", "/", "~0", "~").Replace(name)] = true
	}
}

// isIndex reports whether a JSON pointer may name an element of a list by its index.
func isIndex(pointer string) bool {
	_, err := strconv.Atoi(pointer[strings.LastIndexByte(pointer, '/')+1:])
	return err == nil
}

// applyOperations is the library's Apply. Where that fails the client is told as little as
// kube-apiserver says, except of the limit of copies.
func applyOperations(patch jsonpatch.Patch, before []byte) (after []byte, err error) {
	defer func() {
		// The library writes into maps that a null has left nil, and compares values that
		// a test does not give.
		if recover() != nil {
			after, err = nil, unprocessable("")
		}
	}()
	after, err = patch.Apply(before)
	var tooLarge *jsonpatch.AccumulatedCopySizeError
	switch {
	case errors.As(err, &tooLarge):
		return nil, unprocessable(fmt.Sprintf("the copies of a JSON patch add up to more than %d bytes, the limit", MaxCopies))
	case err != nil:
		return nil, unprocessable("")
	}
	return after, nil
}
