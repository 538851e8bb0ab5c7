package patch

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// member is a top-level member of a JSON object.
type member struct {
	name          string
	quoted, value []byte // as they are in the object
}

// readMembers returns the members of a JSON object, as parts of it.
func readMembers(object []byte) ([]member, error) {
	decoder := jsontext.NewDecoder(bytes.NewBuffer(object), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	next := func() ([]byte, error) {
		value, err := decoder.ReadValue()
		end := decoder.InputOffset()
		return object[end-int64(len(value)) : end], err
	}
	if begin, err := decoder.ReadToken(); err != nil || begin.Kind() != '{' {
		return nil, fmt.Errorf("the JSON to patch is not an object: %w", err)
	}
	var all []member
	for decoder.PeekKind() == '"' {
		quoted, err := next()
		if err != nil {
			return nil, err
		}
		name, err := jsontext.AppendUnquote(nil, quoted)
		if err != nil {
			return nil, err
		}
		value, err := next()
		if err != nil {
			return nil, err
		}
		all = append(all, member{string(name), quoted, value})
	}
	_, err := decoder.ReadToken() // the closing brace, or what is wrong
	return all, err
}

// divide returns an object of the members that names has, and the others.
func divide(object []byte, names map[string]bool) (named []byte, rest []member, err error) {
	all, err := readMembers(object)
	if err != nil {
		return nil, nil, err
	}
	var those []member
	for _, m := range all {
		if names[m.name] {
			those = append(those, m)
		} else {
			rest = append(rest, m)
		}
	}
	return write(those), rest, nil
}

// join returns the object with further members, sorted by name.
func join(object []byte, rest []member) ([]byte, error) {
	all, err := readMembers(object)
	if err != nil {
		return nil, err
	}
	all = append(all, rest...)
	slices.SortFunc(all, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return write(all), nil
}

func write(all []member) []byte {
	size := len("{}")
	for _, m := range all {
		size += len(m.quoted) + len(m.value) + len(":,")
	}
	object := append(make([]byte, 0, size), '{')
	for i, m := range all {
		if i > 0 {
			object = append(object, ',')
		}
		object = append(object, m.quoted...)
		object = append(object, ':')
		object = append(object, m.value...)
	}
	return append(object, '}')
}
