package object

import (
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Form is a form in which objects are written. Its bytes are an object's own part; what
// stands around them depends on the media type and the place: an answer, a list, or an event.
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
	// Cells is a list in JSON, of what Type.Cells returns. A cell that is a Since stands in it as
	// NextTime reads it.
	Cells
	// Targets is what a feed makes of an object by Derived.
	Targets

	formCount
)

// Framing is how the objects of a list are written in a form.
type Framing struct {
	Form Form
	// AppendHead appends what stands before an object's bytes, of which there are size.
	AppendHead func(dst []byte, size int) []byte
	// Tail is what stands behind each object, and Separator what stands between two.
	Tail, Separator string
}

// Head is the object's JSON up to where its form JSON begins.
func (o *Object) Head() []byte { return o.json[:o.metadata.start-len(metadataMember)] }

// forms are what was made of one object. It is apart from the object, so that the account
// of a Budget keeps no object from being freed.
type forms struct {
	making sync.Mutex // held while a run is made: all others who want it wait; taken before mu
	mu     sync.Mutex // held while a body or a block is made
	bodies [formCount][]byte
	blocks [formCount]*Block
	runs   [formCount]*run
	as     *Object // as another type shows the object
}

// slot is one of the forms, in the account of a Budget.
type slot uint8

const (
	bodySlot  slot = 0
	blockSlot slot = slot(formCount)
	runSlot   slot = 2 * slot(formCount)
	asSlot    slot = 3 * slot(formCount)
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
	case asSlot:
		fs.as = nil
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
	switch f {
	case JSON:
		return o.json[o.metadata.start-len(metadataMember):], nil
	case Metadata:
		return o.json[o.metadata.start-len(metadataMember) : o.metadata.end], nil
	}
	return o.Derived(f, func(o *Object) ([]byte, error) { return o.makeBody(f) })
}

// Derived is Body for a form that only its reader knows how to make: derive makes the same of an
// object every time, and never nil without an error.
func (o *Object) Derived(f Form, derive func(*Object) ([]byte, error)) ([]byte, error) {
	fs := o.formSet()
	body, made, err := fs.body(f, func() ([]byte, error) { return derive(o) })
	if made {
		o.Type.Forms.add(fs, bodySlot+slot(f), len(body))
	}
	return body, err
}

// body returns the bytes of a form, which are made if they are not kept.
func (fs *forms) body(f Form, produce func() ([]byte, error)) (body []byte, made bool, err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock() // Type.Cells may panic
	if body := fs.bodies[f]; body != nil {
		return body, false, nil
	}
	body, err = produce()
	fs.bodies[f] = body
	return body, err == nil, err
}

// makeBody makes the bytes of a form that is not a part of the JSON; they are never nil.
func (o *Object) makeBody(f Form) ([]byte, error) {
	switch f {
	case Protobuf:
		obj, err := o.Decode()
		if err != nil {
			return nil, err
		}
		message, ok := obj.(interface{ Marshal() ([]byte, error) })
		if !ok {
			return nil, fmt.Errorf("a %s has no protobuf form", o.Type.Kind.Kind)
		}
		return message.Marshal()
	case MetadataProtobuf:
		metadata, err := o.Metadata()
		if err != nil {
			return nil, err
		}
		return (&metav1.PartialObjectMetadata{ObjectMeta: *metadata}).Marshal()
	case Cells:
		obj, err := o.decodeForTable()
		if err != nil {
			return nil, err
		}
		return o.encodeCells(o.Type.Cells(obj))
	}
	return nil, fmt.Errorf("nothing makes form %d", f)
}

// Block returns the form's bytes as a block of gzip.
func (o *Object) Block(f Form) (Block, error) {
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
