package patch

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kjson "sigs.k8s.io/json"

	"github.com/berth-project/berth/pkg/yamljson"
)

const (
	// MaxOperations bounds the operations of a JSON patch, as kube-apiserver does.
	MaxOperations = 10_000
	// MaxCopies bounds what the copies of one JSON patch add up to, in bytes, as
	// kube-apiserver does: copies of copies double with every operation.
	MaxCopies = 3 << 20
	// maxMoves bounds the elements that a JSON patch may move in lists, as it inserts and
	// removes others: some 0.7 s.
	maxMoves = 1 << 27
	// maxDecoded bounds the bytes that a JSON patch may decode: the library decodes a value
	// anew for each level above it that an operation leads through. It takes some 1.4 s for
	// this many, which are six levels of the largest object.
	maxDecoded = 48 << 20
	// movesPerByte is how many elements move in the time that it takes to decode a byte.
	movesPerByte = 8
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
	work := work{size: len(data)}
	for i, operation := range operations {
		for _, pointer := range []string{operation.Path, operation.From} {
			if strings.Count(pointer, "/") > MaxNesting {
				return nil, nestedTooDeep(fmt.Sprintf("operation %d leads", i))
			}
			p.concerns.add(pointer)
		}
		p.concerns.all = p.concerns.all || operation.Path == "" // the whole object is tested or replaced
		work.add(operation)
	}
	p.weigh = func(before []byte) int { return work.weigh(p.concerned(before)) }
	p.apply = func(before []byte) ([]byte, error) {
		if err := work.check(before); err != nil {
			return nil, err
		}
		return applyOperations(decoded, before)
	}
	return p, nil
}

// work is what the operations of a patch cost, at most.
type work struct {
	size    int // of the patch, in bytes
	moves   int // how often an element is inserted into a list or removed from one
	copies  int // how often something is copied
	inserts int // by how many elements a list may become longer
	longest int // how long a list is that the patch brings
	steps   int // of the pointer that leads furthest, into the object or a value that is tested
	grown   int // levels by which moves may nest the object deeper
}

func (w *work) add(o operation) {
	steps, from := strings.Count(o.Path, "/"), strings.Count(o.From, "/")
	switch o.Op {
	case "copy":
		w.copies++
		fallthrough
	case "add":
		w.inserts++
		w.moves += indexes(o.Path)
	case "move":
		w.inserts++
		w.moves += indexes(o.From) + indexes(o.Path)
		w.grown += max(0, steps-from)
	case "remove":
		w.moves += indexes(o.Path)
	case "test":
		steps += levelsOf(o.Value)
	}
	w.longest = max(w.longest, longestIn(o.Value))
	w.steps = max(w.steps, steps, from)
}

// lists returns how long a list becomes at most.
func (w *work) lists(before []byte) int {
	return max(yamljson.LongestList(before), w.longest) + w.inserts
}

// levels returns how many levels the patch leads through, and how many bytes there are to decode
// at each of them, at most: each copy can double them.
func (w *work) levels(before []byte) (deep, size int) {
	size = len(before) + w.size
	return w.steps + w.grown, size + min(MaxCopies, size<<min(w.copies, 22)-size)
}

// weigh returns what the patch costs for an object, in bytes that are decoded; 0 if it is
// refused.
func (w *work) weigh(before []byte) int {
	if w.check(before) != nil {
		return 0
	}
	deep, size := w.levels(before)
	return deep*size + w.moves*w.lists(before)/movesPerByte
}

// check refuses a patch that costs too much for an object.
func (w *work) check(before []byte) error {
	if longest := w.lists(before); w.moves*longest > maxMoves {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("%d operations on elements of lists of up to %d are too many, the limit for such lists is %d", w.moves, longest, maxMoves/longest))
	}
	if deep, size := w.levels(before); deep*size > maxDecoded {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("operations that lead %d levels deep are too costly for a patch and an object of %d bytes together, copies included; the limit for these is %d levels", deep, size, maxDecoded/size))
	}
	return nil
}

// levelsOf is how deep a value is nested.
func levelsOf(value any) int {
	deepest := 0
	switch value := value.(type) {
	case map[string]any:
		for _, v := range value {
			deepest = max(deepest, 1+levelsOf(v))
		}
	case []any:
		for _, v := range value {
			deepest = max(deepest, 1+levelsOf(v))
		}
	}
	return deepest
}

// add adds the member that a JSON pointer leads into. What stands before the first slash does
// not matter to the library.
func (m *members) add(pointer string) {
	if _, steps, ok := strings.Cut(pointer, "/"); ok {
		name, _, _ := strings.Cut(steps, "/")
		m.names[strings.NewReplacer("~1", "/", "~0", "~").Replace(name)] = true
	}
}

// indexes is 1 where a JSON pointer may name an element of a list by its index, else 0.
func indexes(pointer string) int {
	if _, err := strconv.Atoi(pointer[strings.LastIndexByte(pointer, '/')+1:]); err != nil {
		return 0
	}
	return 1
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
