package media

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"

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

// notAcceptableView is the answer where the view is not one of what it shows, in kube-apiserver's
// words, which name its own Go type: those of events are in the package of the core group.
func notAcceptableView(v view, is, kind string, t *object.Type) error {
	pkg, _, _ := strings.Cut(t.Kind.Group, ".")
	if pkg == "" || pkg == "events" {
		pkg = "core"
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: fmt.Sprintf("you requested %s, but the requested object is %s (*%s.%s)", v, is, pkg, kind),
	}}
}

// appendCells appends the cells of a row, with what they say of times as of now.
func appendCells(dst, cells []byte) ([]byte, error) {
	for {
		before, at, behind, found, err := object.NextTime(cells)
		if err != nil {
			return dst, err
		}
		if dst = append(dst, before...); !found {
			return dst, nil
		}
		text := "<unknown>"
		if !at.IsZero() {
			text = duration.HumanDuration(time.Since(at))
		}
		encoded, err := json.Marshal(text)
		if err != nil {
			return dst, err
		}
		dst, cells = append(dst, encoded...), behind
	}
}

// singleMeta is the metadata of the table of one object.
func singleMeta(o *object.Object) *metav1.ListMeta {
	meta := &metav1.ListMeta{SelfLink: o.SelfLink()}
	if o.Revision != 0 {
		meta.ResourceVersion = strconv.FormatInt(o.Revision, 10)
	}
	return meta
}

// table writes objects of the type as rows.
func (o Output) table(ctx context.Context, w *stream.Writer, meta *metav1.ListMeta, t *object.Type, objects []*object.Object, include metav1.IncludeObjectPolicy) error {
	format := o.format.(documentFormat) // as Negotiate gives tables only to types that have them
	whole, err := o.emptyTable(meta, t.Columns)
	if err != nil {
		return err
	}
	return format.document(w, whole, "rows", func(yield func([]byte, error) bool) {
		var row []byte
		for _, obj := range objects {
			r, err := o.appendRow(row[:0], obj, include)
			if err == nil {
				err = ctx.Err()
			}
			row = append(append(r.head, r.body...), r.tail...)
			if !yield(row, err) {
				return
			}
		}
	})
}

// tableEvent writes an event with the table of its object as a line of JSON. Only the first
// table of a watch has columns.
func (o Output) tableEvent(w *stream.Writer, e object.Event, include metav1.IncludeObjectPolicy, isFirst bool) error {
	var columns []metav1.TableColumnDefinition
	if isFirst {
		columns = e.Object.Type.Columns
	}
	table, err := o.emptyTable(singleMeta(e.Object), columns)
	if err != nil {
		return err
	}
	head := append(appendEventHead(nil, e.Type), table[:len(table)-len("]}")]...)
	r, err := o.appendRow(head, e.Object, include)
	if err != nil {
		return err
	}
	return r.shape.writeFramed(w, e.Object, r.body, r.head, r.tail+"]}}\n", r.body != nil && w.Compressed())
}

// emptyTable is the JSON of a metav1.Table without rows.
func (o Output) emptyTable(meta *metav1.ListMeta, columns []metav1.TableColumnDefinition) ([]byte, error) {
	table := &metav1.Table{ListMeta: *meta, ColumnDefinitions: columns, Rows: []metav1.TableRow{}}
	table.SetGroupVersionKind(schema.GroupVersionKind{Group: metav1.GroupName, Version: o.version, Kind: string(viewTable)})
	return json.Marshal(table)
}

// row is the JSON of a metav1.TableRow in three parts, around the object's own bytes.
type row struct {
	head, body []byte
	tail       string
	shape      *shape // of body
}

// appendRow returns an object's row, with its head behind dst. It is put together of finished
// bytes: to encode a metav1.TableRow would go through those of the object again.
func (o Output) appendRow(dst []byte, of *object.Object, include metav1.IncludeObjectPolicy) (row, error) {
	cells, err := of.Body(object.Cells)
	if err != nil {
		return row{head: dst}, err
	}
	if dst, err = appendCells(append(dst, `{"cells":`...), cells); err != nil {
		return row{head: dst}, err
	}
	dst = append(dst, `,"object":`...)
	s := jsonShapes[o.version]
	switch include {
	case metav1.IncludeNone:
		return row{head: append(dst, "null"...), tail: "}", shape: s}, nil
	case metav1.IncludeObject:
		s = jsonShapes[""]
	}
	body, err := of.Body(s.Form)
	return row{appendJSONHead(dst, of, s), body, s.Tail + "}", s}, err
}
