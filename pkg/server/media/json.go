package media

import (
	"bytes"
	"encoding/json"
	"io"

	"k8s.io/apimachinery/pkg/runtime"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/yaml"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

// jsonFormat is JSON as programs like it.
type jsonFormat struct{ encoder runtime.Encoder }

func newJSON(scheme *runtime.Scheme) jsonFormat {
	return jsonFormat{kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, scheme, scheme, kjson.SerializerOptions{})}
}

func (jsonFormat) form(metadataVersion string) object.Form {
	switch metadataVersion {
	case "":
		return object.JSON
	case v1beta1:
		return object.MetadataV1Beta1
	}
	return object.Metadata
}

func (jsonFormat) object(w *stream.Writer, o *object.Object, f object.Form) error {
	head := o.AppendHead(nil, f)
	body, err := o.Body(f)
	if err != nil {
		return err
	}
	tail := f.Tail() + "\n"
	if w.Expect(len(head) + len(body) + len(tail)) {
		block, err := o.Block(f)
		if err != nil {
			return err
		}
		_, _ = w.Write(head)
		w.Block(&block)
	} else {
		_, _ = w.Write(head)
		_, _ = w.Write(body)
	}
	w.WriteString(tail)
	return nil
}

func (jsonFormat) list(w *stream.Writer, l *object.List, f object.Form) error {
	head, err := jsonListHead(l, f)
	if err != nil {
		return err
	}
	if len(l.Objects) == 0 && f.MetadataVersion() != "" { // as kube-apiserver has it
		_, err := w.Write(append(head, "null}\n"...))
		return err
	}
	size, err := sizeOf(l, f)
	if err != nil {
		return err
	}
	compress := w.Expect(len(head) + size + len("[]}\n"))
	_, _ = w.Write(append(head, '['))
	if err := writeItems(w, l, f, compress); err != nil {
		return err
	}
	w.WriteString("]}\n")
	return nil
}

// jsonListHead is a list up to its items.
func jsonListHead(l *object.List, f object.Form) ([]byte, error) {
	apiVersion, kind := listKind(l, f)
	meta, err := json.Marshal(l.Meta)
	if err != nil {
		return nil, err
	}
	return append(append([]byte(`{"kind":"`+kind+`","apiVersion":"`+apiVersion+`","metadata":`), meta...), `,"items":`...), nil
}

// event writes one line.
func (jsonFormat) event(w *stream.Writer, e object.Event, f object.Form) error {
	body, err := e.Object.Body(f)
	if err != nil {
		return err
	}
	_, _ = w.Write(e.Object.AppendHead([]byte(`{"type":"`+string(e.Type)+`","object":`), f))
	if w.Compressed() {
		block, err := e.Object.Block(f)
		if err != nil {
			return err
		}
		w.Block(&block)
	} else {
		_, _ = w.Write(body)
	}
	w.WriteString(f.Tail() + "}\n")
	return nil
}

func (j jsonFormat) any(w io.Writer, obj runtime.Object) error { return j.encoder.Encode(obj, w) }

func (j jsonFormat) anyEvent(w *stream.Writer, eventType watch.EventType, obj runtime.Object) error {
	var encoded bytes.Buffer
	if err := j.encoder.Encode(obj, &encoded); err != nil {
		return err
	}
	w.WriteString(`{"type":"` + string(eventType) + `","object":`)
	_, _ = w.Write(bytes.TrimSuffix(encoded.Bytes(), []byte("\n")))
	w.WriteString("}\n")
	return nil
}

// prettyFormat is JSON as people like it: indented, without a newline at the end.
type prettyFormat struct{ jsonFormat }

func (p prettyFormat) object(w *stream.Writer, o *object.Object, f object.Form) error {
	return transform(w, indent, func(plain *stream.Writer) error { return p.jsonFormat.object(plain, o, f) })
}

func (p prettyFormat) list(w *stream.Writer, l *object.List, f object.Form) error {
	return transform(w, indent, func(plain *stream.Writer) error { return p.jsonFormat.list(plain, l, f) })
}

func (p prettyFormat) any(w io.Writer, obj runtime.Object) error {
	return transform(w, indent, func(plain *stream.Writer) error { return p.jsonFormat.any(plain, obj) })
}

func indent(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	err := json.Indent(&out, plain, "", "  ")
	return out.Bytes(), err
}

// yamlFormat is YAML.
type yamlFormat struct{ jsonFormat }

func (y yamlFormat) object(w *stream.Writer, o *object.Object, f object.Form) error {
	return transform(w, yaml.JSONToYAML, func(plain *stream.Writer) error { return y.jsonFormat.object(plain, o, f) })
}

func (y yamlFormat) list(w *stream.Writer, l *object.List, f object.Form) error {
	return transform(w, yaml.JSONToYAML, func(plain *stream.Writer) error { return y.jsonFormat.list(plain, l, f) })
}

func (y yamlFormat) any(w io.Writer, obj runtime.Object) error {
	return transform(w, yaml.JSONToYAML, func(plain *stream.Writer) error { return y.jsonFormat.any(plain, obj) })
}

// transform writes what to makes of the whole of what write writes.
func transform(w io.Writer, to func([]byte) ([]byte, error), write func(*stream.Writer) error) error {
	var whole bytes.Buffer
	plain := stream.To(&whole)
	defer plain.Release()
	if err := write(plain); err != nil {
		return err
	}
	if err := plain.Close(); err != nil {
		return err
	}
	out, err := to(bytes.TrimSuffix(whole.Bytes(), []byte("\n")))
	if err != nil {
		return err
	}
	_, err = w.Write(out)
	return err
}
