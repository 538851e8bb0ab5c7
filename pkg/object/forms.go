package object

import (
	"encoding/binary"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Form is a form in which objects are written. Its bytes are an object's own part; what
// stands around them depends on the place: an answer, a list, or an event.
type Form uint8

const (
	// JSON is the object's JSON without the opening brace, kind and apiVersion.
	JSON Form = iota
	// Metadata is the JSON of the member metadata, for a PartialObjectMetadata.
	Metadata
	// Protobuf is the object's message.
	Protobuf
	// MetadataProtobuf is the message of a PartialObjectMetadata.
	MetadataProtobuf
	// MetadataV1Beta1 and MetadataProtobufV1Beta1 are the same bytes for clients that ask for
	// meta.k8s.io/v1beta1.
	MetadataV1Beta1
	MetadataProtobufV1Beta1

	formCount
)

// metadataHeads begin the JSON of a PartialObjectMetadata.
var metadataHeads = [formCount]string{
	Metadata:        `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1",`,
	MetadataV1Beta1: `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1beta1",`,
}

// bytes is the form whose bytes f has: those that differ only in what stands around them
// share them.
func (f Form) bytes() Form {
	switch f {
	case MetadataV1Beta1:
		return Metadata
	case MetadataProtobufV1Beta1:
		return MetadataProtobuf
	}
	return f
}

// MetadataVersion is the version of meta.k8s.io in which the form shows an object's metadata
// alone, "" for a form of the whole object.
func (f Form) MetadataVersion() string {
	switch f {
	case Metadata, MetadataProtobuf:
		return "v1"
	case MetadataV1Beta1, MetadataProtobufV1Beta1:
		return "v1beta1"
	}
	return ""
}

// AppendHead appends what stands before the form's bytes where the object is an answer or
// an event by itself. A protobuf message is put into its envelope by whoever writes it.
func (o *Object) AppendHead(dst []byte, f Form) []byte {
	if f == JSON {
		return append(dst, o.json[:o.metadata.start-len(metadataMember)]...)
	}
	return append(dst, metadataHeads[f]...)
}

// AppendItemHead appends what stands before the form's bytes of an object in a list.
func (f Form) AppendItemHead(dst []byte, size int) []byte {
	switch f.bytes() {
	case JSON:
		return append(dst, '{')
	case Metadata:
		return append(dst, metadataHeads[f]...)
	}
	const itemsTag = 2<<3 | 2 // field 2 of every list, with a length
	return binary.AppendUvarint(append(dst, itemsTag), uint64(size))
}

// Tail is what stands behind the form's bytes, alone or in a list.
func (f Form) Tail() string {
	if f.bytes() == Metadata {
		return "}"
	}
	return ""
}

// Separator is what stands between two objects of a list.
func (f Form) Separator() string {
	if f == JSON || f.bytes() == Metadata {
		return ","
	}
	return ""
}

// forms are what was made of one object. It is apart from the object, so that the account
// of a Budget keeps no object from being freed.
type forms struct {
	mu     sync.Mutex // held while a form is made: all others who want it wait
	bodies [formCount][]byte
	blocks [formCount]*Block
	runs   [formCount]*run
}

// slot is one of the forms, in the account of a Budget.
type slot uint8

const (
	bodySlot  slot = 0
	blockSlot slot = slot(formCount)
	runSlot   slot = 2 * slot(formCount)
)

func (fs *forms) forget(s slot) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	switch f := s % slot(formCount); s - f {
	case bodySlot:
		fs.bodies[f] = nil
	case blockSlot:
		fs.blocks[f] = nil
	case runSlot:
		fs.runs[f] = nil
	}
}

func (o *Object) formSet() *forms {
	if o.forms.Load() == nil {
		o.forms.CompareAndSwap(nil, &forms{})
	}
	return o.forms.Load()
}

// Body returns the object in the form. It must not be changed. An error says that the
// object has no such form: not every type has a protobuf message.
func (o *Object) Body(f Form) ([]byte, error) {
	f = f.bytes()
	switch f {
	case JSON:
		return o.json[o.metadata.start-len(metadataMember):], nil
	case Metadata:
		return o.json[o.metadata.start-len(metadataMember) : o.metadata.end], nil
	}
	fs := o.formSet()
	fs.mu.Lock()
	body := fs.bodies[f]
	if body != nil {
		fs.mu.Unlock()
		return body, nil
	}
	body, err := o.message(f)
	fs.bodies[f] = body
	fs.mu.Unlock()
	if err == nil {
		o.Type.Forms.add(fs, bodySlot+slot(f), len(body))
	}
	return body, err
}

// message makes the protobuf message of the object or its metadata: nil only with an error.
func (o *Object) message(f Form) ([]byte, error) {
	if f == MetadataProtobuf {
		metadata, err := o.Metadata()
		if err != nil {
			return nil, err
		}
		return (&metav1.PartialObjectMetadata{ObjectMeta: *metadata}).Marshal()
	}
	obj, err := o.Decode()
	if err != nil {
		return nil, err
	}
	message, ok := obj.(interface{ Marshal() ([]byte, error) })
	if !ok {
		return nil, fmt.Errorf("a %s has no protobuf form", o.Type.Kind.Kind)
	}
	return message.Marshal()
}

// Block returns the form's bytes as a block of gzip.
func (o *Object) Block(f Form) (Block, error) {
	f = f.bytes()
	body, err := o.Body(f)
	if err != nil {
		return Block{}, err
	}
	fs := o.formSet()
	fs.mu.Lock()
	block := fs.blocks[f]
	if block != nil {
		fs.mu.Unlock()
		return *block, nil
	}
	block = Compress(body)
	fs.blocks[f] = block
	fs.mu.Unlock()
	o.Type.Forms.add(fs, blockSlot+slot(f), len(block.Data))
	return *block, nil
}
