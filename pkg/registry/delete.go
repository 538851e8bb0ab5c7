package registry

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/lifecycle"
	"github.com/berth-project/berth/pkg/storage"
)

// Delete removes one object and returns a Status that names it, or the object where the
// resource wants it so, or, where finalizers hold it, marks it with a deletionTimestamp and
// returns it so.
//
// With opts.IgnoreStoreReadErrorWithClusterBreakingPotential it only deletes what cannot be
// read, whatever holds it.
//
// Errors: NotFound, Conflict where a precondition of opts does not hold, StorageReadError for
// a stored value that cannot be read, and the storage's own.
func (s *Store) Delete(ctx context.Context, namespace, name string, opts *metav1.DeleteOptions) (obj *object.Object, status *metav1.Status, err error) {
	marked, removed, err := s.delete(ctx, namespace, name, opts)
	switch {
	case err != nil:
		return nil, nil, err
	case marked != nil:
		return marked, nil, nil
	case removed.object != nil && s.resource.ReturnDeleted:
		obj, err := s.show(removed.object)
		return obj, nil, err
	case removed.object != nil:
		return nil, s.deletedStatus(name, removed.object.UID()), nil
	}
	return nil, s.deletedStatus(name, ""), nil
}

// delete is Delete; removed is what was stored last of an object that nothing holds.
func (s *Store) delete(ctx context.Context, namespace, name string, opts *metav1.DeleteOptions) (marked *object.Object, removed stored, err error) {
	err = s.retry(ctx, s.resource.key(namespace, name), func(current stored) (outcome outcome, err error) {
		if !current.exists() {
			return noop, apierrors.NewNotFound(s.resource.GroupResource(), name)
		}
		marked, removed, outcome, err = s.deleteOnce(ctx, current, opts)
		return outcome, err
	})
	return marked, removed, err
}

// deleteOnce deletes or marks the object as it was read.
func (s *Store) deleteOnce(ctx context.Context, current stored, opts *metav1.DeleteOptions) (marked *object.Object, removed stored, _ outcome, err error) {
	dryRun := isDryRun(opts.DryRun)
	if ignoresReadErrors(opts) {
		outcome, err := s.deleteUnreadable(ctx, current, dryRun)
		return nil, current, outcome, err
	}
	obj, err := s.decode(current)
	if err != nil {
		return nil, stored{}, noop, err
	}
	if err := s.checkPreconditions(obj, opts.Preconditions); err != nil {
		return nil, stored{}, noop, err
	}
	if obj.GetDeletionTimestamp() != nil && s.held(obj) {
		marked, err := s.show(current.object)
		return marked, stored{}, noop, err // it is marked already
	}
	if s.resource.BeforeDelete != nil {
		if err := s.resource.BeforeDelete(obj); err != nil {
			return nil, stored{}, noop, err
		}
	}
	if s.held(obj) {
		marked, outcome, err := s.markDeleted(ctx, current.object, obj, dryRun)
		return marked, stored{}, outcome, err
	}
	response, err := s.remove(ctx, current.at(), current.object, dryRun)
	switch {
	case apierr.IsRefusal(err):
		return nil, stored{}, noop, err
	case err != nil:
		return nil, stored{}, done, apierr.FromStorage(err)
	case !response.Succeeded:
		return nil, stored{}, conflict, nil
	case dryRun:
		return nil, current, done, nil
	}
	return nil, current.last(response.Revision), done, nil
}

func (s *Store) checkPreconditions(obj APIObject, preconditions *metav1.Preconditions) error {
	if preconditions == nil {
		return nil
	}
	if uid := preconditions.UID; uid != nil && *uid != obj.GetUID() {
		return s.failedDeletePrecondition(obj, "UID", *uid, obj.GetUID(), "deleted and then recreated")
	}
	if version := preconditions.ResourceVersion; version != nil && *version != obj.GetResourceVersion() {
		return s.failedDeletePrecondition(obj, "ResourceVersion", *version, obj.GetResourceVersion(), "modified")
	}
	return nil
}

// failedDeletePrecondition is the conflict for a deletion that names another uid or
// resourceVersion than the object has.
func (s *Store) failedDeletePrecondition(obj APIObject, field string, given, has any, happened string) error {
	if s.resource.DeletesByUpdate {
		return s.failedPrecondition(obj.GetName(), field, given, has)
	}
	// kube-apiserver names the kind here, not the resource.
	named := schema.GroupResource{Group: s.resource.API.Group, Resource: s.resource.API.Kind}
	return apierrors.NewConflict(named, obj.GetName(), fmt.Errorf("the %[1]s in the precondition (%[2]v) does not match the %[1]s in record (%[3]v). The object might have been %[4]s", field, given, has, happened))
}

// markDeleted sets deletionTimestamp on an object that is held, unless BeforeDelete has done
// so.
func (s *Store) markDeleted(ctx context.Context, current *object.Object, obj APIObject, dryRun bool) (*object.Object, outcome, error) {
	if obj.GetDeletionTimestamp() == nil {
		now, immediately := metav1.Now(), int64(0)
		obj.SetDeletionTimestamp(&now)
		obj.SetDeletionGracePeriodSeconds(&immediately)
	}
	if obj.GetGeneration() > 0 {
		obj.SetGeneration(obj.GetGeneration() + 1)
	}
	marked, outcome, err := s.replace(ctx, current, obj, true, dryRun)
	if outcome == done && err == nil && !dryRun && s.onMarked != nil {
		s.onMarked()
	}
	return marked, outcome, err
}

// deletedStatus is the answer to a delete that took effect.
func (s *Store) deletedStatus(name string, uid types.UID) *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess,
		Details:  &metav1.StatusDetails{Name: name, Group: s.resource.API.Group, Kind: s.resource.API.Name, UID: uid},
	}
}

// DeleteCollection deletes the objects of a list, one by one or some together, unless they were replaced since.
// It ends with the first error, except that others may delete the same objects meanwhile.
// Objects that cannot be read are not in the list, and left alone.
func (s *Store) DeleteCollection(ctx context.Context, opts *metav1.DeleteOptions, listed *object.List) error {
	if ignoresReadErrors(opts) {
		return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "DeleteOptions"}, "", field.ErrorList{
			field.Invalid(field.NewPath(ignoreOption), true, "cannot be set for a collection: delete the objects one by one"),
		})
	}
	if opts.Preconditions == nil {
		ctx = s.mirroring.Together(ctx, mirrored{s}, listed)
	}
	for _, o := range listed.Objects {
		single := opts
		if opts.Preconditions == nil {
			single = opts.DeepCopy()
			single.Preconditions = metav1.NewUIDPreconditions(string(o.UID())) // not one that came after
		}
		_, _, err := s.Delete(ctx, o.Namespace, o.Name, single)
		if replaced := opts.Preconditions == nil && apierrors.IsConflict(err); err != nil && !replaced && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// deleteAll deletes every object of the namespace, or marks those that finalizers hold and adds
// them to rest. One that cannot be read goes at once.
func (s *Store) deleteAll(ctx context.Context, namespace string, rest *lifecycle.Rest) error {
	for page, err := range storage.Pages(ctx, s.storage, s.resource.prefix(namespace), storage.ListOptions{}) {
		if err != nil {
			return err
		}
		for _, kv := range page.KVs {
			name := kv.Key[len(s.resource.prefix(namespace)):]
			held, _, err := s.delete(ctx, namespace, name, &metav1.DeleteOptions{})
			if apierrors.IsStoreReadError(err) {
				_, _, err = s.delete(ctx, namespace, name, &metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: ptr.To(true)})
			}
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			if held != nil {
				metadata, err := held.Metadata()
				if err != nil {
					return err
				}
				rest.Add(s.resource.API.Name+"."+s.resource.API.Group, metadata.Finalizers)
			}
		}
	}
	return nil
}
