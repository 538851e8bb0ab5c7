// Package yamljson turns YAML into JSON without letting a small document become a large one.
package yamljson

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// MaxExpanded bounds what a document may grow to by what it says once and means many times,
// in bytes: aliases and the prefixes of tags. A document without those has no bound here.
const MaxExpanded = 8 << 20

// ErrTooLarge is the error of a document that would be larger than MaxExpanded.
var ErrTooLarge = fmt.Errorf("the aliases and tags of the YAML expand it to more than %d bytes, the limit", MaxExpanded)

var errEncoding = errors.New("yaml: the encoding must be UTF-8")

// Convert returns the first document of data as JSON, as sigs.k8s.io/yaml makes it.
// duplicates tells of keys that a mapping has twice, nil if there are none: the last one
// counts. Without memory for what it would be it returns ErrTooLarge.
func Convert(data []byte) (json []byte, duplicates, err error) {
	if err := checkExpanded(data); err != nil {
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

// checkExpanded refuses a document whose aliases and tags would make too much of it. The
// decoder bounds how many aliases it follows, and not how much they stand for.
func checkExpanded(data []byte) error {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return errEncoding // of UTF-16, in which the checks below would find nothing
	}
	if tags := bytes.Count(data, []byte("!")); tags > 0 && longestDirective(data)*tags > MaxExpanded {
		return ErrTooLarge
	}
	if bytes.IndexByte(data, '*') < 0 || bytes.IndexByte(data, '&') < 0 {
		return nil
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return err
	}
	e := expansion{anchored: map[*yaml.Node]int{}}
	if e.size(&document) > MaxExpanded {
		return ErrTooLarge
	}
	return nil
}

// longestDirective is the length of the longest line behind a %TAG. Every tag that uses the
// prefix in it has it as a copy.
func longestDirective(data []byte) int {
	longest := 0
	for {
		_, rest, ok := bytes.Cut(data, []byte("%TAG"))
		if !ok {
			return longest
		}
		line := bytes.IndexByte(rest, '\n')
		if line < 0 {
			line = len(rest)
		}
		longest, data = max(longest, line), rest[line:]
	}
}

// expansion measures a document as JSON with every alias in full.
type expansion struct {
	anchored map[*yaml.Node]int // sizes of what has an anchor; tooMuch while it is measured
}

// tooMuch stands for every size beyond the bound, an infinite one included.
const tooMuch = MaxExpanded + 1

func (e *expansion) size(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Anchor != "" {
		if size, ok := e.anchored[n]; ok {
			return size
		}
		e.anchored[n] = tooMuch
	}
	size := len(`"",`) + quotedLen(n.Value)
	if strings.HasSuffix(n.Tag, "binary") {
		size *= 5 // four letters are three bytes, which JSON may show as \ufffd each
	}
	for _, child := range n.Content {
		if size = min(size+e.size(child), tooMuch); size == tooMuch {
			break
		}
	}
	if n.Anchor != "" {
		e.anchored[n] = size
	}
	return size
}

// quotedLen is at least the length of a string in JSON, without quotes.
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
