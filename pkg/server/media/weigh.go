package media

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/yamljson"
)

// Weigh returns about how many bytes of memory it takes to decode data, of the media type or
// the type of patch, for an object of the type, and how many bytes of plain JSON are as much work
// to decode and to write, at least those of data. The error is RequestEntityTooLarge: there are
// more than yamljson.MaxElements in it.
func (c *Codecs) Weigh(data []byte, mediaType string, t *object.Type) (memory int64, work int, err error) {
	count, times := elementsOfJSON, workOfPatch
	switch known := c.named(mediaType); {
	case mediaType == string(types.ApplyYAMLPatchType):
		count = elementsOfYAML
	case known != nil && mediaType == runtime.ContentTypeYAML:
		count = known.elements
	case known != nil:
		count, times = known.elements, 1
	}
	elements := count(data, t)
	if elements > yamljson.MaxElements {
		return 0, 0, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the body has %d names and values, the limit is %d", elements, yamljson.MaxElements))
	}
	size := len(data)
	if mediaType == runtime.ContentTypeYAML || mediaType == string(types.ApplyYAMLPatchType) {
		repeated, more := yamljson.Repeated(data)
		size, elements = size+repeated, elements+more
	}
	return int64(size)*weightOfByte + int64(elements)*weightOfElement, times * max(size, elements*workOfElement), nil
}

// What a byte and an element of a body take once they are decoded, in bytes.
const (
	weightOfByte    = 2
	weightOfElement = 128
)

// How much work a body is: that of workOfElement bytes of JSON for each name and value of it, if
// it has fewer, and for patches and YAML workOfPatch times that.
const (
	workOfElement = 10
	workOfPatch   = 4
)

func elementsOfJSON(data []byte, _ *object.Type) int { return yamljson.Elements(data) }
func elementsOfYAML(data []byte, _ *object.Type) int { return yamljson.ElementsOfYAML(data) }

// elementsOfProtobuf counts the fields of the messages of an envelope.
func elementsOfProtobuf(data []byte, t *object.Type) int {
	envelope, ok := bytes.CutPrefix(data, []byte(envelopeMagic))
	if !ok {
		return 0 // it is not decoded
	}
	const raw = 2 // of runtime.Unknown
	return countFields(messages{raw: reflect.TypeOf(t.New()).Elem()}, envelope)
}

// countFields counts the fields of a message, and of those that are messages, which of has, the
// fields of theirs. Each byte counts as a field where the message cannot be understood: the
// decoder may read it otherwise.
func countFields(of messages, message []byte) int {
	count := 0
	for len(message) > 0 {
		tag, size := binary.Uvarint(message)
		if size <= 0 {
			return count + len(message)
		}
		message = message[size:]
		value, size := []byte(nil), 0
		switch tag & 7 {
		case 0:
			_, size = binary.Uvarint(message)
		case 1:
			size = 8
		case 2:
			length, head := binary.Uvarint(message)
			if head <= 0 || length > uint64(len(message)-head) {
				return count + len(message)
			}
			size = head + int(length)
			value = message[head:size]
		case 5:
			size = 4
		}
		if size <= 0 || size > len(message) {
			return count + len(message)
		}
		count++
		if inner := of[int32(tag>>3)]; inner != nil { // which the decoders cut off, too
			count += countFields(messagesOf(inner), value)
		}
		message = message[size:]
	}
	return count
}

// messages are those fields of a message that are messages themselves, by number.
type messages map[int32]reflect.Type

// knownMessages has the messages of a reflect.Type.
var knownMessages sync.Map

// messagesOf reads the tags that the generator of protobuf goes by.
func messagesOf(t reflect.Type) messages {
	if known, ok := knownMessages.Load(t); ok {
		return known.(messages)
	}
	found := messages{}
	for i := range t.NumField() {
		field := t.Field(i)
		_, tag, ok := strings.Cut(field.Tag.Get("protobuf"), ",")
		text, _, _ := strings.Cut(tag, ",")
		number, err := strconv.ParseInt(text, 10, 32)
		if !ok || err != nil {
			continue
		}
		inner := field.Type
		for inner.Kind() == reflect.Slice || inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			found[int32(number)] = inner
		}
	}
	knownMessages.Store(t, found)
	return found
}
