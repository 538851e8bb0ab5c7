package objectjson

import (
	"encoding/json"
	"slices"
)

// AppendName appends the name of a member to an object that is being written, with the
// comma that sets it apart from the one before it. The name must need no escape, and the
// value must follow.
func AppendName(dst []byte, name string) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, name...)
	return append(dst, `":`...)
}

// AppendField appends a member whose value is a string, and nothing where that is empty.
func AppendField(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return AppendString(AppendName(dst, name), value)
}

// mostForeseen is how long, in bytes, the elements of a list may be expected to be because
// the first of them is.
const mostForeseen = 512

// AppendList appends a member whose value is an array, and nothing where that is empty.
func AppendList[T any](dst []byte, name string, list []T, element func(dst []byte, value *T) []byte) []byte {
	if len(list) == 0 {
		return dst
	}
	dst = append(AppendName(dst, name), '[')
	for i := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		start := len(dst)
		dst = element(dst, &list[i])
		if i == 0 {
			dst = slices.Grow(dst, min((len(dst)-start)*9/8, mostForeseen)*(len(list)-1))
		}
	}
	return append(dst, ']')
}

// AppendString appends text as a string.
func AppendString(dst []byte, text string) []byte {
	if lengthWithin(&neverEscaped, text) < len(text) {
		quoted, _ := json.Marshal(text) // no string is refused
		return append(dst, quoted...)
	}
	dst = append(dst, '"')
	dst = append(dst, text...)
	return append(dst, '"')
}
