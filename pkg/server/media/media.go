// Package media turns answers into bytes and bodies into objects: it negotiates the media
// type and the view of an answer, decodes what clients send, and encodes objects, lists
// and events. A media type is one row of the table in New; a view is what an answer shows of
// an object.
package media

import (
	"context"
	"io"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

// format is how answers are written in one media type. version is that of meta.k8s.io where
// objects are shown by their metadata alone, and "" where they are shown whole.
type format interface {
	object(w *stream.Writer, o *object.Object, version string) error
	// list ends with ctx's error where making the objects' form takes longer than ctx lasts.
	list(ctx context.Context, w *stream.Writer, l *object.List, version string) error
	// any writes what is no resource's object, such as a Status.
	any(w io.Writer, obj runtime.Object) error
}

// documentFormat is how documents are written that are not objects, such as a Table, in a media
// type that has them.
type documentFormat interface {
	// document writes the document of which whole is the JSON while its last member, the list of
	// that name, is empty, with the elements, which are JSON.
	document(w *stream.Writer, whole []byte, list string, elements iter.Seq2[[]byte, error]) error
}

// eventFormat is how the events of a watch are written in one media type.
type eventFormat interface {
	event(w *stream.Writer, e object.Event, version string) error
	anyEvent(w *stream.Writer, eventType watch.EventType, obj runtime.Object) error
}

// mediaType is all that the server knows of one media type.
type mediaType struct {
	name   string
	format format
	// work is about how many times as much work a byte of objects is as in plain JSON, which
	// is copied.
	work int
	// tables says that the type can express a Table.
	tables bool
	// events writes the events of a watch, whose Content-Type is eventsName; nil: there are none.
	events     eventFormat
	eventsName string
	decode     func(data []byte, t *object.Type, fieldValidation string) (obj runtime.Object, warnings []string, err error)
	// elements counts what a body has of names and values, for Weigh.
	elements func(data []byte, t *object.Type) int
}

// Codecs are the media types that the server reads and writes, the default first.
type Codecs struct {
	types  []mediaType
	pretty format // JSON for people; nil: as for programs
}

// New returns the media types for the kinds that the scheme knows.
func New(scheme *runtime.Scheme) *Codecs {
	plain, proto, known := newJSON(scheme), newProtobuf(scheme), kinds{scheme}
	return &Codecs{
		pretty: pretty(plain),
		types: []mediaType{{
			name: runtime.ContentTypeJSON, format: plain, work: 1, tables: true, decode: known.decodeJSON, elements: elementsOfJSON,
			events: plain, eventsName: runtime.ContentTypeJSON,
		}, {
			name: runtime.ContentTypeYAML, format: asYAML(plain), work: 300, tables: true, decode: known.decodeYAML, elements: elementsOfYAML,
		}, {
			name: runtime.ContentTypeProtobuf, format: proto, work: 4, decode: proto.decode, elements: elementsOfProtobuf,
			events: proto, eventsName: runtime.ContentTypeProtobuf + ";stream=watch",
		}},
	}
}

// Types are the names of the media types, the default first.
func (c *Codecs) Types() []string {
	var names []string
	for i := range c.types {
		names = append(names, c.types[i].name)
	}
	return names
}

// streams returns the forms of events.
func (c *Codecs) streams() []string {
	var names []string
	for i := range c.types {
		if c.types[i].events != nil {
			names = append(names, c.types[i].name+";stream=watch")
		}
	}
	return names
}

// MadeJSON returns the codecs of answers that there are in JSON alone, and that are made of what
// objects have beside their JSON, as protobuf is, which is as much work. They are the same for people
// and programs.
func (c *Codecs) MadeJSON() *Codecs {
	only := c.types[0]
	only.work = c.named(runtime.ContentTypeProtobuf).work
	return &Codecs{types: []mediaType{only}}
}

// named returns the media type of that name, or nil.
func (c *Codecs) named(name string) *mediaType {
	for i := range c.types {
		if c.types[i].name == name {
			return &c.types[i]
		}
	}
	return nil
}

// Output is the form of an answer.
type Output struct {
	// MediaType is the Content-Type.
	MediaType string
	of        *mediaType
	format    format // of the type, or pretty
	indented  bool   // whether it is pretty
	view      view
	version   string // of meta.k8s.io, to which the view belongs; "" for viewObject
}

// Object writes one object. include is for a table alone.
func (o Output) Object(ctx context.Context, w *stream.Writer, obj *object.Object, include metav1.IncludeObjectPolicy) error {
	switch o.view {
	case viewMetaList:
		return notAcceptableView(o.view, "not a list", obj.Type.Kind.Kind, obj.Type)
	case viewTable:
		return o.table(ctx, w, singleMeta(obj), obj.Type, []*object.Object{obj}, include)
	}
	return o.format.object(w, obj, o.version)
}

// List writes a list, an object at a time. include is for a table alone. It ends with ctx's
// error where making the form takes longer than ctx lasts.
func (o Output) List(ctx context.Context, w *stream.Writer, list *object.List, include metav1.IncludeObjectPolicy) error {
	switch o.view {
	case viewMetadata:
		return notAcceptableView(o.view, "a list", list.Type.Kind.Kind+"List", list.Type)
	case viewTable:
		return o.table(ctx, w, &list.Meta, list.Type, list.Objects, include)
	}
	return o.format.list(ctx, w, list, o.version)
}

// The work of indented JSON and of tables, as mediaType has it.
const (
	indentedWork = 10
	tableWork    = 10
)

// Work returns how many bytes of plain JSON are about as much work to write as so many bytes
// of objects are in this form.
func (o Output) Work(size int) int {
	work := o.of.work
	if o.indented {
		work = indentedWork
	}
	if o.IsTable() {
		work = max(work, tableWork)
	}
	return size * work
}

// IsMade reports whether the answer is made of the objects for it alone, and not of bytes that
// they have already.
func (o Output) IsMade() bool { return o.Work(1) > 1 }

// Any writes what is no object of a resource, such as a Status or a document.
func (o Output) Any(w io.Writer, obj runtime.Object) error { return o.format.any(w, obj) }

// Events writes the events of one watch.
type Events struct {
	// MediaType is the Content-Type.
	MediaType string

	output  Output
	include metav1.IncludeObjectPolicy
	begun   bool // whether a table has been written
}

// Events returns what writes the events of a watch, or NotAcceptable where the media type
// has none.
func (c *Codecs) Events(o Output, include metav1.IncludeObjectPolicy) (*Events, error) {
	if o.of.events == nil {
		return nil, NotAcceptable(c.streams())
	}
	return &Events{MediaType: o.of.eventsName, output: o, include: include}, nil
}

// Write writes one event.
func (e *Events) Write(w *stream.Writer, event object.Event) error {
	o := e.output
	if o.view == viewTable {
		include := e.include
		if event.Type == watch.Bookmark && include == metav1.IncludeNone {
			include = metav1.IncludeMetadata // there is nothing else to a bookmark
		}
		isFirst := !e.begun
		e.begun = true
		return o.tableEvent(w, event, include, isFirst)
	}
	return o.of.events.event(w, event, o.version)
}

// WriteError writes the event that ends a watch with a Status.
func (e *Events) WriteError(w *stream.Writer, status *metav1.Status) error {
	return e.output.of.events.anyEvent(w, watch.Error, status)
}
