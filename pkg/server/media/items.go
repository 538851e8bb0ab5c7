package media

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

const metadataKind = "PartialObjectMetadata"

// shape is what a media type shows of objects, and how: all of them, or their metadata alone.
type shape struct {
	object.Framing
	metadataVersion string // of meta.k8s.io; "" where the whole object is shown
}

// kindOf names the kind of what is shown of an object of the type.
func (s *shape) kindOf(t *object.Type) (apiVersion, kind string) {
	if s.metadataVersion != "" {
		return metav1.GroupName + "/" + s.metadataVersion, metadataKind
	}
	return t.Kind.GroupVersion().String(), t.Kind.Kind
}

// sizeOf is how many bytes the items of a list take, with what stands around them. It makes the
// form of those that lack it, as long as ctx lasts.
func (s *shape) sizeOf(ctx context.Context, l *object.List) (int, error) {
	size := 0
	var head [128]byte
	for i, o := range l.Objects {
		body, err := o.Body(s.Form)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, err
		}
		if i > 0 {
			size += len(s.Separator)
		}
		size += len(s.AppendHead(head[:0], len(body))) + len(body) + len(s.Tail)
	}
	return size, nil
}

// writeItems writes the items of a list, with what stands around them.
func (s *shape) writeItems(w *stream.Writer, l *object.List, compress bool) error {
	if compress {
		return s.writeRuns(w, l)
	}
	var room [192]byte
	between, behind := "", ""
	for _, o := range l.Objects {
		body, err := o.Body(s.Form)
		if err != nil {
			return err
		}
		_, _ = w.Write(s.AppendHead(append(room[:0], between...), len(body)))
		if _, err := w.Write(body); err != nil {
			return err
		}
		between, behind = s.Tail+s.Separator, s.Tail
	}
	w.WriteString(behind)
	return nil
}

func (s *shape) writeRuns(w *stream.Writer, l *object.List) error {
	var head [128]byte
	separator := ""
	for run, err := range l.Runs(&s.Framing) {
		if err != nil {
			return err
		}
		w.WriteString(separator)
		if _, err := w.Write(s.AppendHead(head[:0], run.First)); err != nil {
			return err
		}
		w.Block(&run.Block)
		w.WriteString(s.Tail)
		separator = s.Separator
	}
	return nil
}

// writeFramed writes one object, whose bytes are body, between a head and a tail.
func (s *shape) writeFramed(w *stream.Writer, o *object.Object, body, head []byte, tail string, compress bool) error {
	if !compress {
		_, _ = w.Write(head)
		_, _ = w.Write(body)
		w.WriteString(tail)
		return nil
	}
	block, err := o.Block(s.Form)
	if err != nil {
		return err
	}
	_, _ = w.Write(head)
	w.Block(&block)
	w.WriteString(tail)
	return nil
}
