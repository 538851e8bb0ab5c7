package registry

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/storage"
)

// Delete removes one object and returns a Status that names it, or, where finalizers hold
// it, marks it with a deletionTimestamp and returns it so.
//
// Errors: NotFound, Conflict where a precondition of opts does not hold, and the
// storage's own.
func (s *Store) Delete(ctx context.Context, namespace, name string, opts *metav1.DeleteOptions) (runtime.Object, error) {
	key := s.key(namespace, name)
	got, err := s.storage.Get(ctx, key, storage.GetOptions{})
	if err != nil {
		return nil, apiError(err)
	}
	current := got.KV
	for {
		if current == nil {
			return nil, apierrors.NewNotFound(s.GroupResource(), name)
		}
		result, response, err := s.deleteOnce(ctx, current, opts)
		if err != nil {
			return nil, apiError(err)
		}
		if response.Succeeded {
			return result, nil
		}
		current = response.Current
	}
}

// deleteOnce deletes or marks the object as it was read; the response says whether it
// was still so.
func (s *Store) deleteOnce(ctx context.Context, current *storage.KeyValue, opts *metav1.DeleteOptions) (runtime.Object, storage.WriteResponse, error) {
	obj, err := s.decode(current)
	if err != nil {
		return nil, storage.WriteResponse{}, err
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, storage.WriteResponse{}, err
	}
	if err := s.checkPreconditions(accessor, opts.Preconditions); err != nil {
		return nil, storage.WriteResponse{}, err
	}
	held := len(accessor.GetFinalizers()) > 0
	if s.BeforeDelete != nil {
		hold, err := s.BeforeDelete(obj)
		if err != nil {
			return nil, storage.WriteResponse{}, err
		}
		held = held || hold
	}
	if held {
		return s.markDeleted(ctx, current, obj, isDryRun(opts.DryRun))
	}
	response, err := s.remove(ctx, current, isDryRun(opts.DryRun))
	return s.deletedStatus(accessor), response, err
}

func (s *Store) checkPreconditions(accessor metav1.Object, preconditions *metav1.Preconditions) error {
	if preconditions == nil {
		return nil
	}
	// kube-apiserver names the kind here, not the resource.
	named := schema.GroupResource{Group: s.API.Group, Resource: s.API.Kind}
	if want := preconditions.UID; want != nil && *want != accessor.GetUID() {
		return apierrors.NewConflict(named, accessor.GetName(), fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *want, accessor.GetUID()))
	}
	if want := preconditions.ResourceVersion; want != nil && *want != accessor.GetResourceVersion() {
		return apierrors.NewConflict(named, accessor.GetName(), fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *want, accessor.GetResourceVersion()))
	}
	return nil
}

// remove deletes the key as it was read.
func (s *Store) remove(ctx context.Context, current *storage.KeyValue, dryRun bool) (storage.WriteResponse, error) {
	response, err := s.storage.Delete(ctx, current.Key, storage.DeleteOptions{Expect: current.ModRevision, DryRun: dryRun})
	if !errors.Is(err, storage.ErrUnknownOutcome) {
		return response, err
	}
	got, readErr := s.storage.Get(ctx, current.Key, storage.GetOptions{})
	if readErr != nil || revisionOf(got.KV) == current.ModRevision {
		return storage.WriteResponse{}, err
	}
	// The object that was read is gone, by this call or another's: that is what was asked.
	return storage.WriteResponse{Succeeded: got.KV == nil || got.KV.CreateRevision != current.CreateRevision, Revision: got.Revision, Current: got.KV}, nil
}

// markDeleted sets deletionTimestamp on an object that finalizers hold. One that is
// marked already is left as it is.
func (s *Store) markDeleted(ctx context.Context, current *storage.KeyValue, obj runtime.Object, dryRun bool) (runtime.Object, storage.WriteResponse, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, storage.WriteResponse{}, err
	}
	if accessor.GetDeletionTimestamp() != nil {
		marked, err := newObject(s.Resource, current)
		return marked, storage.WriteResponse{Succeeded: true}, err
	}
	now, immediately := metav1.Now(), int64(0)
	accessor.SetDeletionTimestamp(&now)
	accessor.SetDeletionGracePeriodSeconds(&immediately)
	if accessor.GetGeneration() > 0 {
		accessor.SetGeneration(accessor.GetGeneration() + 1)
	}
	accessor.SetResourceVersion("")
	value, err := encodeValue(obj)
	if err != nil {
		return nil, storage.WriteResponse{}, err
	}
	response, err := s.storage.Put(ctx, current.Key, value, storage.PutOptions{Expect: current.ModRevision, DryRun: dryRun})
	if err != nil || !response.Succeeded {
		return nil, response, err
	}
	revision := response.Revision
	if dryRun {
		revision = current.ModRevision
	}
	if s.API.Name == Namespaces && !dryRun {
		s.lifecycle.wake()
	}
	marked, err := newObject(s.Resource, &storage.KeyValue{Key: current.Key, Value: value, ModRevision: revision})
	return marked, response, err
}

// deletedStatus is the answer to a delete that took effect.
func (s *Store) deletedStatus(accessor metav1.Object) *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess,
		Details:  &metav1.StatusDetails{Name: accessor.GetName(), Group: s.API.Group, Kind: s.API.Name, UID: accessor.GetUID()},
	}
}
