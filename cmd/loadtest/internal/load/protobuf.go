package load

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// protobufType is the media type of Kubernetes' objects in protobuf, and of watches of them.
const protobufType = "application/vnd.kubernetes.protobuf"

// protobufMagic is what each object in protobuf begins with, before a runtime.Unknown.
const protobufMagic = "k8s\x00"

// Fields of Endpoints in protobuf.
const (
	metadataField protowire.Number = 1
	subsetsField  protowire.Number = 2
)

// packSubsets returns a list of subsets in JSON as Endpoints' fields in protobuf.
func packSubsets(list string) []byte {
	var all []corev1.EndpointSubset
	if err := json.Unmarshal([]byte(list), &all); err != nil {
		panic(err) // it was made here
	}
	var packed []byte
	for i := range all {
		packed = appendMessage(packed, subsetsField, &all[i])
	}
	return packed
}

// appendMessage appends a field with a message of Kubernetes.
func appendMessage(to []byte, field protowire.Number, message interface{ Marshal() ([]byte, error) }) []byte {
	data, err := message.Marshal()
	if err != nil {
		panic(err) // only a writer could fail, and there is none
	}
	return protowire.AppendBytes(protowire.AppendTag(to, field, protowire.BytesType), data)
}

// pack returns a whole object.
func (b *bodies) pack(op *operation) []byte {
	metadata := metav1.ObjectMeta{
		Name: op.name, Namespace: b.namespaces[op.namespace], Labels: map[string]string{runLabel: b.run},
		Annotations: map[string]string{writeAnnotation: b.annotation(op)},
	}
	object := append(appendMessage(nil, metadataField, &metadata), b.packed[op.write%2]...)
	envelope := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "Endpoints"}, Raw: object}
	data, err := envelope.Marshal()
	if err != nil {
		panic(err) // only a writer could fail, and there is none
	}
	return append([]byte(protobufMagic), data...)
}

// readFrame reads an event of a watch in protobuf: four bytes with its length, the most
// significant one first, and a WatchEvent. The error is io.EOF if the stream ends between two
// events. buffer is used for the event and returned for the next one.
func readFrame(from *bufio.Reader, buffer []byte) (e event, rest []byte, err error) {
	var length [4]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return event{}, buffer, err
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > maxEvent {
		return event{}, buffer, fmt.Errorf("an event of %d bytes is longer than %d", size, maxEvent)
	}
	if uint32(cap(buffer)) < size {
		buffer = make([]byte, size)
	}
	buffer = buffer[:size]
	if _, err := io.ReadFull(from, buffer); err != nil {
		return event{}, buffer, io.ErrUnexpectedEOF
	}
	e, err = unpackEvent(buffer)
	if err != nil {
		return event{}, buffer, fmt.Errorf("an event cannot be read: %w", err)
	}
	return e, buffer, nil
}

// unpackEvent reads a WatchEvent. Of an object it reads the metadata and skips the rest.
func unpackEvent(data []byte) (event, error) {
	var watched metav1.WatchEvent
	if err := watched.Unmarshal(data); err != nil {
		return event{}, err
	}
	raw := watched.Object.Raw
	var envelope runtime.Unknown
	if len(raw) < len(protobufMagic) || string(raw[:len(protobufMagic)]) != protobufMagic {
		return event{}, errors.New("its object is not in protobuf")
	}
	if err := envelope.Unmarshal(raw[len(protobufMagic):]); err != nil {
		return event{}, err
	}
	e := event{kind: watched.Type}
	if e.kind == "ERROR" {
		var status metav1.Status
		err := status.Unmarshal(envelope.Raw)
		e.code = int(status.Code)
		return e, err
	}
	var object metav1.PartialObjectMetadata
	if err := object.Unmarshal(envelope.Raw); err != nil {
		return event{}, err
	}
	e.name, e.version, e.write = object.Name, object.ResourceVersion, object.Annotations[writeAnnotation]
	return e, nil
}
