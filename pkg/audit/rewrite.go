package audit

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// oneLine has JSON written without white space, as harmless as encoding/json does, and otherwise
// as it came.
var oneLine = []jsontext.Options{
	jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true), jsontext.EscapeForHTML(true), jsontext.EscapeForJS(true),
}

// rewrite returns JSON as one line, without the members at the paths: names with dots between
// them, where * stands for each element of a list.
func rewrite(src []byte, paths []string) ([]byte, error) {
	if len(paths) == 0 {
		return jsontext.AppendFormat(nil, src, oneLine...)
	}
	patterns := make([][]string, len(paths))
	for i, path := range paths {
		patterns[i] = strings.Split(path, ".")
	}
	var out bytes.Buffer
	out.Grow(len(src))
	encoder := jsontext.NewEncoder(&out, oneLine...)
	if err := copyValue(encoder, jsontext.NewDecoder(bytes.NewReader(src), oneLine...), patterns); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// copyValue copies the next value without the members at the patterns, none of which is empty.
func copyValue(to *jsontext.Encoder, from *jsontext.Decoder, patterns [][]string) error {
	kind := from.PeekKind()
	if len(patterns) == 0 || kind != '{' && kind != '[' {
		value, err := from.ReadValue()
		if err != nil {
			return err
		}
		return to.WriteValue(value)
	}
	if err := copyToken(to, from); err != nil {
		return err
	}
	for next := from.PeekKind(); next != '}' && next != ']'; next = from.PeekKind() {
		name := "*"
		if kind == '{' {
			token, err := from.ReadToken()
			if err != nil {
				return err
			}
			name = token.String()
		}
		inner, omitted := below(patterns, name)
		if omitted {
			if err := from.SkipValue(); err != nil {
				return err
			}
			continue
		}
		if kind == '{' {
			if err := to.WriteToken(jsontext.String(name)); err != nil {
				return err
			}
		}
		if err := copyValue(to, from, inner); err != nil {
			return err
		}
	}
	return copyToken(to, from) // the end
}

func copyToken(to *jsontext.Encoder, from *jsontext.Decoder) error {
	token, err := from.ReadToken()
	if err != nil {
		return err
	}
	return to.WriteToken(token)
}

// below returns what is left of the patterns below the name, and whether one of them ends there.
func below(patterns [][]string, name string) (rest [][]string, ends bool) {
	for _, pattern := range patterns {
		if pattern[0] == name {
			rest, ends = append(rest, pattern[1:]), ends || len(pattern) == 1
		}
	}
	return rest, ends
}
