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
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/storage"
)

// Delete removes one object and returns a Status that names it, or, where finalizers hold
// it, marks it with a deletionTimestamp and returns it so.
//
// With opts.IgnoreStoreReadErrorWithClusterBreakingPotential it only deletes what cannot be
// read, whatever holds it.
//
// Errors: NotFound, Conflict where a precondition of opts does not hold, StorageReadError for
// a stored value that cannot be read, and the storage's own.
func (s *Store) Delete(ctx context.Context, namespace, name string, opts *metav1.DeleteOptions) (runtime.Object, error) {
	key := s.key(namespace, name)
	for fresh := false; ; fresh = true {
		stored, err := s.read(ctx, key, fresh)
		switch {
		case err != nil:
			return nil, err
		case stored == nil && fresh:
			return nil, apierrors.NewNotFound(s.GroupResource(), name)
		case stored == nil:
			continue
		}
		result, verdict, err := s.deleteOnce(ctx, stored, opts)
		switch {
		case verdict == decided, verdict == unwritten && fresh:
			return result, err
		case ctx.Err() != nil:
			return nil, retryTimeout()
		}
	}
}

// deleteOnce deletes or marks the object as it was read.
func (s *Store) deleteOnce(ctx context.Context, stored *object, opts *metav1.DeleteOptions) (runtime.Object, verdict, error) {
	if ignoresReadErrors(opts) {
		return s.deleteUnreadable(ctx, stored, isDryRun(opts.DryRun))
	}
	obj, err := stored.decode()
	if err != nil {
		return nil, unwritten, err
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, decided, err
	}
	if err := s.checkPreconditions(accessor, opts.Preconditions); err != nil {
		return nil, unwritten, err
	}
	if s.BeforeDelete != nil {
		if err := s.BeforeDelete(obj); err != nil {
			return nil, unwritten, err
		}
	}
	if s.held(obj, accessor) {
		return s.markDeleted(ctx, stored, obj, isDryRun(opts.DryRun))
	}
	response, err := s.remove(ctx, stored, isDryRun(opts.DryRun))
	if err != nil || response.Succeeded {
		return s.deletedStatus(accessor.GetName(), accessor.GetUID()), decided, apiError(err)
	}
	return nil, overtaken, nil
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
func (s *Store) remove(ctx context.Context, stored *object, dryRun bool) (storage.WriteResponse, error) {
	response, err := s.storage.Delete(ctx, stored.key, storage.DeleteOptions{Expect: stored.revision, DryRun: dryRun})
	if !errors.Is(err, storage.ErrUnknownOutcome) {
		return response, err
	}
	got, readErr := s.storage.Get(ctx, stored.key, storage.GetOptions{})
	if readErr != nil || got.KV != nil && got.KV.ModRevision == stored.revision {
		return storage.WriteResponse{}, err
	}
	// The object that was read is gone, by this call or another's: that is what was asked.
	gone := got.KV == nil || got.KV.CreateRevision != stored.createRevision
	return storage.WriteResponse{Succeeded: gone, Revision: got.Revision, Current: got.KV}, nil
}

// markDeleted sets deletionTimestamp on an object that is held. One that is marked already
// is left as it is.
func (s *Store) markDeleted(ctx context.Context, stored *object, obj runtime.Object, dryRun bool) (runtime.Object, verdict, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, decided, err
	}
	if accessor.GetDeletionTimestamp() != nil {
		return stored, unwritten, nil
	}
	now, immediately := metav1.Now(), int64(0)
	accessor.SetDeletionTimestamp(&now)
	accessor.SetDeletionGracePeriodSeconds(&immediately)
	if accessor.GetGeneration() > 0 {
		accessor.SetGeneration(accessor.GetGeneration() + 1)
	}
	value, err := s.valueOf(obj)
	if err != nil {
		return nil, decided, err
	}
	marked, verdict, err := s.replace(ctx, stored, obj, value, dryRun) // however large it is
	if verdict == decided && err == nil && !dryRun && s.API.Name == Namespaces {
		s.lifecycle.wake()
	}
	return marked, verdict, err
}

// deletedStatus is the answer to a delete that took effect.
func (s *Store) deletedStatus(name string, uid types.UID) *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess,
		Details:  &metav1.StatusDetails{Name: name, Group: s.API.Group, Kind: s.API.Name, UID: uid},
	}
}

// DeleteCollection deletes the objects that list selects, one by one, and returns the
// list of them as they were. What another deletes meanwhile is no error; the first
// other error ends it. It leaves alone what cannot be read; the warnings name that.
func (s *Store) DeleteCollection(ctx context.Context, namespace string, opts *metav1.DeleteOptions, list *metav1.ListOptions) (deleted runtime.Object, warnings []string, err error) {
	listed, err := s.list(ctx, namespace, list)
	if err != nil {
		return nil, nil, err
	}
	warnings = listed.unreadable.warnings()
	for _, o := range listed.objects {
		metadata, err := o.metadata()
		if err != nil {
			return nil, warnings, err
		}
		single := opts
		if opts.Preconditions == nil {
			single = opts.DeepCopy()
			single.Preconditions = metav1.NewUIDPreconditions(string(metadata.UID)) // not one that came after
		}
		_, err = s.Delete(ctx, metadata.Namespace, metadata.Name, single)
		if replaced := opts.Preconditions == nil && apierrors.IsConflict(err); err != nil && !replaced && !apierrors.IsNotFound(err) {
			return nil, warnings, err
		}
	}
	return listed, warnings, nil
}
