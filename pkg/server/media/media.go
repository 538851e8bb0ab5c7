// Package media turns answers into bytes and bodies into objects: it negotiates the media
// type and the view of an answer, decodes what clients send, and encodes objects, lists
// and events. A media type is one format; a view is what an answer shows of an object.
package media

import (
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

// Types are the media types that the server reads and writes, the default first.
var Types = []string{runtime.ContentTypeJSON, runtime.ContentTypeYAML, runtime.ContentTypeProtobuf}

// format is one media type: how objects, lists and events are framed in it.
type format interface {
	// form is the form of objects that the format is made of: of their metadata alone where
	// a version of meta.k8s.io is named.
	form(metadataVersion string) object.Form
	object(w *stream.Writer, o *object.Object, f object.Form) error
	list(w *stream.Writer, l *object.List, f object.Form) error
	// event writes one event of a watch.
	event(w *stream.Writer, e object.Event, f object.Form) error
	// any writes what is no resource's object, such as a Status, and anyEvent an event of it.
	any(w io.Writer, obj runtime.Object) error
	anyEvent(w *stream.Writer, eventType watch.EventType, obj runtime.Object) error
}

// Codecs are the formats of one scheme.
type Codecs struct {
	json   jsonFormat
	pretty prettyFormat
	yaml   yamlFormat
	proto  protobufFormat
}

// New returns the formats for the types that the scheme knows.
func New(scheme *runtime.Scheme) *Codecs {
	c := &Codecs{json: newJSON(scheme), proto: newProtobuf(scheme)}
	c.pretty = prettyFormat{jsonFormat: c.json}
	c.yaml = yamlFormat{jsonFormat: c.json}
	return c
}

// Output is the form of an answer.
type Output struct {
	// MediaType is the Content-Type.
	MediaType string
	view      view
	version   string // of meta.k8s.io, to which the view belongs; "" for viewObject
	format    format
}

// Tabler is what a table shows of a resource's objects.
type Tabler interface {
	Columns() []metav1.TableColumnDefinition
	// Cells are an object's cells; obj is of the resource's Go type, and of its metadata has
	// the name, the namespace and the creationTimestamp.
	Cells(obj runtime.Object) []any
}

// Object writes one object. include is for a table alone.
func (o Output) Object(w *stream.Writer, obj *object.Object, rows Tabler, include metav1.IncludeObjectPolicy) error {
	switch o.view {
	case viewMetaList:
		return notAcceptableView(o.view)
	case viewTable:
		return o.table(w, singleMeta(obj), []*object.Object{obj}, rows, include)
	}
	return o.format.object(w, obj, o.format.form(o.version))
}

// List writes a list. include is for a table alone.
func (o Output) List(w *stream.Writer, list *object.List, rows Tabler, include metav1.IncludeObjectPolicy) error {
	switch o.view {
	case viewMetadata:
		return notAcceptableView(o.view)
	case viewTable:
		return o.table(w, &list.Meta, list.Objects, rows, include)
	}
	return o.format.list(w, list, o.format.form(o.version))
}

// Any writes what is no object of a resource, such as a Status or a document.
func (o Output) Any(w io.Writer, obj runtime.Object) error { return o.format.any(w, obj) }

// Events writes the events of one watch.
type Events struct {
	// MediaType is the Content-Type.
	MediaType string

	output  Output
	rows    Tabler
	include metav1.IncludeObjectPolicy
	tables  int // how many tables have been written
}

// Events returns what writes the events of a watch, or NotAcceptable: YAML cannot be
// streamed.
func (c *Codecs) Events(o Output, rows Tabler, include metav1.IncludeObjectPolicy) (*Events, error) {
	events := &Events{MediaType: o.MediaType, output: o, rows: rows, include: include}
	switch o.MediaType {
	case runtime.ContentTypeYAML:
		return nil, notAcceptable("application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch")
	case runtime.ContentTypeProtobuf:
		events.MediaType += ";stream=watch"
	default:
		events.output.format = c.json // a line per event, whoever asks
	}
	return events, nil
}

// Write writes one event.
func (e *Events) Write(w *stream.Writer, event object.Event) error {
	o := e.output
	if o.view == viewTable {
		include := e.include
		if event.Type == watch.Bookmark && include == metav1.IncludeNone {
			include = metav1.IncludeMetadata // there is nothing else to a bookmark
		}
		table, err := o.eventTable(event.Object, e.rows, include, e.tables == 0)
		if err != nil {
			return err
		}
		e.tables++
		return o.format.anyEvent(w, event.Type, table)
	}
	return o.format.event(w, event, o.format.form(o.version))
}

// WriteError writes the event that ends a watch with a Status.
func (e *Events) WriteError(w *stream.Writer, status *metav1.Status) error {
	return e.output.format.anyEvent(w, watch.Error, status)
}
