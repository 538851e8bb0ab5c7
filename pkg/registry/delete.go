package registry

import (
	"context"
	"fmt"
	"math"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
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
func (s *Store) Delete(ctx context.Context, namespace, name string, opts *metav1.DeleteOptions) (*object.Object, *metav1.Status, error) {
	key := s.key(namespace, name)
	for fresh := false; ; fresh = true {
		current, err := s.read(ctx, key, fresh)
		switch {
		case err != nil:
			return nil, nil, err
		case !current.exists() && fresh:
			return nil, nil, apierrors.NewNotFound(s.GroupResource(), name)
		case !current.exists():
			continue
		}
		marked, status, outcome, err := s.deleteOnce(ctx, current, opts)
		switch {
		case outcome == done, outcome == noop && fresh:
			return marked, status, err
		case ctx.Err() != nil:
			return nil, nil, apierr.RetryTimeout()
		}
	}
}

// deleteOnce deletes or marks the object as it was read.
func (s *Store) deleteOnce(ctx context.Context, current stored, opts *metav1.DeleteOptions) (marked *object.Object, status *metav1.Status, _ outcome, err error) {
	if ignoresReadErrors(opts) {
		status, outcome, err := s.deleteUnreadable(ctx, current, isDryRun(opts.DryRun))
		return nil, status, outcome, err
	}
	if err := current.err(); err != nil {
		return nil, nil, noop, err
	}
	obj, err := current.object.Decode()
	if err != nil {
		return nil, nil, noop, err
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, nil, done, err
	}
	if err := s.checkPreconditions(accessor, opts.Preconditions); err != nil {
		return nil, nil, noop, err
	}
	if accessor.GetDeletionTimestamp() != nil && s.held(obj, accessor) {
		return current.object, nil, noop, nil // it is marked already
	}
	if s.BeforeDelete != nil {
		if err := s.BeforeDelete(obj); err != nil {
			return nil, nil, noop, err
		}
	}
	if s.held(obj, accessor) {
		marked, outcome, err := s.markDeleted(ctx, current.object, obj, accessor, isDryRun(opts.DryRun))
		return marked, nil, outcome, err
	}
	response, err := s.remove(ctx, current.at(), isDryRun(opts.DryRun))
	switch {
	case err != nil:
		return nil, nil, done, apierr.FromStorage(err)
	case !response.Succeeded:
		return nil, nil, conflict, nil
	}
	return nil, s.deletedStatus(accessor.GetName(), accessor.GetUID()), done, nil
}

func (s *Store) checkPreconditions(accessor metav1.Object, preconditions *metav1.Preconditions) error {
	if preconditions == nil {
		return nil
	}
	name, uid, version := accessor.GetName(), preconditions.UID, preconditions.ResourceVersion
	// kube-apiserver marks what is held by its spec with an update, whose words are these.
	if s.Holds != nil {
		switch {
		case uid != nil && *uid != accessor.GetUID():
			return s.failedPrecondition(name, "UID", *uid, accessor.GetUID())
		case version != nil && *version != accessor.GetResourceVersion():
			return s.failedPrecondition(name, "ResourceVersion", *version, accessor.GetResourceVersion())
		}
		return nil
	}
	// Otherwise it names the kind here, not the resource.
	named := schema.GroupResource{Group: s.API.Group, Resource: s.API.Kind}
	switch {
	case uid != nil && *uid != accessor.GetUID():
		return apierrors.NewConflict(named, name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *uid, accessor.GetUID()))
	case version != nil && *version != accessor.GetResourceVersion():
		return apierrors.NewConflict(named, name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *version, accessor.GetResourceVersion()))
	}
	return nil
}

// markDeleted sets deletionTimestamp on an object that is held, unless BeforeDelete has done
// so.
func (s *Store) markDeleted(ctx context.Context, current *object.Object, obj runtime.Object, accessor metav1.Object, dryRun bool) (*object.Object, outcome, error) {
	if accessor.GetDeletionTimestamp() == nil {
		now, immediately := metav1.Now(), int64(0)
		accessor.SetDeletionTimestamp(&now)
		accessor.SetDeletionGracePeriodSeconds(&immediately)
	}
	if accessor.GetGeneration() > 0 {
		accessor.SetGeneration(accessor.GetGeneration() + 1)
	}
	d, err := s.draft(obj, accessor, math.MaxInt) // however large it is
	if err != nil {
		return nil, done, err
	}
	marked, outcome, err := s.replace(ctx, current, obj, accessor, d, dryRun)
	if outcome == done && err == nil && !dryRun && s.API.Name == Namespaces {
		s.namespaces.Wake()
	}
	return marked, outcome, err
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
func (s *Store) DeleteCollection(ctx context.Context, namespace string, opts *metav1.DeleteOptions, list *metav1.ListOptions) (deleted *object.List, warnings []string, err error) {
	deleted, warnings, err = s.List(ctx, namespace, list)
	if err != nil {
		return nil, nil, err
	}
	for _, o := range deleted.Objects {
		single := opts
		if opts.Preconditions == nil {
			single = opts.DeepCopy()
			single.Preconditions = metav1.NewUIDPreconditions(string(o.UID())) // not one that came after
		}
		_, _, err = s.Delete(ctx, o.Namespace, o.Name, single)
		if replaced := opts.Preconditions == nil && apierrors.IsConflict(err); err != nil && !replaced && !apierrors.IsNotFound(err) {
			return nil, warnings, err
		}
	}
	return deleted, warnings, nil
}

// deletePage is how many objects of a terminating namespace are read at once.
const deletePage = 500

// deleteAll deletes every object of the namespace, or marks those that finalizers hold. One
// that cannot be read goes at once.
func (s *Store) deleteAll(ctx context.Context, namespace string) error {
	from := ""
	for {
		page, err := s.storage.List(ctx, s.prefix(namespace), storage.ListOptions{Limit: deletePage, From: from})
		if err != nil {
			return err
		}
		for _, kv := range page.KVs {
			name := kv.Key[len(s.prefix(namespace)):]
			_, _, err := s.Delete(ctx, namespace, name, &metav1.DeleteOptions{})
			if apierrors.IsStoreReadError(err) {
				ignore := true
				_, _, err = s.Delete(ctx, namespace, name, &metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: &ignore})
			}
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			from = kv.Key + "\x00"
		}
		if !page.More {
			return nil
		}
	}
}
