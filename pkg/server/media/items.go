package media

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

const metadataKind = "PartialObjectMetadata"

// kindOf names the kind of an object of the type in the form.
func kindOf(t *object.Type, f object.Form) (apiVersion, kind string) {
	if version := f.MetadataVersion(); version != "" {
		return metav1.GroupName + "/" + version, metadataKind
	}
	return t.Kind.GroupVersion().String(), t.Kind.Kind
}

// listKind names the kind of a list.
func listKind(l *object.List, f object.Form) (apiVersion, kind string) {
	apiVersion, kind = kindOf(l.Type, f)
	return apiVersion, kind + "List"
}

// sizeOf is how many bytes the items of a list take, with what stands around them.
func sizeOf(l *object.List, f object.Form) (int, error) {
	size := 0
	var head [128]byte
	for i, o := range l.Objects {
		body, err := o.Body(f)
		if err != nil {
			return 0, err
		}
		if i > 0 {
			size += len(f.Separator())
		}
		size += len(f.AppendItemHead(head[:0], len(body))) + len(body) + len(f.Tail())
	}
	return size, nil
}

// writeItems writes the items of a list, with what stands around them.
func writeItems(w *stream.Writer, l *object.List, f object.Form, compress bool) error {
	if compress {
		return writeRuns(w, l, f)
	}
	var room [192]byte
	between, behind := "", ""
	for _, o := range l.Objects {
		body, err := o.Body(f)
		if err != nil {
			return err
		}
		_, _ = w.Write(f.AppendItemHead(append(room[:0], between...), len(body)))
		_, _ = w.Write(body)
		between, behind = f.Tail()+f.Separator(), f.Tail()
	}
	w.WriteString(behind)
	return nil
}

func writeRuns(w *stream.Writer, l *object.List, f object.Form) error {
	var head [128]byte
	separator := ""
	for run, err := range l.Runs(f) {
		if err != nil {
			return err
		}
		w.WriteString(separator)
		_, _ = w.Write(f.AppendItemHead(head[:0], run.First))
		w.Block(&run.Block)
		w.WriteString(f.Tail())
		separator = f.Separator()
	}
	return nil
}
