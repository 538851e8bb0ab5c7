package media

import (
	"context"
	"encoding/json"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

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

// The versions of meta.k8s.io, whose views are the same.
const (
	v1      = "v1"
	v1beta1 = "v1beta1"
)

// viewOf returns the view that a clause of Accept asks for, and in which version of
// meta.k8s.io; false: there is no such view.
func viewOf(params map[string]string) (v view, version string, ok bool) {
	as, group, version := params["as"], params["g"], params["v"]
	if as == "" {
		return viewObject, "", group == "" && version == ""
	}
	if group != metav1.GroupName || version != v1 && version != v1beta1 {
		return viewObject, "", false
	}
	switch v := view(as); v {
	case viewTable, viewMetadata, viewMetaList:
		return v, version, true
	}
	return viewObject, "", false
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
func (o Output) table(ctx context.Context, w *stream.Writer, meta *metav1.ListMeta, objects []*object.Object, rows Tabler, include metav1.IncludeObjectPolicy) error {
	format, ok := o.format.(documentFormat)
	if !ok {
		return notAcceptableView(o.view)
	}
	empty, err := o.newTable(meta, nil, rows, include, true)
	if err != nil {
		return err
	}
	whole, err := json.Marshal(empty)
	if err != nil {
		return err
	}
	return format.document(w, whole, "rows", func(yield func([]byte, error) bool) {
		var row []byte
		for _, obj := range objects {
			var err error
			if row, err = o.appendRow(row[:0], obj, rows, include); err == nil {
				err = ctx.Err()
			}
			if !yield(row, err) {
				return
			}
		}
	})
}

// appendRow appends the JSON of a metav1.TableRow.
func (o Output) appendRow(dst []byte, of *object.Object, rows Tabler, include metav1.IncludeObjectPolicy) ([]byte, error) {
	obj, err := of.DecodeForTable()
	if err != nil {
		return nil, err
	}
	cells, err := json.Marshal(rows.Cells(obj))
	if err != nil {
		return nil, err
	}
	dst = append(append(append(dst, `{"cells":`...), cells...), `,"object":`...)
	shown, err := o.appendShown(dst, of, include)
	return append(shown, '}'), err
}

// appendShown appends what a row carries of its object.
func (o Output) appendShown(dst []byte, of *object.Object, include metav1.IncludeObjectPolicy) ([]byte, error) {
	s := jsonShapes[o.version]
	switch include {
	case metav1.IncludeNone:
		return append(dst, "null"...), nil
	case metav1.IncludeObject:
		s = jsonShapes[""]
	}
	body, err := of.Body(s.Form)
	return append(append(appendJSONHead(dst, of, s), body...), s.Tail...), err
}

// eventTable is the table of one event. Only the first table of a watch has columns.
func (o Output) eventTable(of *object.Object, rows Tabler, include metav1.IncludeObjectPolicy, columns bool) (*metav1.Table, error) {
	return o.newTable(singleMeta(of), []*object.Object{of}, rows, include, columns)
}

func (o Output) newTable(meta *metav1.ListMeta, objects []*object.Object, rows Tabler, include metav1.IncludeObjectPolicy, columns bool) (*metav1.Table, error) {
	table := &metav1.Table{ListMeta: *meta, Rows: []metav1.TableRow{}}
	table.SetGroupVersionKind(schema.GroupVersionKind{Group: metav1.GroupName, Version: o.version, Kind: string(viewTable)})
	if columns {
		table.ColumnDefinitions = rows.Columns()
	}
	for _, of := range objects {
		obj, err := of.DecodeForTable()
		if err != nil {
			return nil, err
		}
		row := metav1.TableRow{Cells: rows.Cells(obj)}
		if include != metav1.IncludeNone {
			shown, err := o.appendShown(nil, of, include)
			if err != nil {
				return nil, err
			}
			row.Object = runtime.RawExtension{Raw: shown}
		}
		table.Rows = append(table.Rows, row)
	}
	return table, nil
}
