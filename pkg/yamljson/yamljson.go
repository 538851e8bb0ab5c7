// Package yamljson has what reading a client's YAML and JSON has in common: it converts YAML
// without letting a small document become a large one, bounds nesting and elements, and judges
// faults.
package yamljson

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	sigsyaml "sigs.k8s.io/yaml"
)

// MaxExpanded bounds the size that a document may reach, in bytes, by repeating parts of
// itself: aliases and the prefixes of tags. Documents without those are not bounded here.
const MaxExpanded = 8 << 20

// leastExpanded is what a name or value counts for at least: repeated ones take memory as
// others do, however short they are.
const leastExpanded = MaxExpanded / MaxElements

// ErrTooLarge is the error for a document that would exceed MaxExpanded.
var ErrTooLarge = fmt.Errorf("the aliases and tags of the YAML expand it to more than %d bytes, the limit", MaxExpanded)

// maxDirectives bounds the %TAG directives of a document: the parser compares each with all
// that precede it.
const maxDirectives = 1000

// errDocuments is the error for data of more than one document: to read the first and drop the
// others would do half of what the client asks for.
var errDocuments = errors.New("there is more than one YAML document: send each in a request of its own")

// Convert returns the one document of data as JSON, like sigs.k8s.io/yaml. duplicates
// describes keys that a mapping contains twice, of which the last one wins; it is nil if
// there are none. A document that would expand beyond MaxExpanded is rejected with
// ErrTooLarge before memory is allocated for it.
func Convert(data []byte) (json []byte, duplicates, err error) {
	if err := checkExpanded(data); err != nil {
		return nil, nil, err
	}
	if err := checkDocuments(data); err != nil {
		return nil, nil, err
	}
	if json, err = sigsyaml.YAMLToJSONStrict(data); err == nil {
		return json, nil, nil
	}
	duplicates = err
	if json, err = sigsyaml.YAMLToJSON(data); err != nil {
		return nil, nil, err
	}
	return json, duplicates, nil
}

// Faults returns what duplicates, as Convert returns it, consists of: one text for each key.
// Any other error is one fault.
func Faults(duplicates error) []string {
	_, lines, ok := strings.Cut(duplicates.Error(), "yaml: unmarshal errors:\n")
	if !ok {
		return []string{duplicates.Error()}
	}
	faults := strings.Split(lines, "\n")
	for i := range faults {
		faults[i] = strings.TrimSpace(faults[i])
	}
	return faults
}

// Judge returns what a client is told of fields that are unknown or given twice: an error if
// fieldValidation is Strict, nothing if it is Ignore, and else (Warn is the default) warnings.
func Judge(faults []error, fieldValidation string) (warnings []string, err error) {
	switch {
	case len(faults) == 0, fieldValidation == metav1.FieldValidationIgnore:
		return nil, nil
	case fieldValidation == metav1.FieldValidationStrict:
		return nil, runtime.NewStrictDecodingError(faults)
	}
	for _, fault := range faults {
		warnings = append(warnings, Faults(fault)...)
	}
	return warnings, nil
}

// checkExpanded rejects a document whose aliases and tags would expand it too much. The
// decoder bounds how many aliases it follows, but not their size.
func checkExpanded(data []byte) error {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		// The checks below would find nothing in UTF-16.
		return errors.New("yaml: the encoding must be UTF-8")
	}
	if countDirectives(data) > maxDirectives {
		return fmt.Errorf("yaml: there are more than %d %%TAG directives, the limit", maxDirectives)
	}
	if tags := bytes.Count(data, []byte("!")); tags > 0 && longestDirective(data)*tags > MaxExpanded {
		return ErrTooLarge
	}
	_, err := repeatedBytes(data)
	return err
}

// checkDocuments returns errDocuments if anything but comments comes after the first document. An
// error in what comes first is left for the conversion to tell.
func checkDocuments(data []byte) error {
	if !bytes.Contains(data, []byte("---")) && !bytes.Contains(data, []byte("...")) { // which end documents
		return nil
	}
	documents := yaml.NewDecoder(bytes.NewReader(data))
	var first, next yaml.Node
	if err := documents.Decode(&first); err != nil {
		return nil //nolint:nilerr // see above
	}
	for {
		switch err := documents.Decode(&next); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil, !isEmpty(&next):
			return errDocuments
		}
	}
}

// isEmpty reports whether a document has nothing but comments.
func isEmpty(document *yaml.Node) bool {
	return len(document.Content) == 1 && document.Content[0].Tag == "!!null" && document.Content[0].Value == ""
}

// Repeated returns about how many bytes, and how many names and values at most, a YAML document
// has more once its aliases are expanded. Both are 0 for one that Convert refuses.
func Repeated(data []byte) (size, elements int) {
	size, err := repeatedBytes(data)
	if err != nil {
		return 0, 0
	}
	return size, size / leastExpanded
}

// repeatedBytes is how many bytes the aliases of a document add to it, or ErrTooLarge where it
// then has more than MaxExpanded.
func repeatedBytes(data []byte) (int, error) {
	if bytes.IndexByte(data, '*') < 0 || bytes.IndexByte(data, '&') < 0 {
		return 0, nil
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return 0, err
	}
	all, once := expansion{anchored: map[*yaml.Node]int{}}, expansion{}
	size := all.size(&document)
	if size > MaxExpanded {
		return 0, ErrTooLarge
	}
	return max(0, size-once.size(&document)), nil
}

// countDirectives returns the number of lines that begin with %TAG, except the first line.
func countDirectives(data []byte) int {
	count := 0
	for _, lineBreak := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} { // those of YAML 1.1
		count += bytes.Count(data, []byte(lineBreak+"%TAG"))
	}
	return count
}

// longestDirective returns the length of the longest line after a %TAG. Every tag that uses
// the line's prefix contains a copy of it.
func longestDirective(data []byte) int {
	longest := 0
	for line := range bytes.Lines(data) {
		if _, directive, ok := bytes.Cut(line, []byte("%TAG")); ok {
			longest = max(longest, len(directive))
		}
	}
	return longest
}

// expansion measures a document as JSON with every alias expanded.
type expansion struct {
	// anchored are sizes of anchored nodes; tooMuch while being measured. nil: aliases are not
	// expanded.
	anchored map[*yaml.Node]int
}

// tooMuch stands for every size over the limit, including an infinite one.
const tooMuch = MaxExpanded + 1

func (e *expansion) size(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode && e.anchored == nil {
		return leastExpanded
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Anchor != "" && e.anchored != nil {
		if size, ok := e.anchored[n]; ok {
			return size
		}
		e.anchored[n] = tooMuch
	}
	size := len(`"",`) + quotedLen(n.Value)
	if strings.HasSuffix(n.Tag, "binary") {
		size *= 5 // four letters encode three bytes, each of which JSON may show as \ufffd
	}
	size = max(size, leastExpanded)
	for _, child := range n.Content {
		if size = min(size+e.size(child), tooMuch); size == tooMuch {
			break
		}
	}
	if n.Anchor != "" && e.anchored != nil {
		e.anchored[n] = size
	}
	return size
}

// quotedLen returns an upper bound of the length of a string in JSON, without quotes.
func quotedLen(text string) int {
	size := len(text)
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ', c == '<', c == '>', c == '&':
			size += len(`\u0000`) - 1
		case c == '"', c == '\\':
			size++
		case c >= 0x80: // U+2028 takes twice its three bytes
			size++
		}
	}
	return size
}
