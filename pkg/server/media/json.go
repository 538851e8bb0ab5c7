package media

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

// jsonFormat is JSON as programs like it.
type jsonFormat struct{ encoder runtime.Encoder }

func newJSON(scheme *runtime.Scheme) jsonFormat {
	return jsonFormat{kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, scheme, scheme, kjson.SerializerOptions{})}
}

// jsonShapes are the shapes of JSON by the version of meta.k8s.io.
var jsonShapes = map[string]*shape{
	"": {Framing: object.Framing{
		Form: object.JSON, Separator: ",",
		AppendHead: func(dst []byte, _ int) []byte { return append(dst, '{') },
	}},
	v1:      jsonMetadata(v1),
	v1beta1: jsonMetadata(v1beta1),
}

func jsonMetadata(version string) *shape {
	head := `{"kind":"` + metadataKind + `","apiVersion":"` + metav1.GroupName + "/" + version + `",`
	return &shape{metadataVersion: version, Framing: object.Framing{
		Form: object.Metadata, Tail: "}", Separator: ",",
		AppendHead: func(dst []byte, _ int) []byte { return append(dst, head...) },
	}}
}

// appendJSONHead appends what stands before an object that is not in a list.
func appendJSONHead(dst []byte, o *object.Object, s *shape) []byte {
	if s.metadataVersion == "" {
		return append(dst, o.Head()...)
	}
	return s.AppendHead(dst, 0)
}

func (jsonFormat) object(w *stream.Writer, o *object.Object, version string) error {
	s := jsonShapes[version]
	body, err := o.Body(s.Form)
	if err != nil {
		return err
	}
	head, tail := appendJSONHead(nil, o, s), s.Tail+"\n"
	return s.writeFramed(w, o, body, head, tail, w.Expect(len(head)+len(body)+len(tail)))
}

func (jsonFormat) list(ctx context.Context, w *stream.Writer, l *object.List, version string) error {
	s := jsonShapes[version]
	head, err := jsonListHead(l, s)
	if err != nil {
		return err
	}
	if len(l.Objects) == 0 && version != "" { // as kube-apiserver has it
		_, err := w.Write(append(head, "null}\n"...))
		return err
	}
	size, err := s.sizeOf(ctx, l)
	if err != nil {
		return err
	}
	compress := w.Expect(len(head) + size + len("[]}\n"))
	_, _ = w.Write(append(head, '['))
	if err := s.writeItems(w, l, compress); err != nil {
		return err
	}
	w.WriteString("]}\n")
	return nil
}

// jsonListHead is a list up to its items.
func jsonListHead(l *object.List, s *shape) ([]byte, error) {
	apiVersion, kind := s.kindOf(l.Type)
	meta, err := json.Marshal(l.Meta)
	if err != nil {
		return nil, err
	}
	return append(append([]byte(`{"kind":"`+kind+`List","apiVersion":"`+apiVersion+`","metadata":`), meta...), `,"items":`...), nil
}

// appendEventHead appends an event up to its object.
func appendEventHead(dst []byte, eventType watch.EventType) []byte {
	return append(append(append(dst, `{"type":"`...), eventType...), `","object":`...)
}

// event writes one line.
func (jsonFormat) event(w *stream.Writer, e object.Event, version string) error {
	s := jsonShapes[version]
	body, err := e.Object.Body(s.Form)
	if err != nil {
		return err
	}
	head := appendJSONHead(appendEventHead(nil, e.Type), e.Object, s)
	return s.writeFramed(w, e.Object, body, head, s.Tail+"}\n", w.Compressed())
}

func (j jsonFormat) any(w io.Writer, obj runtime.Object) error { return j.encoder.Encode(obj, w) }

func (j jsonFormat) anyEvent(w *stream.Writer, eventType watch.EventType, obj runtime.Object) error {
	var encoded bytes.Buffer
	if err := j.encoder.Encode(obj, &encoded); err != nil {
		return err
	}
	_, _ = w.Write(appendEventHead(nil, eventType))
	_, _ = w.Write(bytes.TrimSuffix(encoded.Bytes(), []byte("\n")))
	w.WriteString("}\n")
	return nil
}

// document writes a document, of which whole is the JSON while its last member, a list, is
// empty, with the elements.
func (jsonFormat) document(w *stream.Writer, whole []byte, _ string, elements iter.Seq2[[]byte, error]) error {
	_, _ = w.Write(whole[:len(whole)-len("]}")])
	separator := ""
	for element, err := range elements {
		if err != nil {
			return err
		}
		w.WriteString(separator)
		if _, err := w.Write(element); err != nil {
			return err
		}
		separator = ","
	}
	w.WriteString("]}\n")
	return nil
}
