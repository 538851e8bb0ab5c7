package media

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strings"

	"go.yaml.in/yaml/v2"
	"k8s.io/apimachinery/pkg/runtime"
	sigsjson "sigs.k8s.io/json"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

// transformed is a format made of JSON: of whole objects, and of lists an element at a time.
// What it takes is several times the size of what it is made of, at once.
type transformed struct {
	plain jsonFormat
	// to makes the form of a document.
	to func(plain []byte) ([]byte, error)
	// element makes the form of an element of a list that is a member of a document.
	element func(plain []byte) ([]byte, error)
	// empty is such a list in the form, with its name in the place of the %, where it is
	// empty; open, between and shut are what stands around elements instead.
	empty, open, between, shut string
}

// pretty is JSON as people like it: indented, without a newline at the end.
func pretty(plain jsonFormat) transformed {
	return transformed{
		plain: plain,
		to:    func(plain []byte) ([]byte, error) { return indent(plain, "") },
		empty: "\n  \"%\": []", open: "\n  \"%\": [\n    ", between: ",\n    ", shut: "\n  ]",
		element: func(plain []byte) ([]byte, error) { return indent(plain, "    ") },
	}
}

func indent(plain []byte, prefix string) ([]byte, error) {
	var out bytes.Buffer
	err := json.Indent(&out, plain, prefix, "  ")
	return out.Bytes(), err
}

// asYAML is YAML. A list in an object is not indented, so that it is written as on its own.
func asYAML(plain jsonFormat) transformed {
	return transformed{
		plain: plain, to: jsonToYAML, empty: "\n%: []\n", open: "\n%:\n",
		element: func(plain []byte) ([]byte, error) { return jsonToYAML(append(append([]byte{'['}, plain...), ']')) },
	}
}

// jsonToYAML is JSONToYAML of sigs.k8s.io/yaml, except that it reads JSON as what it is: as
// YAML, some characters that JSON leaves as they are would be refused, such as U+007F, or taken
// for the end of a line, and names of more than 1024 characters would be refused as well.
func jsonToYAML(plain []byte) ([]byte, error) {
	var value any
	if err := sigsjson.UnmarshalCaseSensitivePreserveInts(plain, &value); err != nil {
		return nil, err
	}
	return yaml.Marshal(value)
}

func (t transformed) object(w *stream.Writer, o *object.Object, version string) error {
	return t.write(w, func(plain *stream.Writer) error { return t.plain.object(plain, o, version) })
}

func (t transformed) list(ctx context.Context, w *stream.Writer, l *object.List, version string) error {
	if len(l.Objects) == 0 {
		return t.write(w, func(plain *stream.Writer) error { return t.plain.list(ctx, plain, l, version) })
	}
	s := jsonShapes[version]
	head, err := jsonListHead(l, s)
	if err != nil {
		return err
	}
	return t.document(w, append(head, "[]}"...), "items", func(yield func([]byte, error) bool) {
		var item []byte
		for _, o := range l.Objects {
			body, err := o.Body(s.Form)
			if err == nil {
				err = ctx.Err()
			}
			item = append(append(s.AppendHead(item[:0], len(body)), body...), s.Tail...)
			if !yield(item, err) {
				return
			}
		}
	})
}

func (t transformed) any(w io.Writer, obj runtime.Object) error {
	return t.write(w, func(plain *stream.Writer) error { return t.plain.any(plain, obj) })
}

// write writes what is made of the whole of what plain writes.
func (t transformed) write(w io.Writer, plain func(*stream.Writer) error) error {
	var whole bytes.Buffer
	buffer := stream.To(&whole)
	defer buffer.Release()
	if err := plain(buffer); err != nil {
		return err
	}
	if err := buffer.Close(); err != nil {
		return err
	}
	out, err := t.to(bytes.TrimSuffix(whole.Bytes(), []byte("\n")))
	if err != nil {
		return err
	}
	_, err = w.Write(out)
	return err
}

func (t transformed) document(w *stream.Writer, whole []byte, list string, elements iter.Seq2[[]byte, error]) error {
	form, err := t.to(whole)
	if err != nil {
		return err
	}
	// The line at which the list begins cannot be a part of a text: those are indented or escaped.
	named := func(text string) []byte { return []byte(strings.Replace(text, "%", list, 1)) }
	before, behind, ok := bytes.Cut(form, named(t.empty))
	if !ok {
		return errors.New("a document lacks its list " + list)
	}
	_, _ = w.Write(before)
	begin, end := named(t.open), named(t.empty)
	for element, err := range elements {
		if err != nil {
			return err
		}
		if element, err = t.element(element); err != nil {
			return err
		}
		_, _ = w.Write(begin)
		if _, err := w.Write(element); err != nil {
			return err
		}
		begin, end = []byte(t.between), []byte(t.shut)
	}
	_, _ = w.Write(end)
	_, err = w.Write(behind)
	return err
}
