package server

import (
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// view is what an answer shows of an object: the object itself, its row in a table, or its
// metadata alone.
type view string

const (
	viewObject   view = ""
	viewTable    view = "Table"
	viewMetadata view = "PartialObjectMetadata"
	viewMetaList view = "PartialObjectMetadataList"
)

// viewOf returns the view that a clause of Accept asks for; false: there is none such.
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

// includeObject is what a table row carries of its object.
func includeObject(c *call) (metav1.IncludeObjectPolicy, error) {
	opts := &metav1.TableOptions{}
	if err := metav1.Convert_url_Values_To_v1_TableOptions(&c.query, opts, nil); err != nil {
		return "", apierrors.NewBadRequest(err.Error())
	}
	if faults := validation.ValidateTableOptions(opts); len(faults) > 0 {
		return "", apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "TableOptions"}, "", faults)
	}
	return opts.IncludeObject, nil
}

// convert turns obj, an object or a list of the resource, into the view that the answer
// shows. A Status stays what it is.
func (c *call) convert(obj runtime.Object) (runtime.Object, error) {
	if _, ok := obj.(*metav1.Status); ok || c.output.view == viewObject {
		return obj, nil
	}
	if cached, ok := obj.(runtime.CacheableObject); ok {
		obj = cached.GetObject()
	}
	isList := meta.IsListType(obj)
	if isList && c.output.view == viewMetadata || !isList && c.output.view == viewMetaList {
		return nil, notAcceptableView(c.output.view)
	}
	switch c.output.view {
	case viewTable:
		include, err := includeObject(c)
		if err != nil {
			return nil, err
		}
		return table(c.resource, obj, include, true)
	case viewMetaList:
		return metadataList(obj)
	default:
		return metadataOf(obj)
	}
}

func notAcceptableView(v view) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "the answer cannot be shown as " + string(v),
	}}
}

// metadataOf is the metadata of obj as an object of its own.
func metadataOf(obj runtime.Object) (*metav1.PartialObjectMetadata, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	partial := meta.AsPartialObjectMetadata(accessor)
	partial.GetObjectKind().SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind(string(viewMetadata)))
	return partial, nil
}

func metadataList(obj runtime.Object) (runtime.Object, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind(string(viewMetaList)))
	if err := copyListMeta(&list.ListMeta, obj); err != nil {
		return nil, err
	}
	list.Items = []metav1.PartialObjectMetadata{}
	err := meta.EachListItem(obj, func(item runtime.Object) error {
		partial, err := metadataOf(item)
		if err == nil {
			list.Items = append(list.Items, *partial)
		}
		return err
	})
	return list, err
}

func copyListMeta(to *metav1.ListMeta, list runtime.Object) error {
	from, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	to.ResourceVersion, to.SelfLink, to.Continue = from.GetResourceVersion(), from.GetSelfLink(), from.GetContinue()
	to.RemainingItemCount = from.GetRemainingItemCount()
	return nil
}

// table shows an object or a list as rows. Only the first table of a watch has columns.
func table(resource Resource, obj runtime.Object, include metav1.IncludeObjectPolicy, columns bool) (*metav1.Table, error) {
	t := &metav1.Table{Rows: []metav1.TableRow{}}
	t.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind(string(viewTable)))
	if columns {
		t.ColumnDefinitions = resource.Columns()
	}
	addRow := func(item runtime.Object) error {
		row := metav1.TableRow{Cells: resource.Cells(item)}
		switch include {
		case metav1.IncludeNone:
		case metav1.IncludeObject:
			item.GetObjectKind().SetGroupVersionKind(kindOf(resource.APIResource()))
			row.Object.Object = item
		default:
			partial, err := metadataOf(item)
			if err != nil {
				return err
			}
			row.Object.Object = partial
		}
		t.Rows = append(t.Rows, row)
		return nil
	}
	if meta.IsListType(obj) {
		if err := copyListMeta(&t.ListMeta, obj); err != nil {
			return nil, err
		}
		return t, meta.EachListItem(obj, addRow)
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	t.ResourceVersion, t.SelfLink = accessor.GetResourceVersion(), accessor.GetSelfLink()
	return t, addRow(obj)
}

func kindOf(described metav1.APIResource) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: described.Group, Version: described.Version, Kind: described.Kind}
}
