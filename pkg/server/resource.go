package server

import (
	"context"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/media"
)

// Resource is what the server consumes of one kind of object. Its errors are API errors
// where the client can do something about them; any other error is an internal one,
// answered with 500, logged, and not shown.
//
// The writing methods take over the object that they are given, and also return warnings
// for the client, with an error, too. A subresource is "" for the object itself, and else
// one of Subresources.
type Resource interface {
	// APIResource describes the resource: group, version, kind, names and scope. Verbs are
	// those that it has, or nil where it has all that the server knows.
	APIResource() metav1.APIResource
	// Subresources describe what is served below an object, such as status; each by the
	// whole name that discovery shows (namespaces/status) and its verbs.
	Subresources() []metav1.APIResource
	// Type is the type of the resource's objects.
	Type() *object.Type

	Get(ctx context.Context, namespace, name string, opts *metav1.GetOptions) (*object.Object, error)
	// Size returns how many bytes the JSON of an object has, roughly as it is now; 0: there is no
	// such object.
	Size(namespace, name string) int
	// List returns the objects of a namespace, or of all namespaces where it is empty, with
	// warnings that name what it had to leave out.
	List(ctx context.Context, namespace string, opts *metav1.ListOptions) (list *object.List, warnings []string, err error)
	// Watch returns the changes of what List returns, a few at a time as they happen. The
	// sequence must be read; it ends with ctx, or with an error for the client. initial is how
	// many bytes of JSON the objects have with which it begins.
	Watch(ctx context.Context, namespace string, opts *metav1.ListOptions) (events iter.Seq2[[]object.Event, error], initial int, err error)

	Create(ctx context.Context, namespace string, obj runtime.Object, opts *metav1.CreateOptions) (created *object.Object, warnings []string, err error)
	Update(ctx context.Context, namespace, name, subresource string, obj runtime.Object, opts *metav1.UpdateOptions) (updated *object.Object, created bool, warnings []string, err error)
	Patch(ctx context.Context, namespace, name, subresource string, patchType types.PatchType, patch []byte, opts *metav1.PatchOptions) (patched *object.Object, created bool, warnings []string, err error)
	// Delete returns a Status, or the object where it is only marked as deleted.
	Delete(ctx context.Context, namespace, name string, opts *metav1.DeleteOptions) (*object.Object, *metav1.Status, error)
	// DeleteCollection returns the list of the objects that it deleted, with the warnings of
	// List.
	DeleteCollection(ctx context.Context, namespace string, opts *metav1.DeleteOptions, list *metav1.ListOptions) (deleted *object.List, warnings []string, err error)

	media.Tabler
}
