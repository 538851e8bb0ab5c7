package media

import (
	"encoding/json"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

// view is what an answer shows of an object: the object itself, its row in a table, or its
// metadata alone.
type view string

const (
	viewObject   view = ""
	viewTable    view = "Table"
	viewMetadata view = metadataKind
	viewMetaList view = metadataKind + "List"
)

// viewOf returns the view that a clause of Accept asks for; false: there is no such view.
// Tables exist in meta.k8s.io/v1, and in v1beta1 as long as old clients ask for that.
func viewOf(params map[string]string) (view, bool) {
	as := params["as"]
	if as == "" {
		return viewObject, params["g"] == "" && params["v"] == ""
	}
	if params["g"] != metav1.GroupName || params["v"] != "v1" && params["v"] != "v1beta1" {
		return viewObject, false
	}
	switch v := view(as); v {
	case viewTable, viewMetadata, viewMetaList:
		return v, true
	}
	return viewObject, false
}

// IsTable reports whether the answer is a table, for which alone includeObject counts.
func (o Output) IsTable() bool { return o.view == viewTable }

func notAcceptableView(v view) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "the answer cannot be shown as " + string(v),
	}}
}

// singleMeta is the metadata of the table of one object.
func singleMeta(o *object.Object) *metav1.ListMeta {
	meta := &metav1.ListMeta{}
	if metadata, err := o.Metadata(); err == nil {
		meta.ResourceVersion, meta.SelfLink = metadata.ResourceVersion, metadata.SelfLink
	}
	return meta
}

// table writes objects as rows. A row is put together of the object's finished metadata:
// to encode a metav1.Table would take several times as long.
func (o Output) table(w *stream.Writer, meta *metav1.ListMeta, objects []*object.Object, rows Tabler, include metav1.IncludeObjectPolicy) error {
	if _, ok := o.format.(jsonFormat); !ok {
		table, err := newTable(meta, objects, rows, include, true)
		if err != nil {
			return err
		}
		return o.format.any(w, table)
	}
	empty, err := newTable(meta, nil, rows, include, true)
	if err != nil {
		return err
	}
	head, err := json.Marshal(empty)
	if err != nil {
		return err
	}
	_, _ = w.Write(head[:len(head)-len("]}")]) // rows come last
	var row []byte
	for i, obj := range objects {
		if row, err = appendRow(row[:0], obj, rows, include); err != nil {
			return err
		}
		if i > 0 {
			w.WriteString(",")
		}
		_, _ = w.Write(row)
	}
	w.WriteString("]}\n")
	return nil
}

// appendRow appends the JSON of a metav1.TableRow.
func appendRow(dst []byte, o *object.Object, rows Tabler, include metav1.IncludeObjectPolicy) ([]byte, error) {
	obj, err := o.DecodeForTable()
	if err != nil {
		return nil, err
	}
	cells, err := json.Marshal(rows.Cells(obj))
	if err != nil {
		return nil, err
	}
	dst = append(append(append(dst, `{"cells":`...), cells...), `,"object":`...)
	shown, err := appendShown(dst, o, include)
	return append(shown, '}'), err
}

// appendShown appends what a row carries of its object.
func appendShown(dst []byte, o *object.Object, include metav1.IncludeObjectPolicy) ([]byte, error) {
	form := object.Metadata
	switch include {
	case metav1.IncludeNone:
		return append(dst, "null"...), nil
	case metav1.IncludeObject:
		form = object.JSON
	}
	body, err := o.Body(form)
	return append(append(o.AppendHead(dst, form), body...), form.Tail()...), err
}

// eventTable is the table of one event. Only the first table of a watch has columns.
func (o Output) eventTable(obj *object.Object, rows Tabler, include metav1.IncludeObjectPolicy, columns bool) (*metav1.Table, error) {
	return newTable(singleMeta(obj), []*object.Object{obj}, rows, include, columns)
}

func newTable(meta *metav1.ListMeta, objects []*object.Object, rows Tabler, include metav1.IncludeObjectPolicy, columns bool) (*metav1.Table, error) {
	table := &metav1.Table{ListMeta: *meta, Rows: []metav1.TableRow{}}
	table.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind(string(viewTable)))
	if columns {
		table.ColumnDefinitions = rows.Columns()
	}
	for _, o := range objects {
		obj, err := o.DecodeForTable()
		if err != nil {
			return nil, err
		}
		row := metav1.TableRow{Cells: rows.Cells(obj)}
		if include != metav1.IncludeNone {
			shown, err := appendShown(nil, o, include)
			if err != nil {
				return nil, err
			}
			row.Object = runtime.RawExtension{Raw: shown}
		}
		table.Rows = append(table.Rows, row)
	}
	return table, nil
}
