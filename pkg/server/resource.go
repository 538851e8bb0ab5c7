package server

import (
	"context"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Resource is what the server consumes of one kind of object. The objects that it returns
// may be runtime.CacheableObjects; they are only encoded, never changed. Its errors are
// API errors where the client can do something about them; any other error is answered
// with 500, logged, and not shown.
//
// The writing methods take over the object that they are given, and also return warnings
// for the client, with an error, too.
type Resource interface {
	// APIResource describes the resource: group, version, kind, names and scope. Verbs are
	// those that it has, or nil where it has all that the server knows.
	APIResource() metav1.APIResource
	// New returns an empty object to decode a body into.
	New() runtime.Object
	// DecodeInto decodes JSON into an object that New returned, keeps nothing of data, and
	// returns what is unknown or repeated in it. Names are case-sensitive. The error says
	// what else is wrong.
	DecodeInto(data []byte, obj runtime.Object) (faults []error, err error)

	Get(ctx context.Context, namespace, name string, opts *metav1.GetOptions) (runtime.Object, error)
	// List returns the objects of a namespace, or of all namespaces where it is empty, with
	// warnings that name what it had to leave out.
	List(ctx context.Context, namespace string, opts *metav1.ListOptions) (list runtime.Object, warnings []string, err error)
	// Watch returns the changes of what List returns, a few at a time as they happen. The
	// sequence must be read; it ends with ctx, or with an error for the client.
	Watch(ctx context.Context, namespace string, opts *metav1.ListOptions) (iter.Seq2[[]watch.Event, error], error)

	Create(ctx context.Context, namespace string, obj runtime.Object, opts *metav1.CreateOptions) (created runtime.Object, warnings []string, err error)
	Update(ctx context.Context, namespace, name string, obj runtime.Object, opts *metav1.UpdateOptions) (updated runtime.Object, created bool, warnings []string, err error)
	Patch(ctx context.Context, namespace, name string, patchType types.PatchType, patch []byte, opts *metav1.PatchOptions) (patched runtime.Object, created bool, warnings []string, err error)
	// Delete returns a *metav1.Status, or the object where it is only marked as deleted.
	Delete(ctx context.Context, namespace, name string, opts *metav1.DeleteOptions) (runtime.Object, error)
	// DeleteCollection returns the list of the objects that it deleted, with the warnings of
	// List.
	DeleteCollection(ctx context.Context, namespace string, opts *metav1.DeleteOptions, list *metav1.ListOptions) (deleted runtime.Object, warnings []string, err error)

	// Columns are the columns of the resource's table, and Cells an object's cells in it;
	// obj is of New's type.
	Columns() []metav1.TableColumnDefinition
	Cells(obj runtime.Object) []any
}
