package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

// protobufFormat is Kubernetes' protobuf: a message stands in an envelope, a
// runtime.Unknown behind four bytes, that names its kind.
type protobufFormat struct {
	serializer *protobuf.Serializer
	kinds      kinds
}

func newProtobuf(scheme *runtime.Scheme) protobufFormat {
	return protobufFormat{protobuf.NewSerializer(scheme, scheme), kinds{scheme}}
}

const (
	envelopeMagic = "k8s\x00"
	envelopeTail  = "\x1a\x00\x22\x00" // neither contentEncoding nor contentType

	// The tags of the fields that are written here, all of which have a length: 1 and 2 of
	// Unknown, WatchEvent, RawExtension and every list.
	firstField  = 1<<3 | 2
	secondField = 2<<3 | 2
)

func appendField(dst []byte, tag byte, size int) []byte {
	return binary.AppendUvarint(append(dst, tag), uint64(size))
}

func fieldSize(size int) int {
	return 1 + len(binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen64), uint64(size))) + size
}

// appendEnvelope appends the beginning of an envelope, up to the message of that size.
func appendEnvelope(dst []byte, apiVersion, kind string, size int) []byte {
	dst = append(dst, envelopeMagic...)
	dst = appendField(dst, firstField, fieldSize(len(apiVersion))+fieldSize(len(kind)))
	dst = append(appendField(dst, firstField, len(apiVersion)), apiVersion...)
	dst = append(appendField(dst, secondField, len(kind)), kind...)
	return appendField(dst, secondField, size)
}

// protobufShapes are the shapes of protobuf by the version of meta.k8s.io.
var protobufShapes = map[string]*shape{
	"":      {Framing: protobufItems(object.Protobuf)},
	v1:      {Framing: protobufItems(object.MetadataProtobuf), metadataVersion: v1},
	v1beta1: {Framing: protobufItems(object.MetadataProtobuf), metadataVersion: v1beta1},
}

// protobufItems are the items of a list, its second field.
func protobufItems(f object.Form) object.Framing {
	return object.Framing{Form: f, AppendHead: func(dst []byte, size int) []byte { return appendField(dst, secondField, size) }}
}

func (protobufFormat) object(w *stream.Writer, o *object.Object, version string) error {
	s := protobufShapes[version]
	body, err := o.Body(s.Form)
	if err != nil {
		return err
	}
	apiVersion, kind := s.kindOf(o.Type)
	head := appendEnvelope(nil, apiVersion, kind, len(body))
	return s.writeFramed(w, o, body, head, envelopeTail, w.Expect(len(head)+len(body)+len(envelopeTail)))
}

func (protobufFormat) list(ctx context.Context, w *stream.Writer, l *object.List, version string) error {
	s := protobufShapes[version]
	size, err := s.sizeOf(ctx, l)
	if err != nil {
		return err
	}
	meta, err := l.Meta.Marshal()
	if err != nil {
		return err
	}
	apiVersion, kind := s.kindOf(l.Type)
	head := appendEnvelope(nil, apiVersion, kind+"List", fieldSize(len(meta))+size)
	head = append(appendField(head, firstField, len(meta)), meta...)
	compress := w.Expect(len(head) + size + len(envelopeTail))
	_, _ = w.Write(head)
	if err := s.writeItems(w, l, compress); err != nil {
		return err
	}
	w.WriteString(envelopeTail)
	return nil
}

// appendFrame appends the beginning of an event's frame, up to its object of that size: the
// length of what follows in four bytes, big-endian, and a metav1.WatchEvent.
func appendFrame(dst []byte, eventType watch.EventType, size int) []byte {
	event := fieldSize(len(eventType)) + fieldSize(fieldSize(size))
	dst = binary.BigEndian.AppendUint32(dst, uint32(event))
	dst = append(appendField(dst, firstField, len(eventType)), eventType...)
	return appendField(appendField(dst, secondField, fieldSize(size)), firstField, size)
}

func (protobufFormat) event(w *stream.Writer, e object.Event, version string) error {
	s := protobufShapes[version]
	body, err := e.Object.Body(s.Form)
	if err != nil {
		return err
	}
	apiVersion, kind := s.kindOf(e.Object.Type)
	var room [256]byte
	envelope := appendEnvelope(room[:0], apiVersion, kind, len(body))
	head := appendFrame(make([]byte, 0, 256), e.Type, len(envelope)+len(body)+len(envelopeTail))
	return s.writeFramed(w, e.Object, body, append(head, envelope...), envelopeTail, w.Compressed())
}

// any fails for what has no protobuf form, such as a Table.
func (p protobufFormat) any(w io.Writer, obj runtime.Object) error {
	return p.serializer.Encode(obj, w)
}

func (p protobufFormat) anyEvent(w *stream.Writer, eventType watch.EventType, obj runtime.Object) error {
	var encoded bytes.Buffer
	if err := p.serializer.Encode(obj, &encoded); err != nil {
		return err
	}
	_, _ = w.Write(appendFrame(nil, eventType, encoded.Len()))
	_, _ = w.Write(encoded.Bytes())
	return nil
}

// decode takes the message out of its envelope itself: options come under versions that no
// scheme knows them by.
func (p protobufFormat) decode(data []byte, t *object.Type, _ string) (runtime.Object, []string, error) {
	want, envelope := t.Kind, &runtime.Unknown{}
	_, got, err := p.serializer.Decode(data, &want, envelope)
	if err != nil {
		return nil, nil, unrecognized(t.Kind, err, data)
	}
	if err := p.kinds.check(*got, t.Kind); err != nil {
		return nil, nil, err
	}
	obj := t.New()
	message, ok := obj.(interface{ Unmarshal(message []byte) error })
	if !ok {
		return nil, nil, cannotBeHandled(*got, t.Kind, errors.New("it has no protobuf form"))
	}
	if err := message.Unmarshal(envelope.Raw); err != nil {
		return nil, nil, cannotBeHandled(*got, t.Kind, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(*got)
	return obj, nil, nil
}
