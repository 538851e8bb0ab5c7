package iam

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxFaults is how many faults of a file are told at once.
const maxFaults = 10

// reader reads the nodes of a YAML document strictly, and notes every fault with its line and
// its field. A value that is faulty reads as the zero value.
type reader struct {
	faults []string
	more   int // faults beyond maxFaults
}

// document returns the only document of a file.
func document(data []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it is empty")
	case err != nil:
		return nil, err
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("line %d: there is more than one YAML document", second.Line)
	}
	if len(doc.Content) == 0 {
		return nil, errors.New("it is empty")
	}
	return doc.Content[0], nil
}

// fault notes that the field, whose value n is, is wrong.
func (r *reader) fault(n *yaml.Node, field, format string, args ...any) {
	if len(r.faults) >= maxFaults {
		r.more++
		return
	}
	if field != "" {
		field += ": "
	}
	r.faults = append(r.faults, fmt.Sprintf("line %d: %s%s", n.Line, field, fmt.Sprintf(format, args...)))
}

func (r *reader) err() error {
	if len(r.faults) == 0 {
		return nil
	}
	text := strings.Join(r.faults, "; ")
	if r.more > 0 {
		text += fmt.Sprintf("; and %d more faults", r.more)
	}
	return errors.New(text)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// fields reads a mapping: of each key it calls the function, with the value and the path of the
// field. Unknown and repeated keys are faults; a key without a value counts as absent.
func (r *reader) fields(n *yaml.Node, path string, known map[string]func(n *yaml.Node, path string)) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, path, "must be a mapping")
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		field := key.Value
		if path != "" {
			field = path + "." + key.Value
		}
		read := known[key.Value]
		switch first, repeated := lines[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			r.fault(key, path, "a key must be a plain word")
			continue
		case repeated:
			r.fault(key, field, "is there already, in line %d", first)
			continue
		case read == nil:
			r.fault(key, field, "is not a known field")
		case !isNull(value):
			read(value, field)
		}
		lines[key.Value] = key.Line
	}
}

// list reads a sequence.
func (r *reader) list(n *yaml.Node, path string, read func(n *yaml.Node, path string)) {
	if n.Kind != yaml.SequenceNode {
		r.fault(n, path, "must be a list")
		return
	}
	for i, item := range n.Content {
		read(item, path+"["+strconv.Itoa(i)+"]")
	}
}

// scalar returns the text of a value that has one of the tags.
func (r *reader) scalar(n *yaml.Node, path, what string, tags ...string) (text string, ok bool) {
	if n.Kind == yaml.ScalarNode {
		for _, tag := range tags {
			if n.ShortTag() == tag {
				return n.Value, true
			}
		}
	}
	r.fault(n, path, "must be %s", what)
	return "", false
}

func (r *reader) text(n *yaml.Node, path string) string {
	text, _ := r.scalar(n, path, "a string; write it in quotes if it is one", "!!str")
	return text
}

func (r *reader) boolean(n *yaml.Node, path string) bool {
	text, _ := r.scalar(n, path, "true or false", "!!bool")
	value, err := strconv.ParseBool(text)
	if err != nil && text != "" {
		r.fault(n, path, "must be true or false")
	}
	return value
}

func (r *reader) integer(n *yaml.Node, path string, least, most int) int {
	text, ok := r.scalar(n, path, "an integer", "!!int")
	value, err := strconv.Atoi(text)
	if ok && (err != nil || value < least || value > most) {
		r.fault(n, path, "must be an integer from %d to %d", least, most)
		return 0
	}
	return value
}

func (r *reader) number(n *yaml.Node, path string, least, most float64) float64 {
	text, ok := r.scalar(n, path, "a number", "!!int", "!!float")
	value, err := strconv.ParseFloat(text, 64)
	if ok && (err != nil || !(value >= least && value <= most)) {
		r.fault(n, path, "must be a number from %v to %v", least, most)
		return 0
	}
	return value
}

func (r *reader) duration(n *yaml.Node, path string, least, most time.Duration) time.Duration {
	text, ok := r.scalar(n, path, "a duration, such as 15m or 24h", "!!str")
	value, err := time.ParseDuration(text)
	switch {
	case !ok:
	case err != nil:
		r.fault(n, path, "%q is not a duration, such as 15m or 24h", text)
	case value < least || value > most:
		r.fault(n, path, "must be a duration from %v to %v", least, most)
	default:
		return value
	}
	return 0
}
