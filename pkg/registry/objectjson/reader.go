// Package objectjson reads and writes the JSON of Kubernetes objects without reflection:
// the parts that every kind is made of. What it writes is what encoding/json writes. What
// it reads, sigs.k8s.io/json reads strictly, without a fault, and to the same object; of
// anything else it says that it cannot, and leaves judging it to that package.
package objectjson

import (
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reader reads JSON from its beginning to its end. Each method takes the next value and
// reports whether it is plainly one for its target; once one is not, what was read so far
// is worth nothing. null leaves a target as it is, so targets must be empty.
//
// The strings that it returns share one copy of the JSON and keep all of it in memory:
// that is for objects which live no longer than a request.
type Reader struct {
	text string
	at   int
}

// NewReader returns a reader of data, which it copies.
func NewReader(data []byte) Reader { return Reader{text: string(data)} }

// End reports whether nothing is left.
func (r *Reader) End() bool { return r.peek() == 0 && r.at == len(r.text) }

// peek skips white space and returns the byte that comes next, 0 at the end.
func (r *Reader) peek() byte {
	for r.at < len(r.text) {
		c := r.text[r.at]
		if c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
		r.at++
	}
	return 0
}

// take skips c where it comes next.
func (r *Reader) take(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.at++
	return true
}

func (r *Reader) word(word string) bool {
	if r.peek(); !strings.HasPrefix(r.text[r.at:], word) {
		return false
	}
	r.at += len(word)
	return true
}

// Null takes a null where one comes next.
func (r *Reader) Null() bool { return r.word("null") }

// members takes an object and has each read the value of each member. Without an object,
// null is as good.
func (r *Reader) members(each func(name string) bool) bool {
	if !r.take('{') {
		return r.Null()
	}
	if r.take('}') {
		return true
	}
	for {
		name, ok := r.quoted()
		if !ok || !r.take(':') || !each(name) {
			return false
		}
		if !r.take(',') {
			return r.take('}')
		}
	}
}

// Object takes the object that stands for a struct. field reads the value of the field of
// that name and returns the field's number, from 0 to 31, by which fields that are there
// twice are found.
func (r *Reader) Object(field func(name string) (number int, ok bool)) bool {
	var seen uint32
	return r.members(func(name string) bool {
		number, ok := field(name)
		if !ok || seen>>number&1 != 0 {
			return false
		}
		seen |= 1 << number
		return true
	})
}

// StringMap takes an object of strings.
func (r *Reader) StringMap(to *map[string]string) bool {
	if r.Null() {
		return true
	}
	values := map[string]string{}
	*to = values
	return r.members(func(key string) bool {
		var value string
		before := len(values)
		ok := r.String(&value)
		values[key] = value
		return ok && len(values) > before
	})
}

// Pointer takes a value that may be absent: null is nil.
func Pointer[T any](r *Reader, to **T, value func(*T) bool) bool {
	if r.Null() {
		return true
	}
	*to = new(T)
	return value(*to)
}

// List takes an array, whose elements element reads. It has room for at most twice as many
// as there are.
func List[T any](r *Reader, to *[]T, element func(*T) bool) bool {
	if !r.take('[') {
		return r.Null()
	}
	list := []T{}
	for !r.take(']') {
		if len(list) > 0 && !r.take(',') {
			return false
		}
		if len(list) == cap(list) {
			list = slices.Grow(list, max(1, len(list)))
		}
		list = list[:len(list)+1]
		if !element(&list[len(list)-1]) {
			return false
		}
	}
	*to = list
	return true
}

// String takes a string.
func (r *Reader) String(to *string) bool {
	text, ok := r.quoted()
	if !ok {
		return r.Null()
	}
	*to = text
	return true
}

// Bool takes true or false.
func (r *Reader) Bool(to *bool) bool {
	switch {
	case r.word("true"):
		*to = true
	case r.word("false"):
		*to = false
	default:
		return r.Null()
	}
	return true
}

// Int64 takes a number that is written as an integer.
func (r *Reader) Int64(to *int64) bool { return r.integer(to, 64) }

// Int32 takes a number that is written as an integer.
func (r *Reader) Int32(to *int32) bool {
	wide := int64(*to)
	ok := r.integer(&wide, 32)
	*to = int32(wide)
	return ok
}

func (r *Reader) integer(to *int64, bits int) bool {
	if c := r.peek(); c != '-' && (c < '0' || c > '9') {
		return r.Null()
	}
	end := r.at + 1
	for end < len(r.text) && '0' <= r.text[end] && r.text[end] <= '9' {
		end++
	}
	digits := r.text[r.at:end]
	value, err := strconv.ParseInt(digits, 10, bits)
	if unsigned := strings.TrimPrefix(digits, "-"); err != nil || unsigned[0] == '0' && unsigned != "0" {
		return false
	}
	r.at = end
	*to = value
	return true
}

// Time takes a time as RFC 3339 has it.
func (r *Reader) Time(to *metav1.Time) bool {
	text, ok := r.quoted()
	if !ok {
		return r.Null()
	}
	at, err := time.Parse(time.RFC3339, text)
	*to = metav1.Time{Time: at.Local()}
	return err == nil
}
